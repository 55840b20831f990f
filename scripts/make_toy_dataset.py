"""Makes a small 3-D data set that looks like abdominal MR, in nnU-Net v2 raw layout.

python scripts/make_toy_dataset.py OUT [--cases 24] [--test-cases 6] [--seed 0]
"""

import argparse
from pathlib import Path

from segfw.dataset.toy import make_toy_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    for option, default in (("--cases", 24), ("--test-cases", 6), ("--seed", 0)):
        parser.add_argument(option, type=int, default=default, help="%(default)s unless told")
    make_toy_dataset(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
