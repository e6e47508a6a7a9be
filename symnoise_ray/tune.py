"""`python -m symnoise_ray.tune [SPACE] [key=value ...]` is `symnoise-ray tune`."""

import sys

from symnoise_ray.cli.door import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
