"""`python -m symnoise_ray VERB` is `symnoise-ray VERB`."""

import sys

from symnoise_ray.cli import main

sys.exit(main())
