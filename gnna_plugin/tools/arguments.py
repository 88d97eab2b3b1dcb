"""Types of command-line arguments, which refuse a bad value in one sentence before anything is measured."""

import argparse
import os
from pathlib import Path

# The largest count that the ops' 32-bit indices can hold. Larger numbers are typing mistakes.
_MOST = 2**31 - 1


def positive(text):
    """Return a whole number of 1 or more."""
    return _whole(text, 1, _MOST)


def natural(text):
    """Return a seed: a whole number of 0 to 2**32 - 1, which all random number generators accept."""
    return _whole(text, 0, 2**32 - 1)


def _whole(text, least, most):
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < least:
        raise argparse.ArgumentTypeError(f"{text} is too small; it must be {least} or more")
    if value > most:
        raise argparse.ArgumentTypeError(f"{text} is too large; it must be {most:,} or less")
    return value


def output_file(text):
    """Return the path of a file that can be written."""
    path = Path(text)
    folder = path.resolve().parent
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: the folder does not exist")
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder; the name of a file is needed")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written")
    return text
