"""`python -m symnoise_ray VERB` is `symnoise-ray VERB`."""

import sys

from symnoise_ray.cli.main import main

sys.exit(main())
