"""The graphs of the paper's evaluation (its table 1), and where each comes from on this machine.

The numbers of features and classes are those that the authors' artifact trains with. data/standin.py owns the published
numbers of nodes and edges.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from gnna_plugin.data import Graph
from gnna_plugin.tools.inputs import load_graphs

TYPES = ("I", "II", "III")
DEFAULT_DIM, DEFAULT_CLASSES = 96, 22  # the artifact's own defaults, for graphs that are not the paper's
FROM_FILE, STAND_IN, AS_GIVEN = "file", "stand-in", "given"


@dataclass(frozen=True)
class PaperGraph:
    """A graph of the paper: its type ("I", "II" or "III"), features per node, and classes."""

    type: str
    dim: int
    classes: int


PAPER = {
    "citeseer": PaperGraph("I", 3703, 6),
    "cora": PaperGraph("I", 1433, 7),
    "pubmed": PaperGraph("I", 500, 3),
    "ppi": PaperGraph("I", 50, 121),
    "PROTEINS_full": PaperGraph("II", 29, 2),
    "OVCAR-8H": PaperGraph("II", 66, 2),
    "Yeast": PaperGraph("II", 74, 2),
    "DD": PaperGraph("II", 89, 2),
    "TWITTER-Real-Graph-Partial": PaperGraph("II", 1323, 2),
    "SW-620H": PaperGraph("II", 66, 2),
    "amazon0505": PaperGraph("III", 96, 22),
    "artist": PaperGraph("III", 100, 12),
    "com-amazon": PaperGraph("III", 96, 22),
    "soc-BlogCatalog": PaperGraph("III", 128, 39),
    "amazon0601": PaperGraph("III", 96, 22),
}


@dataclass(frozen=True)
class Source:
    """A graph of a study before it is loaded.

    Attributes:
        name: name in the tables.
        source: what gnna_plugin.data.load_graph() takes.
        origin: "file" (a graph of this name in GNNA_DATA), "stand-in" (generated) or "given" (named by the user).
        type: the paper's type, or "" for other graphs.
        dim, classes: features per node and classes to train with.
        graph: the graph if it is already loaded, else None.
    """

    name: str
    source: str
    origin: str
    type: str = ""
    dim: int = DEFAULT_DIM
    classes: int = DEFAULT_CLASSES
    graph: Graph | None = None

    def load(self, seed: int) -> Graph:
        """Return the graph, and load it if that has not been done.

        Raises:
            UsageError: it cannot be loaded.
        """
        return self.graph or load_graphs([self.source], seed)[0]

    def facts(self, graph: Graph) -> dict:
        """Return the first fields of a row about the graph."""
        return {
            "type": self.type,
            "graph": self.name,
            "origin": self.origin,
            "nodes": graph.num_nodes,
            "edges": graph.num_edges,
        }


def paper_sources(types: tuple[str, ...] | list[str]) -> list[Source]:
    """Return the paper's graphs of the given types, in the paper's order."""
    return [resolve(name) for name, known in PAPER.items() if known.type in types]


def given_sources(names: list[str], seed: int) -> list[Source]:
    """Return the Sources of the graphs that a user names.

    Those that are not the paper's are loaded now, so that nothing is measured if one cannot be loaded.

    Raises:
        UsageError: a graph cannot be loaded.
    """
    sources = [resolve(name) for name in names]
    return [replace(s, graph=s.load(seed)) if s.origin == AS_GIVEN else s for s in sources]


def resolve(name: str) -> Source:
    """Return the Source of a graph that a user names.

    A name of the paper's is a file of that name in the folder GNNA_DATA if there is one, else the stand-in. Any other
    text is left to gnna_plugin.data.load_graph().
    """
    known = PAPER.get(name.removeprefix("standin:"))
    if known is None:
        return Source(name, name, STAND_IN if name.startswith("standin:") else AS_GIVEN)
    bare = name.removeprefix("standin:")
    folder = os.environ.get("GNNA_DATA")
    is_file = name == bare and folder is not None and (Path(folder) / f"{name}.npz").is_file()
    source, origin = (name, FROM_FILE) if is_file else (f"standin:{bare}", STAND_IN)
    return Source(bare, source, origin, known.type, known.dim, known.classes)
