"""Public data sets by name, downloaded and read by PyTorch Geometric's own classes and by ogb.

This file owns the names (planetoid:Cora, tu:DD, reddit, suitesparse:SNAP/amazon0601, ogb:ogbn-arxiv), the folder layout
below the data folder, and the error message for a data set that cannot be loaded.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from torch_geometric.data import Batch, Data

from gnna_plugin.data import Graph

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_HINT = {"suitesparse": "suitesparse:GROUP/NAME, such as suitesparse:SNAP/amazon0601"}


def load(source: str, folder: Path) -> Graph:
    """Return the data set `source` as a Graph of that name.

    The files are kept below `folder`, so that a second call does not download them again. The edges are as stored and x
    is float32. y and masks are kept only if they have one element per node. Many small graphs (tu:) become one
    block-diagonal graph.

    Raises:
        ValueError: the name is malformed, or the download or a file failed.
        ImportError: a package that this data set needs is not installed.
    """
    prefix, _, name = source.partition(":")
    parts = name.split("/") if prefix == "suitesparse" else [name]
    wanted = 2 if prefix == "suitesparse" else 1
    if prefix not in _LOADERS or len(parts) != wanted or (prefix != "reddit" and not all(map(_NAME.fullmatch, parts))):
        raise ValueError(f"'{source}' names no data set; the form is {_HINT.get(prefix, f'{prefix}:NAME')}")
    root = Path(folder) / prefix
    try:
        data = _LOADERS[prefix](str(root), *parts)
        return _graph(source, data)
    except ImportError as error:
        package = (error.name or "a missing package").split(".")[0]
        raise ImportError(f"{source}: loading it needs {package}: pip install {package}") from error
    except MemoryError:
        raise
    except Exception as error:  # network, archive and reader raise unrelated types
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise ValueError(
            f"{source}: cannot be loaded ({type(error).__name__}: {said}); check the name and the network, or put the "
            f"data set's files into {root} as its loader would"
        ) from error


def _planetoid(root: str, name: str) -> Data:
    from torch_geometric.datasets import Planetoid

    return Planetoid(root, name)[0]


def _tu(root: str, name: str) -> Data:
    from torch_geometric.datasets import TUDataset

    return Batch.from_data_list(list(TUDataset(root, name, use_node_attr=True)))


def _reddit(root: str, _: str) -> Data:
    from torch_geometric.datasets import Reddit

    return Reddit(root)[0]


def _suitesparse(root: str, group: str, name: str) -> Data:
    from torch_geometric.datasets import SuiteSparseMatrixCollection

    data = SuiteSparseMatrixCollection(root, group, name)[0]
    if data.get("size") is not None:
        raise ValueError(f"a {' x '.join(map(str, data.size))} matrix is not square, so it is not an adjacency matrix")
    return data


def _ogb(root: str, name: str) -> Data:
    from ogb.nodeproppred import PygNodePropPredDataset

    dataset = PygNodePropPredDataset(name, root)
    data = dataset[0]
    if data.get("y") is not None and data.y.dim() == 2 and data.y.size(1) == 1:
        data.y = data.y.view(-1)
    for part, key in (("train", "train_mask"), ("valid", "val_mask"), ("test", "test_mask")):
        mask = np.zeros(data.num_nodes, bool)
        mask[dataset.get_idx_split()[part].numpy()] = True
        data[key] = mask
    return data


_LOADERS = {"planetoid": _planetoid, "tu": _tu, "reddit": _reddit, "suitesparse": _suitesparse, "ogb": _ogb}


def _graph(source: str, data: Data) -> Graph:
    n = data.num_nodes
    arrays = {
        key: np.asarray(data[key])
        for key in ("x", "y", "train_mask", "val_mask", "test_mask")
        if data.get(key) is not None
    }
    x, y = arrays.pop("x", None), arrays.pop("y", None)
    if x is not None and (x.ndim != 2 or x.shape[1] == 0):
        x = None
    if y is not None and (y.shape != (n,) or y.dtype.kind not in "iu" or (n and y.min() < 0)):
        y = None
    masks = {key: mask for key, mask in arrays.items() if mask.shape == (n,) and mask.dtype == bool}
    src, dst = (np.ascontiguousarray(side, dtype=np.int64) for side in data.edge_index.numpy())
    if len(src) and (min(src.min(), dst.min()) < 0 or max(src.max(), dst.max()) >= n):
        raise ValueError(f"its edges name nodes outside 0 to {n - 1}")
    return Graph(
        name=source,
        num_nodes=n,
        src=src,
        dst=dst,
        y=y,
        x=None if x is None else np.ascontiguousarray(x, dtype=np.float32),
        **masks,
    )
