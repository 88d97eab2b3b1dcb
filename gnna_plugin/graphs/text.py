"""Graphs in text files: edge lists, and Matrix Market files of sparse matrices.

This file owns both formats and the sentence about the first bad line of one.
"""

import re
import warnings

import numpy as np

from gnna_plugin.graphs.graph import Graph, first_line, too_many_nodes

_INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")


def load_edge_list(path):
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b",", b" ")
    lines = raw.splitlines()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns where it reads "1.5" as an integer, or finds no edge
            pairs = np.loadtxt(lines, dtype=np.int64, comments=["#", "%"], usecols=(0, 1), ndmin=2, encoding="latin-1")
    except (ValueError, OverflowError, Warning) as error:
        raise ValueError(_first_bad_line(path, lines) or f"{path}: not an edge list ({first_line(error)})") from error
    low, high = int(pairs.min()), int(pairs.max())
    if low < 0:
        raise ValueError(_first_bad_line(path, lines) or f"{path}: holds the negative node id {low}")
    if high >= max(10_000_000, 64 * len(pairs)):
        raise ValueError(f"{path}: node ids reach {high} for {len(pairs)} edges: renumber them to 0 .. N-1 first")
    return Graph(name=path.stem, num_nodes=high + 1, src=pairs[:, 0].copy(), dst=pairs[:, 1].copy())


def _first_bad_line(path, lines):
    """The sentence about the first line that is no edge, or None. Slow, so it runs on a file known to be bad only."""
    edges = 0
    for number, line in enumerate(lines, 1):
        fields = re.split(rb"[#%]", line, maxsplit=1)[0].split()
        if not fields:
            continue
        if len(fields) < 2:
            return f"{path}, line {number}: one column, an edge needs a source and a destination"
        for field in fields[:2]:
            shown = field[:40].decode("utf-8", "replace")
            if not _INTEGER.fullmatch(field):
                return f"{path}, line {number}: '{shown}' is not an integer node id"
            if int(field) < 0:
                return f"{path}, line {number}: the node id {shown} is negative"
        edges += 1
    return None if edges else f"{path}: holds no edge"
