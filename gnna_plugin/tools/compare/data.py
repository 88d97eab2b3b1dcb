"""Passes a graph to the worker processes, and draws the features and labels that a graph lacks.

This file owns the folder of .npy files between the processes. It ensures that every arm trains on equal arrays.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gnna_plugin.data import Graph, row_normalised

_ARRAYS = ("src", "dst", "x", "y", "train_mask", "val_mask", "test_mask")


@dataclass(frozen=True)
class TrainingData:
    """NumPy arrays to train on.

    Attributes:
        src, dst: int64 [E].
        x: float32 [N, F].
        y: int64 [N], below ``classes``.
        train: int64 ids of the nodes to train on; None means all.
        test: int64 ids of the nodes to report the accuracy of; None means no accuracy.
    """

    num_nodes: int
    src: np.ndarray
    dst: np.ndarray
    x: np.ndarray
    y: np.ndarray
    classes: int
    train: np.ndarray | None
    test: np.ndarray | None


def save_graph(graph, folder):
    """Write a Graph as .npy files into the existing, empty ``folder``."""
    np.save(Path(folder) / "num_nodes.npy", np.int64(graph.num_nodes))
    for key in _ARRAYS:
        if getattr(graph, key) is not None:
            np.save(Path(folder) / f"{key}.npy", getattr(graph, key))


def read_graph(folder):
    """Read the Graph that save_graph() wrote. Its name is empty."""
    files = {path.stem: np.load(path, allow_pickle=False) for path in Path(folder).glob("*.npy")}
    return Graph(name="", num_nodes=int(files.pop("num_nodes")), **files)


def training_data(graph, case):
    """Return the TrainingData of ``case`` (the dict of Case.resolved).

    It has the graph's own features and labels, or seeded random ones. Own features that are never negative (bags of
    words) are divided by their row sums, as is usual for such graphs.
    """
    rng = np.random.default_rng(case["seed"])
    own = not case["synthetic"]
    if own and graph.x is not None:
        x = row_normalised(graph.x) if graph.x.size and graph.x.min() >= 0 else graph.x
    else:
        x = rng.standard_normal((graph.num_nodes, case["dim"]), dtype=np.float32)
    labelled = own and graph.y is not None
    y = graph.y if labelled else rng.integers(0, case["classes"], graph.num_nodes)
    return TrainingData(
        num_nodes=graph.num_nodes, src=graph.src, dst=graph.dst, x=x, y=y,
        classes=int(y.max()) + 1 if labelled else case["classes"],
        train=_nodes(graph.train_mask) if labelled else None,
        test=_nodes(graph.test_mask) if labelled else None,
    )


def nonfinite_features(graph):
    """Return a sentence that says how many features of a Graph are NaN or infinite, or None if there are none."""
    bad = 0 if graph.x is None else int((~np.isfinite(graph.x)).sum())
    if not bad:
        return None
    return f"warning: {graph.name}: {bad:,} of {graph.x.size:,} features are NaN or infinite, and so will be the losses"


def build_model(models, case, data, structure, device):
    """Return an untrained model for ``case`` on ``device``.

    Args:
        models: the module tools.models of a framework's adapter.
        case: the dict of Case.resolved.
        data: the TrainingData.
        structure: the graph as models.make_graph() returned it.
        device: "cpu" or "cuda".
    """
    size = (data.x.shape[1], case["hidden"], data.classes, case["layers"])
    return models.make_model(case["model"], *size, structure, data.num_nodes).to(device)


def _nodes(mask):
    """Return the node ids that a mask selects, or None if there are none."""
    return None if mask is None or not mask.any() else np.flatnonzero(mask)
