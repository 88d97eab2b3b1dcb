"""python -m programs FILE: run a printed program again. python -m programs hunt: search for failing programs.

Run it in tests/. FILE may be - for the standard input.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from . import checks, script, strategies


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m programs", description=__doc__)
    parser.add_argument("what", help="a file with a printed program, -, or the word hunt")
    parser.add_argument("--family", choices=strategies.FAMILIES, help="search only this family; default: all")
    parser.add_argument("--examples", type=int, default=1000, help="programs to try before a search ends")
    parser.add_argument("--seconds", type=float, default=300, help="time limit per family")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without", default="", help="kinds to exclude, separated by commas")
    parser.add_argument(
        "--only", default="", help="kinds to draw from besides layers and products, separated by commas"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "hunt":
        for family in [options.family] if options.family else strategies.FAMILIES:
            _hunt(family, options)
        return 0
    source = sys.stdin.read() if options.what == "-" else open(options.what).read()
    found = checks.differences_of(script.parse(source))
    print("\n".join(found) or "no difference")
    return bool(found)


def _hunt(family: str, options: argparse.Namespace) -> None:
    """Search for failing programs and print each one. After each, exclude its suspect kinds and search again."""
    without = strategies.kinds_without() | set(filter(None, options.without.split(",")))
    if options.only:
        without = strategies.other_kinds(options.only.split(","))
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        found = checks.find(family, without, options.examples, options.seed, end - time.monotonic())
        if found.program is None:
            print(f"{family}: no failing program among {found.examples}", flush=True)
            return
        suspects = checks.suspects(found.program)
        print(f"{family}: found after {found.examples} examples, seed {options.seed}{found.program!r}", flush=True)
        print("\n".join(found.differences), f"\nsuspects: {sorted(suspects)}\n", flush=True)
        if not suspects:
            return
        without |= suspects
        print(f"excluded from here on: {','.join(sorted(without))}")


if __name__ == "__main__":
    sys.exit(main())
