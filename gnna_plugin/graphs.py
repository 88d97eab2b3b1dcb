"""Graphs for measuring: loads a graph from a file, by name or generated, into checked NumPy arrays.

This file owns what a graph file may look like and what is said about one that is damaged. It knows no framework and
no torch; a caller turns the arrays into its own structures. Nothing is ever unpickled.
"""

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gnna_plugin.generate import DEFAULT_SIZE, community_graph

TEXT_SUFFIXES = (".txt", ".tsv", ".csv")
_SIZED = re.compile(r"community:(\d+)x(\d+)")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,18}")
# A damaged shape must not make the reader reserve the whole machine: 16 GiB of float32.
_MAX_DENSE_VALUES = 1 << 32


@dataclass(frozen=True)
class Graph:
    """A directed graph; edge e carries a message from node ``src[e]`` to node ``dst[e]``.

    ``src`` and ``dst`` are int64 [E] with values in [0, num_nodes); ``x`` is float32 [num_nodes, F]; ``y`` is int64
    [num_nodes] with values of 0 or more; the masks are bool [num_nodes]. What a source does not give is None.
    """

    name: str
    num_nodes: int
    src: np.ndarray
    dst: np.ndarray
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    train_mask: np.ndarray | None = None
    val_mask: np.ndarray | None = None
    test_mask: np.ndarray | None = None

    @property
    def num_edges(self):
        """The number of directed edges, an undirected edge that is stored both ways counting twice."""
        return len(self.src)


def load_graph(source, *, seed=0):
    """Load a graph.

    ``source`` is one of
      * a path that ends in .npz: in-neighbour CSR (row = destination) with the keys num_nodes, indptr, and indices or
        indices_delta (the first differences of indices); optionally x [N, F] or x_indptr, x_indices, x_data, x_shape
        (CSR features, returned dense), y, train_mask, val_mask, test_mask;
      * a path that ends in .txt, .tsv or .csv: one edge "src dst" per line, split by white space or commas, further
        columns ignored, comments after # or %; the nodes are 0 .. the largest id;
      * a name: NAME.npz in the folder that the environment variable GNNA_DATA names;
      * "community" or "community:NODESxEDGES": a generated graph (gnna_plugin.generate), drawn from ``seed``.

    Raises ValueError, in one sentence that names the file and the fault, for a damaged or unfit file, and
    FileNotFoundError, with the names that GNNA_DATA holds, for a graph that is not there.
    """
    text = os.fspath(source)
    if text == "community" or text.startswith("community:"):
        return Graph(name=text, **community_graph(*_generated_size(text), seed=seed))
    path = Path(text)
    if path.is_file():
        if path.suffix == ".npz":
            return _load_npz(path)
        if path.suffix in TEXT_SUFFIXES:
            return _load_edge_list(path)
        raise ValueError(f"{path}: graph files end in .npz, .txt, .tsv or .csv, not '{path.suffix}'")
    folder = os.environ.get("GNNA_DATA")
    if folder and "/" not in text and (Path(folder) / f"{text}.npz").is_file():
        return _load_npz(Path(folder) / f"{text}.npz")
    raise FileNotFoundError(f"no graph file or name '{text}'; {_known_names(folder)}")


def available_graphs():
    """The names that GNNA_DATA holds, sorted; an empty list when it is not set or not a folder."""
    folder = os.environ.get("GNNA_DATA")
    return sorted(p.stem for p in Path(folder).glob("*.npz")) if folder and Path(folder).is_dir() else []


def row_normalised(x):
    """Return float32 [N, F] ``x`` with each row divided by its sum (rows that sum to 0 stay), as a new array."""
    total = x.sum(axis=1, keepdims=True, dtype=np.float32)
    return x / np.where(total == 0, np.float32(1), total)


def _known_names(folder):
    if not folder:
        return "set GNNA_DATA to a folder of .npz graphs to load them by name"
    if not Path(folder).is_dir():
        return f"GNNA_DATA names '{folder}', which is not a folder"
    return f"GNNA_DATA ({folder}) holds {', '.join(available_graphs()) or 'no .npz file'}"


def _generated_size(text):
    if text == "community":
        return DEFAULT_SIZE
    match = _SIZED.fullmatch(text)
    if not match:
        raise ValueError(f"'{text}' is not of the form community:NODESxEDGES, such as community:20000x300000")
    return int(match[1]), int(match[2])


# ---- .npz ------------------------------------------------------------------------------------------------------------


def _load_npz(path):
    data = _Archive(path)
    n = data.scalar("num_nodes")
    if n < 1:
        raise ValueError(f"{path}: num_nodes is {n}, but a graph needs at least one node")
    indptr = data.integers("indptr")
    if "indices" in data.arrays:
        indices = data.integers("indices")
    elif "indices_delta" in data.arrays:
        indices = np.cumsum(data.integers("indices_delta"), dtype=np.int64)
    else:
        raise ValueError(f"{path}: neither 'indices' nor 'indices_delta' is in the file")
    _check_csr(path, "", n, n, indptr, indices)
    dst = np.repeat(np.arange(n, dtype=np.int64), np.diff(indptr))
    masks = {key: data.mask(key, n) for key in ("train_mask", "val_mask", "test_mask")}
    return Graph(name=path.stem, num_nodes=n, src=indices, dst=dst, x=_features(data, n), y=_labels(data, n), **masks)


