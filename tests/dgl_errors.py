"""The check for bad input that DGL's test files share: DGL's own exception, and no kernel of ours."""

from __future__ import annotations

import pytest

import gnna_plugin


def assert_stays_dgls(graph, call):
    """Assert that call(graph) raises the same exception type with the plug-in, without a fused call."""
    with pytest.raises(Exception) as plain:  # noqa: B017
        call(graph)
    gnna_plugin.enable("dgl", min_work=0)
    with pytest.raises(type(plain.value)):
        call(graph)
    assert gnna_plugin.status().fused_calls == 0
