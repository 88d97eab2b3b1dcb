"""Reads graphs from text files: edge lists and Matrix Market files.

This file owns both formats and the error that names the first bad line of a file.
"""

import re
import warnings

import numpy as np

from gnna_plugin.data.graph import Graph, first_line, too_many_nodes

_INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")


def load_edge_list(path):
    """Read the Graph of an edge list with "src dst" on each line.

    Raises:
        ValueError: the file is no edge list. The text names the first bad line.
    """
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b",", b" ")
    lines = raw.splitlines()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns if it reads "1.5" as an integer or finds no edge
            pairs = np.loadtxt(lines, dtype=np.int64, comments=["#", "%"], usecols=(0, 1), ndmin=2, encoding="latin-1")
    except (ValueError, OverflowError, Warning) as error:
        raise ValueError(_first_bad_line(path, lines) or f"{path}: not an edge list ({first_line(error)})") from error
    low, high = int(pairs.min()), int(pairs.max())
    if low < 0:
        raise ValueError(_first_bad_line(path, lines) or f"{path}: holds the negative node id {low}")
    if too_many_nodes(high + 1, len(pairs)):
        raise ValueError(f"{path}: node ids reach {high} for {len(pairs)} edges: renumber them to 0 .. N-1 first")
    return Graph(name=path.stem, num_nodes=high + 1, src=pairs[:, 0].copy(), dst=pairs[:, 1].copy())


def _first_bad_line(path, lines):
    """Return the error text for the first line that is no edge, or None.

    This is slow, so it is called only for a file that is known to be bad.
    """
    edges = 0
    for number, line in enumerate(lines, 1):
        fields = re.split(rb"[#%]", line, maxsplit=1)[0].split()
        if not fields:
            continue
        if len(fields) < 2:
            return f"{path}, line {number}: one column; an edge needs a source and a destination"
        for field in fields[:2]:
            shown = field[:40].decode("utf-8", "replace")
            if not _INTEGER.fullmatch(field):
                return f"{path}, line {number}: '{shown}' is not an integer node id"
            if int(field) < 0:
                return f"{path}, line {number}: the node id {shown} is negative"
        edges += 1
    return None if edges else f"{path}: holds no edge"


def load_matrix_market(path):
    """Read the Graph of a Matrix Market file (.mtx).

    Entry (i, j) is the edge i -> j. Reads coordinate matrices of pattern, real or integer values, and ignores the
    values. The other half of a symmetric matrix is added.

    Raises:
        ImportError: SciPy is not installed.
        ValueError: the file is damaged, or the matrix is no graph.
    """
    try:
        from scipy.io import mminfo, mmread
    except ImportError as error:
        raise ImportError(f"{path}: reading Matrix Market files needs SciPy: pip install scipy") from error
    try:
        rows, columns, entries, layout, field, _ = mminfo(path)
    except (ValueError, OverflowError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a Matrix Market file ({first_line(error)})") from error
    if layout != "coordinate" or field not in ("pattern", "real", "integer", "unsigned-integer", "double"):
        raise ValueError(f"{path}: a {layout} {field} matrix; accepted are coordinate pattern, real or integer")
    if rows != columns or rows < 1:
        raise ValueError(f"{path}: a {rows} x {columns} matrix; an adjacency matrix is square and not empty")
    # Checked before memory is allocated. An entry has at least four characters, such as "1 1" and its line end.
    if entries > path.stat().st_size // 4 + 1 or too_many_nodes(rows, entries):
        raise ValueError(f"{path}: the header claims {rows} rows and {entries} entries; the file is too short for them")
    try:
        matrix = mmread(path)
    except (ValueError, OverflowError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path}: not a readable Matrix Market file ({first_line(error)})") from error
    src, dst = matrix.row.astype(np.int64), matrix.col.astype(np.int64)
    if len(src) and (min(src.min(), dst.min()) < 0 or max(src.max(), dst.max()) >= rows):
        raise ValueError(f"{path}: holds an index outside 1 to {rows}")
    return Graph(name=path.stem, num_nodes=rows, src=src, dst=dst)
