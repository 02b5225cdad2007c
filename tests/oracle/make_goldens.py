"""Writes the goldens that the C tests read. Needs the models that make_models.py wrote."""

from __future__ import annotations

import argparse
import importlib

from common import use_one_thread

PARTS = ("sampling", "tokens", "stages", "pipeline", "atedm", "flops", "checkpoint")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)}; all when none is named")
    args = parser.parse_args()
    unknown = set(args.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part: {', '.join(sorted(unknown))}")
    use_one_thread()
    for part in args.parts or PARTS:
        importlib.import_module(f"golden_{part}").write_all()


if __name__ == "__main__":
    main()
