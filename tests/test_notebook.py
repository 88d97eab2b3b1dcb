"""status() and explain() as tables in a notebook, the extension, and counting from zero."""

from __future__ import annotations

import warnings
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("torch_geometric")

from torch_geometric.nn import GATv2Conv, GCNConv

import gnna_plugin


class Cells(HTMLParser):
    """Collects the text of the cells of a table and checks that its tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        if tag in ("td", "th", "caption"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.cells[-1] += data


@pytest.fixture
def graph():
    return torch.randn(9, 16), torch.randint(0, 9, (2, 40))


def test_status_and_explanation_are_tables(graph):
    gnna_plugin.enable("pyg", min_work=0, skip=["GCNConv"])
    GATv2Conv(16, 16)(*graph)
    GCNConv(16, 16)(*graph)
    cells = Cells(gnna_plugin.status()._repr_html_()).cells
    assert {"GATv2Conv", "GCNConv", "layer", "not fused"} <= set(cells)
    assert any("leaky_relu" in cell for cell in cells) and any("excluded" in cell for cell in cells)
    explained = gnna_plugin.explain(GCNConv(16, 16), SimpleNamespace(x=graph[0], edge_index=graph[1], num_nodes=9))
    assert "because" in Cells(explained._repr_html_()).cells


def test_text_is_escaped():
    assert Cells(gnna_plugin.notebook.table("a < b", ("<b>",), [("&", ["x", "y"])])).cells == [
        "a < b",
        "<b>",
        "&",
        "xy",
    ]


def test_the_extension_is_the_switch(graph):
    gnna_plugin.load_ipython_extension(None)
    assert "pyg" in gnna_plugin.status().frameworks
    gnna_plugin.unload_ipython_extension(None)
    assert not gnna_plugin.status().frameworks


def test_counts_start_again(graph):
    gnna_plugin.enable("pyg", min_work=0)
    assert "no layer has reached" in str(gnna_plugin.status())
    GCNConv(16, 16)(*graph)
    assert gnna_plugin.status().fused_calls == 1
    gnna_plugin.reset_status()
    assert gnna_plugin.status().fused_calls == 0


def test_misspelt_layer_names_are_warned_of():
    with pytest.warns(UserWarning, match="'GCNConv' is near"):
        gnna_plugin.enable("pyg", skip=["GCNCon"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gnna_plugin.enable("pyg", skip=["GCNConv", "MyOwnLayerOfTomorrow"])
