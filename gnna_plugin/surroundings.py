"""What goes on around a call that the ops must stay out of: captures, traces and transforms they do not support."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from gnna_plugin import _load

_dispatch_modes = torch._C._len_torch_dispatch_stack
_functorch_levels = torch._C._functorch.peek_interpreter_stack
_tracing_state = torch._C._get_tracing_state
# Absent from torch 2.4, whose Python cannot tell; our own op can.
_top_hooks = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)


def saved_tensor_hooks() -> bool:
    """Whether tensors saved for a backward pass go through hooks on this thread: activation checkpointing."""
    return torch.ops.gnna.saved_tensor_hooks() if _top_hooks is None else _top_hooks(False) is not None


def tracing() -> bool:
    """Whether torch.jit.trace is recording."""
    return _tracing_state() is not None


def transforming() -> bool:
    """Whether torch.func transforms are at work on this thread."""
    return _functorch_levels() is not None


def outside_transforms() -> contextlib.AbstractContextManager:
    """Around what is computed of tensors from outside the torch.func transforms that are at work on this thread."""
    if _functorch_levels() is None:
        return contextlib.nullcontext()
    from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

    return temporarily_clear_interpreter_stack()


def capturing(tensor: Tensor) -> bool:
    """Whether a CUDA graph is being captured of what is computed on this tensor."""
    return tensor.is_cuda and torch.cuda.is_current_stream_capturing()


def reason(tensor: Tensor, src: Tensor | None = None) -> str | None:
    """Why a call on this tensor is left to the framework here and now, in words for its user; None when nothing is.

    While a CUDA graph is captured nothing can be planned: only a call that gathers by src, whose plans are there, goes
    on.
    """
    device = tensor.device
    if device.type == "cuda":
        if not _load.built_with_cuda():
            return "gnna_plugin was built without CUDA"
        if capturing(tensor):
            trained = tensor.requires_grad and torch.is_grad_enabled()
            if src is None or not torch.ops.gnna.has_plans(src, trained):
                return "a CUDA graph is being captured"
    elif device.type != "cpu":
        return f"device {device.type}"
    if tracing():
        return "torch.jit.trace"
    if _functorch_levels() is not None:
        return "a torch.func transform"
    if _dispatch_modes():
        return "a torch dispatch mode (export, fake tensors)"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return None
