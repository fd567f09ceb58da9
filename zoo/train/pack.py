"""Pack folders of photos for training: python -m zoo.train.pack PACK --held-out VAL SOURCE ..."""

import argparse
from pathlib import Path

from zoo.train.photos import pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, help="folder to write")
    parser.add_argument("sources", type=Path, nargs="+", help="folders of photos")
    parser.add_argument(
        "--held-out", type=Path, action="append", required=True,
        help="folder whose photos, and their likes, are never packed",
    )  # fmt: skip
    arguments = parser.parse_args()
    pack(arguments.sources, arguments.held_out, arguments.pack)


if __name__ == "__main__":
    main()
