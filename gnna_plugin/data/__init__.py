"""Graphs for measurements as checked NumPy arrays: read from a file, found by name, or generated.

Each file format has a module, and load.py chooses the reader of a source. Callers turn the arrays into their own
structures. problem.py holds the single aggregations that are timed on a graph, with their operands and exact results.
"""

from gnna_plugin.data.graph import Graph, row_normalised
from gnna_plugin.data.load import available_graphs, load_graph
from gnna_plugin.data.standin import STANDINS, standin_graph

__all__ = ["STANDINS", "Graph", "available_graphs", "load_graph", "row_normalised", "standin_graph"]
