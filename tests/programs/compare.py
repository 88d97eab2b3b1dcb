"""Compares two runs of a program: all values, gradients, flags and exceptions. Also defines the permitted
differences.
"""

from __future__ import annotations

from typing import Any

import torch

from .interpreter import Run, Seen
from .script import Program

# Relative to the largest element of a tensor. Sums are computed in another order, through a few layers.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
# Kinds that write to features or weights between the gather and the last use of the messages. The plug-in may then
# raise an error that names conv.gnna, although PyG does not raise.
MAY_RAISE = {"features_written_in_message", "features_written_after", "weight_written_in_message"}


def differences(program: Program, plain: Run, ours: Run) -> list[str]:
    """Describe what differs between the runs. Return an empty list if a user sees no difference."""
    if _may_raise(program, plain, ours):
        return _shown(plain, ours, until=ours.error[0])
    if _held_by_the_graph(plain):
        return _shown(plain, ours, until=plain.error[0])
    if plain.error or ours.error:
        if not _same_error(plain, ours):
            return [f"{_described(program, plain)} plain, {_described(program, ours)} with the plug-in"]
    found = _shown(plain, ours, until=None)
    if plain.final.keys() != ours.final.keys():
        found.append(f"tensors left: {sorted(plain.final.keys() ^ ours.final.keys())} in one run only")
    for name in plain.final.keys() & ours.final.keys():
        found += _differ(f"{name} at the end", plain.final[name], ours.final[name])
    return sorted(found)


def _described(program: Program, run: Run) -> str:
    if run.error is None:
        return "no exception"
    number, error = run.error
    at = program.steps[(number - 1) % len(program.steps)].text if number else "a definition"
    return f"{type(error).__name__} ({str(error).splitlines()[0][:100] if str(error) else ''}) from `{at}`"


def _same_error(plain: Run, ours: Run) -> bool:
    """Return whether both runs ended at the same statement and code that catches PyG's exception catches ours."""
    if plain.error is None or ours.error is None:
        return False
    return plain.error[0] == ours.error[0] and isinstance(ours.error[1], type(plain.error[1]))


def _held_by_the_graph(plain: Run) -> bool:
    """Return whether the plain run ended because swap_tensors was given a tensor that an autograd graph holds.

    The plug-in's graph holds fewer tensors, so its run may go on.
    """
    return plain.error is not None and "use_count" in str(plain.error[1])


def _may_raise(program: Program, plain: Run, ours: Run) -> bool:
    if ours.error is None or (plain.error is not None and plain.error[0] < ours.error[0]):
        return False
    error = ours.error[1]
    return isinstance(error, RuntimeError) and "conv.gnna" in str(error) and bool(MAY_RAISE & program.kinds)


def _shown(plain: Run, ours: Run, until: int | None) -> list[str]:
    before, after = ([item for item in run.shown if until is None or item[0] < until] for run in (plain, ours))
    if len(before) != len(after):
        return [f"{len(before)} values shown plain, {len(after)} with the plug-in"]
    return [
        text
        for (number, value), (_, other) in zip(before, after, strict=True)
        for text in _differ(f"shown by statement {number}", value, other)
    ]


def _differ(name: str, plain: Any, ours: Any) -> list[str]:
    if isinstance(plain, list) and isinstance(ours, list) and len(plain) == len(ours):
        return [text for a, b in zip(plain, ours, strict=True) for text in _differ(name, a, b)]
    if not (isinstance(plain, Seen) and isinstance(ours, Seen)):
        return [] if _equal(plain, ours) else [f"{name}: {_brief(plain)} plain, {_brief(ours)} with the plug-in"]
    found = [
        f"{name}: {flag} {getattr(plain, flag)} plain, {getattr(ours, flag)} with the plug-in"
        for flag in ("requires_grad", "is_leaf", "is_parameter")
        if getattr(plain, flag) != getattr(ours, flag)
    ]
    found += _values(name, plain.value, ours.value)
    if plain.grad is not None or ours.grad is not None:
        found += _differ(f"{name}, its gradient", plain.grad, ours.grad)
    return found


def _equal(plain: Any, ours: Any) -> bool:
    if isinstance(plain, float) and isinstance(ours, float):
        return abs(plain - ours) <= 2e-4 * max(1.0, abs(plain)) or plain != plain and ours != ours
    return type(plain) is type(ours) and plain == ours


def _values(name: str, plain: torch.Tensor, ours: torch.Tensor) -> list[str]:
    if plain.dtype != ours.dtype or plain.shape != ours.shape:
        return [f"{name}: {plain.dtype} {list(plain.shape)} plain, {ours.dtype} {list(ours.shape)} with the plug-in"]
    if torch.equal(plain, ours):
        return []
    tolerance = TOLERANCE.get(plain.dtype, 0.0)
    finite = plain[plain.isfinite()].abs() if plain.is_floating_point() else plain[:0]
    scale = max(1.0, finite.max().item()) if finite.numel() else 1.0
    if torch.allclose(plain, ours, rtol=tolerance, atol=tolerance * scale, equal_nan=True):
        return []
    at = int((plain - ours).abs().nan_to_num(torch.inf).argmax()) if plain.is_floating_point() else 0
    return [f"{name}: {plain.flatten()[at].item():.6g} plain, {ours.flatten()[at].item():.6g} with the plug-in"]


def _brief(value: Any) -> str:
    return f"a tensor {list(value.value.shape)}" if isinstance(value, Seen) else repr(value)[:60]
