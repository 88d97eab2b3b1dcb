"""What is measured on: graphs as checked NumPy arrays, from a file, by name, as a stand-in or generated.

Formats have a file each; load.py decides which one reads a source. A caller turns the arrays into its own structures.
problem.py holds the single aggregations that are timed on a graph, with their operands and exact answers.
"""

from gnna_plugin.data.graph import Graph, row_normalised
from gnna_plugin.data.load import available_graphs, load_graph
from gnna_plugin.data.standin import STANDINS, standin_graph

__all__ = ["STANDINS", "Graph", "available_graphs", "load_graph", "row_normalised", "standin_graph"]
