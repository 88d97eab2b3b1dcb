"""Reads graphs from .npz archives: in-neighbour CSR, and the edge lists of GNNAdvisor's original artifact.

This file owns the keys of the archives and the errors for damaged ones. Nothing is ever unpickled.
"""

import numpy as np

from gnna_plugin.data.graph import Graph, first_line, too_many_nodes

# Limit of dense features, 16 GiB of float32, so that a damaged shape does not exhaust the memory.
_MAX_DENSE_VALUES = 1 << 32
# A label above this and above the number of nodes is no class. A model has an output for every class up to the largest.
_MAX_LABEL = 1 << 16


def load_npz(path):
    """Read the Graph in the archive at ``path``. load_graph() describes the keys.

    Raises:
        ValueError: the archive is damaged or holds no graph.
    """
    data = _Archive(path)
    n = data.scalar("num_nodes")
    if n < 1:
        raise ValueError(f"{path}: num_nodes is {n}, but a graph needs at least one node")
    src, dst = _edge_list(data, n) if "src_li" in data.arrays else _csr_edges(data, n)
    masks = {key: data.mask(key, n) for key in ("train_mask", "val_mask", "test_mask")}
    return Graph(name=path.stem, num_nodes=n, src=src, dst=dst, x=_features(data, n), y=_labels(data, n), **masks)


def _csr_edges(data, n):
    """Return (src, dst), int64 [E], of the in-neighbour CSR, where row = destination."""
    path = data.path
    indptr = data.integers("indptr")
    if "indices" in data.arrays:
        indices = data.integers("indices")
    elif "indices_delta" in data.arrays:
        indices = np.cumsum(data.integers("indices_delta"), dtype=np.int64)
    else:
        raise ValueError(f"{path}: neither 'indices' nor 'indices_delta' is in the file; one of them is needed")
    _check_csr(path, "", n, n, indptr, indices)
    return indices, np.repeat(np.arange(n, dtype=np.int64), np.diff(indptr))


def _edge_list(data, n):
    """Return (src, dst), int64 [E], of the artifact's lists src_li and dst_li.

    The edges are src_li -> dst_li, as the names say. The artifact itself reduced the features of dst_li into src_li.
    That is the same on a symmetric graph, and the reverse on a directed one.
    """
    ends = [data.integers("src_li"), data.integers("dst_li")]
    if len(ends[0]) != len(ends[1]):
        raise ValueError(f"{data.path}: 'src_li' has {len(ends[0])} entries, 'dst_li' has {len(ends[1])}")
    if too_many_nodes(n, len(ends[0])):
        raise ValueError(f"{data.path}: num_nodes is {n} for {len(ends[0])} edges, too many to be plausible")
    for key, ids in zip(("src_li", "dst_li"), ends, strict=True):
        _check_range(data.path, key, ids, n)
    return ends


def _check_range(path, key, ids, limit):
    bad = (ids < 0) | (ids >= limit)
    if bad.any():
        at = int(bad.argmax())
        raise ValueError(f"{path}: '{key}' holds {ids[at]} at position {at}, allowed is 0 to {limit - 1}")


def _check_csr(path, prefix, num_rows, num_cols, indptr, indices):
    """Raise ValueError unless (indptr, indices) is a CSR matrix.

    The matrix is [num_rows, num_cols]. ``prefix`` is that of its keys in the archive.
    """
    ptr, ind = f"'{prefix}indptr'", f"'{prefix}indices'"
    if len(indptr) != num_rows + 1:
        raise ValueError(f"{path}: {ptr} has {len(indptr)} entries, {num_rows} rows need {num_rows + 1}")
    if indptr[0] != 0:
        raise ValueError(f"{path}: {ptr} starts at {indptr[0]}, not at 0")
    # Not np.diff, because the difference of two damaged int64 values can overflow to a positive number.
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        raise ValueError(f"{path}: {ptr} falls after row {int(falls.argmax())}; it must ascend")
    if indptr[-1] != len(indices):
        raise ValueError(f"{path}: {ptr} ends at {indptr[-1]}, but {ind} has {len(indices)} entries")
    _check_range(path, f"{prefix}indices", indices, num_cols)


def _features(data, n):
    if "x" in data.arrays:
        x = data.array("x")
        if x.ndim != 2 or len(x) != n or x.dtype.kind not in "fiub":
            raise ValueError(f"{data.path}: 'x' is {x.dtype} {list(x.shape)}; it must hold numbers [{n}, F]")
        return np.ascontiguousarray(x, dtype=np.float32)
    if "x_indptr" not in data.arrays:
        return None
    shape = data.integers("x_shape")
    if len(shape) != 2 or shape[0] != n or shape[1] < 1:
        raise ValueError(f"{data.path}: 'x_shape' is {shape.tolist()[:4]}; it must be [{n}, F]")
    width = int(shape[1])
    if n * width > _MAX_DENSE_VALUES:
        raise ValueError(f"{data.path}: features of {n} x {width} are too large to hold as a dense matrix")
    indptr, indices, values = data.integers("x_indptr"), data.integers("x_indices"), data.array("x_data")
    _check_csr(data.path, "x_", n, width, indptr, indices)
    if values.dtype.kind not in "fiub" or values.shape not in ((1,), indices.shape):
        raise ValueError(
            f"{data.path}: 'x_data' is {values.dtype} {list(values.shape)}; it must hold 1 or {len(indices)} numbers"
        )
    x = np.zeros((n, width), dtype=np.float32)
    x[np.repeat(np.arange(n), np.diff(indptr)), indices] = values  # a single value applies to every entry
    return x


def _labels(data, n):
    if "y" not in data.arrays:
        return None
    y = data.integers("y")
    if len(y) != n:
        raise ValueError(f"{data.path}: 'y' has {len(y)} entries for {n} nodes")
    if y.min() < 0:
        raise ValueError(f"{data.path}: 'y' holds the negative label {y.min()}")
    if y.max() > max(n, _MAX_LABEL):
        raise ValueError(f"{data.path}: 'y' holds {y.max()}; labels are classes, numbered from 0: renumber them first")
    return y


class _Archive:
    """The arrays of one .npz file.

    Every fault is raised as a ValueError of one sentence.
    """

    def __init__(self, path):
        self.path = path
        try:
            # A .npy file that is named .npz gives an array, which `with` rejects.
            with np.load(path, allow_pickle=False) as archive:
                self.arrays = {key: None for key in archive.files}
        except Exception as error:  # the zip and npy readers raise many types of exceptions for damaged bytes
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise ValueError(f"{path}: not a readable .npz archive") from error

    def array(self, key):
        if key not in self.arrays:
            raise ValueError(f"{self.path}: the array '{key}' is missing")
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return np.asarray(archive[key])
        except Exception as error:  # as above, and for object arrays, which would have to be unpickled
            raise ValueError(f"{self.path}: the array '{key}' cannot be read ({first_line(error)})") from error

    def integers(self, key):
        """Return the array as int64 [n]."""
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
            raise ValueError(f"{self.path}: '{key}' is {values.dtype} {list(values.shape)}; it must be bool [{n}]")
        return values
