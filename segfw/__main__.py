"""``python -m segfw`` is the same as ``segfw``."""

import sys

from segfw.cli import main

if __name__ == "__main__":
    sys.exit(main())