def _check_csr(path, prefix, num_rows, num_cols, indptr, indices):
    """Raise ValueError unless (indptr, indices) is a CSR matrix [num_rows, num_cols]; ``prefix`` names its keys."""
    ptr, ind = f"'{prefix}indptr'", f"'{prefix}indices'"
    if len(indptr) != num_rows + 1:
        raise ValueError(f"{path}: {ptr} has {len(indptr)} entries, {num_rows} rows need {num_rows + 1}")
    if indptr[0] != 0:
        raise ValueError(f"{path}: {ptr} starts at {indptr[0]}, not at 0")
    # Compared, not subtracted: a difference of two damaged int64 values can overflow to a positive number.
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        raise ValueError(f"{path}: {ptr} falls after row {int(falls.argmax())}, it must ascend")
    if indptr[-1] != len(indices):
        raise ValueError(f"{path}: {ptr} ends at {indptr[-1]}, but {ind} has {len(indices)} entries")
    bad = (indices < 0) | (indices >= num_cols)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"{path}: {ind} holds {indices[at]} at position {at}, allowed is 0 to {num_cols - 1}")


def _features(data, n):
    if "x" in data.arrays:
        x = data.array("x")
        if x.ndim != 2 or len(x) != n or x.dtype.kind not in "fiub":
            raise ValueError(f"{data.path}: 'x' is {x.dtype} {list(x.shape)}, numbers [{n}, F] are needed")
        return np.ascontiguousarray(x, dtype=np.float32)
    if "x_indptr" not in data.arrays:
        return None
    shape = data.integers("x_shape")
    if len(shape) != 2 or shape[0] != n or shape[1] < 1:
        raise ValueError(f"{data.path}: 'x_shape' is {shape.tolist()[:4]}, [{n}, F] is needed")
    width = int(shape[1])
    if n * width > _MAX_DENSE_VALUES:
        raise ValueError(f"{data.path}: features of {n} x {width} are too large to hold as a dense matrix")
    indptr, indices, values = data.integers("x_indptr"), data.integers("x_indices"), data.array("x_data")
    _check_csr(data.path, "x_", n, width, indptr, indices)
    if values.dtype.kind not in "fiub" or values.shape not in ((1,), indices.shape):
        raise ValueError(f"{data.path}: 'x_data' is {values.dtype} {list(values.shape)}, not numbers [{len(indices)}]")
    x = np.zeros((n, width), dtype=np.float32)
    x[np.repeat(np.arange(n), np.diff(indptr)), indices] = values  # a single value stands for every entry
    return x


def _labels(data, n):
    if "y" not in data.arrays:
        return None
    y = data.integers("y")
    if len(y) != n:
        raise ValueError(f"{data.path}: 'y' has {len(y)} entries for {n} nodes")
    if y.min() < 0:
        raise ValueError(f"{data.path}: 'y' holds the negative label {y.min()}")
    return y


class _Archive:
    """The arrays of one .npz file, each read with its faults turned into one ValueError sentence."""

    def __init__(self, path):
        self.path = path
        try:
            # A .npy file or a pickle named .npz ends in an object that is no archive: said as "not an archive" too.
            with np.load(path, allow_pickle=False) as archive:
                self.arrays = {key: None for key in archive.files}
        except Exception as error:  # the zip and npy readers raise a dozen types for damaged bytes
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{path}: not a readable .npz archive") from error

    def array(self, key):
        if key not in self.arrays:
            raise ValueError(f"{self.path}: the array '{key}' is missing")
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return np.asarray(archive[key])
        except Exception as error:  # as above, and object arrays, which only a pickle could restore
            raise ValueError(f"{self.path}: the array '{key}' cannot be read ({_first_line(error)})") from error

    def integers(self, key):
        """The array as int64 [n]."""
        values = self.array(key)
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise ValueError(f"{self.path}: '{key}' is {values.dtype} {list(values.shape)}, not a list of integers")
        if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
            raise ValueError(f"{self.path}: '{key}' holds {values.max()}, above the 64-bit signed range")
        return values.astype(np.int64)

    def scalar(self, key):
        values = self.array(key)
        if values.dtype.kind not in "iu" or values.size != 1:
            raise ValueError(f"{self.path}: '{key}' is {values.dtype} {list(values.shape)}, not one integer")
        return int(values.reshape(()))

    def mask(self, key, n):
        if key not in self.arrays:
            return None
        values = self.array(key)
        if values.dtype != np.bool_ or values.shape != (n,):
            raise ValueError(f"{self.path}: '{key}' is {values.dtype} {list(values.shape)}, bool [{n}] is needed")
        return values


def _first_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0]


# ---- edge lists ------------------------------------------------------------------------------------------------------


def _load_edge_list(path):
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b",", b" ")
    lines = raw.splitlines()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns where it reads "1.5" as an integer, or finds no edge
            pairs = np.loadtxt(lines, dtype=np.int64, comments=["#", "%"], usecols=(0, 1), ndmin=2, encoding="latin-1")
    except (ValueError, OverflowError, Warning) as error:
        raise ValueError(_first_bad_line(path, lines) or f"{path}: not an edge list ({_first_line(error)})") from error
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
