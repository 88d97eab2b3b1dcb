"""Detects the states of torch in which the ops cannot run, such as captures, traces and transforms."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from gnna_plugin import _load

_dispatch_modes = torch._C._len_torch_dispatch_stack
_functorch_levels = torch._C._functorch.peek_interpreter_stack
_tracing_state = torch._C._get_tracing_state
# torch 2.4 lacks this function. There, saved_tensor_hooks() uses an op of the plug-in.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def saved_tensor_hooks() -> bool:
    """Return whether this thread has saved-tensor hooks (activation checkpointing)."""
    return torch.ops.gnna.saved_tensor_hooks() if _top_hooks is None else _top_hooks(False) is not None


def tracing() -> bool:
    """Return whether torch.jit.trace is recording."""
    return _tracing_state() is not None


def transforming() -> bool:
    """Return whether a torch.func transform is active on this thread."""
    return _functorch_levels() is not None


def outside_transforms() -> contextlib.AbstractContextManager:
    """Return a context that suspends the torch.func transforms of this thread.

    Used for computations on tensors from outside the transforms.
    """
    if _functorch_levels() is None:
        return contextlib.nullcontext()
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    return temporarily_clear_interpreter_stack()


def capturing(tensor: Tensor) -> bool:
    """Return whether the tensor is on CUDA and the current stream is capturing."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def reason(tensor: Tensor, src: Tensor | None = None, segments: tuple[Tensor, int] | None = None) -> str | None:
    """Return why a call on this tensor must fall back to the framework, or None.

    No plan can be built while a CUDA graph is being captured, so a call can be captured only if its plans are cached.

    Args:
        src: the index by which the call gathers.
        segments: the index by which the call reduces, and the number of its segments.
    """
    device = tensor.device
    if device.type == "cuda":
        if not _load.built_with_cuda():
            return "gnna_plugin was built without CUDA"
        if capturing(tensor):
            trained = tensor.requires_grad and torch.is_grad_enabled()
            gathers = src is not None and torch.ops.gnna.has_plans(src, trained)
            if not gathers and (segments is None or not torch.ops.gnna.has_segments(*segments)):
                return "a CUDA graph is being captured"
    elif device.type != "cpu":
        return f"device {device.type}"
    return mode()


def mode() -> str | None:
    """Return the mode of torch that is active on this thread and in which the ops cannot run, or None."""
    if tracing():
        return "torch.jit.trace"
    if _functorch_levels() is not None:
        return "a torch.func transform"
    if _dispatch_modes():
        return "a torch dispatch mode (export, fake tensors)"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return None
