"""TorchScript compiles PyG's own functions: modules are scripted, traced, saved and loaded as without the plug-in."""

from __future__ import annotations

import gc
import importlib.util
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_geometric")

import pyg_layers as layers
import torch_geometric.nn.conv.gcn_conv as gcn_conv
from torch_geometric import utils
from torch_geometric.nn import Aggregation, GCNConv, GINConv, MessagePassing, SAGEConv
from torch_geometric.utils import softmax as softmax_imported_before

import gnna_plugin

PAIRS = ("AGNNConv", "GCNConv"), ("GCNConv", "AGNNConv"), ("SGConv", "ChebConv")
MODES = ("on", "on"), ("off", "on"), ("on", "off")


def attention(scores: Tensor, index: Tensor) -> Tensor:
    return softmax_imported_before(scores, index) + utils.softmax(scores, index)


def normalise(edge_index: Tensor, num_nodes: int) -> Tensor:
    edge_index, weight = gcn_conv.gcn_norm(edge_index, None, num_nodes, False, True, "source_to_target", None)
    assert weight is not None
    return weight


def overload_tables():
    """Return torch.jit's lookup of overloads, and copies of its process-wide tables."""
    state = torch.jit._state
    return (
        torch.jit._script._get_overloads,
        dict(state._jit_function_overload_caching),
        dict(state._jit_caching_layer),
        dict(torch._jit_internal._overloaded_fns),
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_layers_can_be_scripted_in_any_order_with_the_plug_in_on_or_off():
    """Regression: scripting AGNNConv and then GCNConv failed, because stand-ins lost each other's overloads."""
    sequences = [
        " ".join(f"{mode}:{name}" for mode, name in zip(modes, pair, strict=True))
        for pair, modes in itertools.product(PAIRS, (("off", "off"), *MODES))
    ]
    tool = Path(__file__).with_name("script_sequences.py")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", tool, *sequences], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    results = dict(zip(sequences, map(json.loads, done.stdout.splitlines()), strict=True))
    for sequence, result in results.items():
        assert result == results[sequence.replace("on:", "off:")], sequence


def test_scripting_with_the_plug_in_on_leaves_torch_jits_tables_unchanged():
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    torch.jit.script(GCNConv(layers.WIDTH, 4))
    torch.jit.script(attention)
    before = overload_tables()
    with gnna_plugin.enabled("pyg", min_work=0):
        assert torch.jit._script._get_overloads is not before[0]
        torch.jit.script(GCNConv(layers.WIDTH, 4))(x, edge_index)
        torch.jit.script(attention)
        torch.jit.script(utils.softmax)
    after = overload_tables()
    assert after[:2] == before[:2] and after[3] == before[3]
    assert after[2].keys() - before[2].keys() <= {utils.softmax}


def test_user_functions_that_call_softmax_and_gcn_norm_can_be_scripted():
    scores, index = torch.randn(9), torch.randint(0, 4, (9,))
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 2]])
    expected = attention(scores, index), normalise(edge_index, 3)
    for on in (True, False, True):
        with gnna_plugin.enabled("pyg", min_work=0) if on else gnna_plugin.disabled():
            torch.testing.assert_close(torch.jit.script(attention)(scores, index), expected[0])
            torch.testing.assert_close(torch.jit.script(normalise)(edge_index, 3), expected[1])


def test_softmax_and_its_stand_in_are_one_scripted_function():
    plain = torch.jit.script(utils.softmax)
    gnna_plugin.enable("pyg", min_work=0)
    assert torch.jit.script(utils.softmax).qualified_name == plain.qualified_name


def test_disable_replaces_a_stand_in_that_a_module_imported(tmp_path, monkeypatch):
    path = tmp_path / "imports_while_on.py"
    path.write_text("from torch_geometric.utils import softmax as attention_softmax\n")
    original = utils.softmax
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    gnna_plugin.enable("pyg", min_work=0)
    spec.loader.exec_module(module)
    assert module.attention_softmax is utils.softmax is not original
    gnna_plugin.disable()
    assert module.attention_softmax is original


def script_with(norm, edge_index):
    def call(edge_index: Tensor) -> Tensor:
        weight = norm(edge_index, None, 3, False, True, "source_to_target", None)[1]
        assert weight is not None
        return weight

    return torch.jit.script(call)(edge_index)


def test_a_stand_in_held_after_disable_can_be_scripted():
    lookup = torch.jit._script._get_overloads
    edge_index = torch.tensor([[0, 1, 2, 2], [1, 2, 0, 2]])
    expected = normalise(edge_index, 3)
    gnna_plugin.enable("pyg", min_work=0)
    held = [gcn_conv.gcn_norm]
    gnna_plugin.disable()
    assert held[0] is not gcn_conv.gcn_norm
    torch.testing.assert_close(script_with(held[0], edge_index), expected)
    torch.testing.assert_close(script_with(gcn_conv.gcn_norm, edge_index), expected)
    held.clear()
    gc.collect()
    assert torch.jit._script._get_overloads is lookup


@pytest.mark.parametrize("mark", [torch.jit.ignore, torch.jit.unused])
def test_torch_jit_marks_reach_the_original_function(mark):
    original = utils.softmax
    scores, index = torch.randn(9), torch.randint(0, 4, (9,))

    def call(scores: Tensor, index: Tensor) -> Tensor:
        return utils.softmax(scores, index, None, None, 0)

    try:
        gnna_plugin.enable("pyg", min_work=0)
        mark(utils.softmax)
        scripted = torch.jit.script(call)
        assert "CallFunction" not in str(scripted.graph)
        if mark is torch.jit.ignore:
            torch.testing.assert_close(scripted(scores, index), original(scores, index))
        else:
            with pytest.raises(torch.jit.Error, match="softmax"):
                scripted(scores, index)
        gnna_plugin.disable()
        assert original._torchscript_modifier is not torch._jit_internal.FunctionModifiers.DEFAULT
    finally:
        vars(original).pop("_torchscript_modifier", None)


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.filterwarnings("ignore")
def test_a_module_compiled_with_the_plug_in_on_works_with_it_off(how):
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = SAGEConv(layers.WIDTH, 4).eval()
    expected = layer(x, edge_index)
    gnna_plugin.enable("pyg", min_work=0)
    made = torch.jit.script(layer) if how == "script" else torch.jit.trace(layer, (x, edge_index))
    gnna_plugin.disable()
    torch.testing.assert_close(made(x, edge_index), expected)
    buffer = io.BytesIO()
    torch.jit.save(made, buffer)
    buffer.seek(0)
    torch.testing.assert_close(torch.jit.load(buffer)(x, edge_index), expected)


def test_closure_names_of_a_stand_in_hide_no_name_of_the_original():
    """torch.jit resolves names in a method's source in the closure of the stand-in first, then in its globals."""
    gnna_plugin.enable("pyg")
    for owner, name in ((MessagePassing, "_index_select"), (Aggregation, "reduce"), (GINConv, "forward")):
        ours = vars(owner)[name]
        code = ours.__wrapped__.__code__
        assert not {*ours.__code__.co_freevars} & {*code.co_names, *code.co_varnames}, name
