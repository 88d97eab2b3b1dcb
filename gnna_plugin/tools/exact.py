"""A model's outputs and gradients as arrays, which compare and bench hold against the plain framework's in float64."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from gnna_plugin.tools.compare.measure import available_bytes

_BYTES = torch.float64.itemsize


def outputs_and_gradients(
    model: torch.nn.Module, run: Callable[[], torch.Tensor], loss_of: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, np.ndarray]:
    """Run a model once without dropout, and return its outputs and the gradients of its parameters by name.

    Args:
        model: the module that holds the parameters. It is put into eval mode, and its gradients are cleared.
        run: calls the model, or a compiled form of it.
        loss_of: the scalar loss of the outputs.
    """
    model.eval()
    model.zero_grad()
    outputs = run()
    loss_of(outputs).backward()
    found = {"outputs": outputs.detach()}
    found.update((f"gradient of {name}", p.grad) for name, p in model.named_parameters() if p.grad is not None)
    return {name: value.cpu().numpy() for name, value in found.items()}


def double_fits(edges: int, nodes: int, width: int, device_type: str) -> bool:
    """Return whether the plain framework's float64 run fits into memory.

    The estimate is four copies of a message of `width` elements per edge, and of four rows per node.
    """
    free = available_bytes(device_type)
    return free is None or (edges + 4 * nodes) * width * _BYTES * 4 < free
