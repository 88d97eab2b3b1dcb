"""Loads a graph from the source that a user names: a file, a name in the folder GNNA_DATA, or a name with a prefix.

This file owns the names of graphs and the error for a graph that does not exist.
"""

import difflib
import os
import re
from pathlib import Path

from gnna_plugin.data.community import DEFAULT_SIZE, community_graph
from gnna_plugin.data.graph import Graph
from gnna_plugin.data.known import advice
from gnna_plugin.data.npz import load_npz
from gnna_plugin.data.standin import standin_graph
from gnna_plugin.data.text import load_edge_list, load_matrix_market
from gnna_plugin.frameworks import FRAMEWORKS

READERS = {".npz": load_npz, ".mtx": load_matrix_market, **dict.fromkeys((".txt", ".tsv", ".csv"), load_edge_list)}
# Prefix of a data set: the framework that loads it.
DATASETS = dict.fromkeys(("planetoid", "tu", "reddit", "suitesparse", "ogb"), "pyg")
_SIZED = re.compile(r"community:(\d+)x(\d+)")


def load_graph(source, *, seed=0):
    """Load a graph.

    Users' own files are never unpickled. Data sets with a prefix are read by their framework, by its own rules.

    Args:
        source: one of
          * a path that ends in .npz. The archive has the key num_nodes and one of two forms. In-neighbour CSR (row =
            destination) has indptr, and indices or indices_delta (the first differences of indices). The edge list of
            GNNAdvisor's artifact has src_li and dst_li. Optional keys: x [N, F] or x_indptr, x_indices, x_data, x_shape
            (CSR features, returned dense), y, train_mask, val_mask, test_mask;
          * a path that ends in .mtx: a square Matrix Market coordinate matrix, whose entry (i, j) is the edge i -> j
            (needs SciPy);
          * a path that ends in .txt, .tsv or .csv: one edge "src dst" per line, separated by white space or commas.
            A header line may name the columns (src or source, dst or target, ...). Further columns are ignored,
            comments start with # or %, and the nodes are 0 to the largest id;
          * a name: NAME.npz in the folder that the environment variable GNNA_DATA names;
          * a data set such as planetoid:Cora, tu:DD, reddit, suitesparse:SNAP/amazon0601 or ogb:ogbn-arxiv. PyTorch
            Geometric or ogb downloads it into the folder GNNA_DATASETS (default ~/.cache/gnna_plugin) and reads it;
          * "standin:NAME": a generated graph of the published size of NAME (gnna_plugin.data.standin);
          * "community" or "community:NODESxEDGES": a generated graph (gnna_plugin.data.community).
        seed: seed of generated graphs.

    Returns:
        A Graph.

    Raises:
        ValueError: a file is damaged or no graph, a stand-in is unknown, or a data set cannot be loaded. The text is
            one sentence that names the file and the fault.
        ImportError: an optional package other than the framework is missing.
        FileNotFoundError: there is no such graph. The text lists the names in GNNA_DATA.
    """
    text = os.fspath(source)
    prefix, _, rest = text.partition(":")
    if text == "community" or text.startswith("community:"):
        return Graph(name=text, **community_graph(*_generated_size(text), seed=seed))
    if text.startswith("standin:"):
        return standin_graph(rest, seed=seed)
    path = Path(text)
    if path.is_file():
        if path.suffix in READERS:
            return READERS[path.suffix](path)
        raise ValueError(f"{path}: graph files end in {', '.join(READERS)}, not '{path.suffix}'")
    folder = os.environ.get("GNNA_DATA")
    if folder and "/" not in text and (Path(folder) / f"{text}.npz").is_file():
        return load_npz(Path(folder) / f"{text}.npz")
    if prefix in DATASETS and (":" in text) != (prefix == "reddit"):
        return _load_dataset(text, FRAMEWORKS[DATASETS[prefix]])
    raise FileNotFoundError(f"no graph file or name '{text}'; {_hint(text, folder)}")


def available_graphs():
    """Return the sorted names of the graphs in the folder GNNA_DATA.

    The list is empty if GNNA_DATA is not set or is no folder.
    """
    folder = os.environ.get("GNNA_DATA")
    return sorted(p.stem for p in Path(folder).glob("*.npz")) if folder and Path(folder).is_dir() else []


def _load_dataset(source, framework):
    package = framework.distribution
    try:
        module = framework.load("tools.datasets")
    except ImportError as error:
        raise ValueError(f"{source}: loading it needs {package}: pip install {package} ({error})") from error
    return module.load(source, Path(os.environ.get("GNNA_DATASETS") or "~/.cache/gnna_plugin").expanduser())


def _hint(text, folder):
    """Return what to do about a name that was not found."""
    here = ["community", *available_graphs()]
    near = [name for name in here if name.lower() == text.lower()]
    public = None if near else advice(Path(text).stem if Path(text).suffix in READERS else text)
    near = near or difflib.get_close_matches(text, here, n=1)
    if public:
        return f"{public}; {_known_names(folder)}"
    return f"did you mean '{near[0]}'?" if near else _known_names(folder)


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
