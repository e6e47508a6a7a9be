"""`python -m symnoise_ray.train CONFIG` trains one model, as `symnoise-ray train` does."""

import sys

from symnoise_ray.cli.door import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
