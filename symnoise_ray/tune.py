"""`python -m symnoise_ray.tune [SPACE] [key=value ...]` runs a sweep, as `symnoise-ray tune` does.

Nothing heavy is imported before the input is checked, and Ctrl-C is quiet from the first moment.
"""

import sys

if __name__ == "__main__":
    try:
        from symnoise_ray.cli.main import main

        sys.exit(main(["tune", *sys.argv[1:]]))
    except KeyboardInterrupt:
        sys.exit(130)
