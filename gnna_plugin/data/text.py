"""Reads graphs from text files: edge lists and Matrix Market files.

This file owns both formats and the error that names the first bad line of a file.
"""

import re
import warnings
from typing import NamedTuple

import numpy as np

from gnna_plugin.data.graph import Graph, first_line, too_many_nodes

_INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")
_WORD = re.compile(rb"[A-Za-z_][\w .:/()-]*")
# Names of columns in a header line, in lower case.
_SOURCE = {b"src", b"source", b"source_id", b"from", b"from_id", b"u", b"head"}
_TARGET = {b"dst", b"dest", b"destination", b"target", b"target_id", b"to", b"to_id", b"v", b"tail"}


class _Layout(NamedTuple):
    """How the lines of an edge list are read.

    Attributes:
        skip: number of lines up to the header; 0 without one.
        delimiter: what separates the columns; None for white space.
        columns: the columns of source and destination.
        names: the names of these columns in the header, for errors; empty without one.
    """

    skip: int = 0
    delimiter: bytes | None = None
    columns: tuple[int, int] = (0, 1)
    names: tuple[str, ...] = ()

    def fields(self, line):
        """Return the columns of a line as a list of bytes, without its comment."""
        text = re.split(rb"[#%]", line, maxsplit=1)[0]
        return [part.strip(b' \t"') for part in text.split(self.delimiter)] if text.strip() else []


def load_edge_list(path):
    """Read the Graph of an edge list with "src dst" on each line.

    The first line that is no comment may be a header. Its names say which columns hold source and destination, in any
    order; if none of them is known, the first two columns do.

    Raises:
        ValueError: the file is no edge list. The text names the first bad line.
    """
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = raw.splitlines()
    layout = _header(path, lines)
    if layout is None:  # a list without a header may mix separators
        layout, lines = _Layout(), raw.replace(b",", b" ").splitlines()
    lines = [line.replace(b'"', b"") for line in lines[layout.skip :]] if layout.skip else lines
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns if it reads "1.5" as an integer or finds no edge
            pairs = np.loadtxt(
                lines, dtype=np.int64, comments=["#", "%"], usecols=layout.columns, ndmin=2, encoding="latin-1",
                delimiter=layout.delimiter and layout.delimiter.decode(),
            )  # fmt: skip
    except (ValueError, OverflowError, Warning) as error:
        fault = _first_bad_line(path, lines, layout)
        raise ValueError(fault or f"{path}: not an edge list ({first_line(error)})") from error
    low, high = int(pairs.min()), int(pairs.max())
    if low < 0:
        raise ValueError(_first_bad_line(path, lines, layout) or f"{path}: holds the negative node id {low}")
    if too_many_nodes(high + 1, len(pairs)):
        raise ValueError(f"{path}: node ids reach {high} for {len(pairs)} edges: renumber them to 0 .. N-1 first")
    return Graph(name=path.stem, num_nodes=high + 1, src=pairs[:, 0].copy(), dst=pairs[:, 1].copy())


def _header(path, lines):
    """Return the _Layout that the header of an edge list gives, or None if it has no header.

    A header is a first line that is no comment and has a name in each column.

    Raises:
        ValueError: the header does not say which columns hold source and destination.
    """
    number, line = next(((n, x) for n, x in enumerate(lines, 1) if _Layout().fields(x)), (0, b""))
    delimiter = next((mark for mark in (b",", b";", b"\t") if mark in line), None)
    names = _Layout(delimiter=delimiter).fields(line)
    if not names or not all(map(_WORD.fullmatch, names)):
        return None
    known = [[i for i, name in enumerate(names) if name.lower() in group] for group in (_SOURCE, _TARGET)]
    if len(names) < 2:
        raise ValueError(f"{path}, line {number}: one column; an edge needs a source and a destination")
    if known == [[], []]:
        known = [[0], [1]]
    if any(len(found) != 1 for found in known):
        shown = ", ".join(name.decode("utf-8", "replace") for name in names)[:80]
        raise ValueError(
            f"{path}, line {number}: the columns are {shown}; name one of them src, source, from or u, and one dst, "
            "target, to or v"
        )
    columns = known[0][0], known[1][0]
    return _Layout(number, delimiter, columns, tuple(names[i].decode("utf-8", "replace")[:40] for i in columns))


def _first_bad_line(path, lines, layout):
    """Return the error text for the first line that is no edge, or None.

    This is slow, so it is called only for a file that is known to be bad.
    """
    edges = 0
    for number, line in enumerate(lines, layout.skip + 1):
        fields = layout.fields(line)
        if not fields:
            continue
        if len(fields) <= max(layout.columns):
            columns = "one column" if len(fields) == 1 else f"{len(fields)} columns"
            return f"{path}, line {number}: {columns}; an edge needs a source and a destination"
        for place, field in enumerate(fields[i] for i in layout.columns):
            shown = field[:40].decode("utf-8", "replace")
            column = f" (column '{layout.names[place]}')" if layout.names else ""
            if not _INTEGER.fullmatch(field):
                return f"{path}, line {number}: '{shown}' is not an integer node id{column}"
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
