"""Graphs for measuring: loads a graph from a file, by name, as a stand-in or generated, into checked NumPy arrays.

Formats have a file each; load.py decides which one reads a source. A caller turns the arrays into its own structures.
"""

from gnna_plugin.data.graph import Graph, row_normalised
from gnna_plugin.data.load import available_graphs, load_graph
from gnna_plugin.data.standin import STANDINS, standin_graph

__all__ = ["STANDINS", "Graph", "available_graphs", "load_graph", "row_normalised", "standin_graph"]
