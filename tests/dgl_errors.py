"""What both of DGL's test files ask of bad input: DGL's own exception, and no kernel of ours."""

from __future__ import annotations

import pytest

import gnna_plugin


def assert_stays_dgls(graph, call):
    """call(graph) raises with the plug-in what it raises without, and nothing was fused."""
    with pytest.raises(Exception) as plain:  # noqa: B017
        call(graph)
    gnna_plugin.enable("dgl", min_work=0)
    with pytest.raises(type(plain.value)):
        call(graph)
    assert gnna_plugin.status().fused_calls == 0
