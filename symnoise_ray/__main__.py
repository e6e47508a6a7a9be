"""`python -m symnoise_ray VERB` is `symnoise-ray VERB`."""

import sys

from symnoise_ray.cli.door import main

if __name__ == "__main__":
    sys.exit(main())
