"""Under autocast, layers give PyG's dtypes and results as exact as PyG's."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers

import gnna_plugin

NAMES = [name for name in (*layers.FUSED, *layers.NOT_FUSED) if not name.startswith("OwnScatter")]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_autocast(device, name, dtype):
    make, edge_input = {**layers.FUSED, **layers.NOT_FUSED}[name]
    x, edge_index, edge = layers.graph(device)
    layer, exact = (layers.build((make,), device, kind) for kind in (torch.float32, torch.float64))
    exact.load_state_dict({key: value.double() for key, value in layer.state_dict().items()})
    truth = layers.outputs_and_gradients(exact, x, edge_index, edge[edge_input])
    inputs = [x.float(), edge_index, None if edge_input is None else edge[edge_input].float()]

    def run(*given):
        with torch.autocast(device.type, dtype):
            return layer(*given)

    run.zero_grad, run.parameters = layer.zero_grad, layer.parameters
    try:
        plain = layers.outputs_and_gradients(run, *inputs)
    except RuntimeError as error:
        pytest.skip(f"PyG fails here: {error}")
    gnna_plugin.enable(min_work=0)
    found = layers.outputs_and_gradients(run, *inputs)
    for ours, theirs, right in zip(found, plain, truth, strict=True):
        assert ours.dtype == theirs.dtype
        error, allowed = ((t.double() - right).norm() for t in (ours, theirs))
        assert error <= 2 * allowed + 1e-2 * right.norm() + 1e-3
    counts = gnna_plugin.status().layers.values()
    assert any(layer.fused or layer.reduced for layer in counts)
