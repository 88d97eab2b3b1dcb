"""Verify mode: every call of a graph layer is repeated on the framework's own path, and the results are compared.

`enable(verify=True)` turns it on, `status()` shows what it found. The script's own results are the plug-in's, and its
random numbers and buffers are what they are without verify mode.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from gnna_plugin import layer_calls, report, settings, surroundings

logger = logging.getLogger("gnna_plugin")

# Largest accepted difference of an element, relative to the largest element of its tensor. Two orders of summation of
# the same float32 numbers differ by about 1e-6 in rows of a few hundred edges.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
# Beyond the tolerance, a result counts as wrong only if its error against float64 exceeds this multiple of the error of
# the framework's own result, which loses digits too where large terms cancel.
_WORSE = 10


class Mismatch(RuntimeError):
    """Raised in verify mode with strict=True if a layer's results differ from the framework's own."""


_stop: Callable[[], None] | None = None


def put_in_force(verify: bool) -> None:
    """Start or stop verify mode."""
    global _stop
    if verify and _stop is None:
        _stop = layer_calls.watch(_random_state, _compare)
    elif not verify and _stop is not None:
        _stop()
        _stop = None


def _random_state(_module: torch.nn.Module, args: tuple) -> tuple[Tensor, Tensor | None]:
    """Return the states of the random number generators, which the comparison starts from again."""
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized() and not torch.cuda.is_current_stream_capturing()
    return torch.get_rng_state(), torch.cuda.get_rng_state() if cuda else None


def _compare(module: torch.nn.Module, args: tuple, kwargs: dict, output: Any, state: tuple) -> None:
    """Compare one call with the framework's own path, and record the differences."""
    if not settings.active():
        return
    layer = type(module).__name__
    found = report.compared(layer)
    reason = _why_not(output)
    if reason is None:
        try:
            differing = _differences(found, module, args, kwargs, output, state)
        except Exception as error:  # a layer that cannot be called twice; its own call has succeeded
            reason = f"repeating the call raised {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if reason is not None:
        found.unchecked[reason] += 1
        return
    found.calls += 1
    if not differing:
        return
    found.differing.append(differing)
    text = f"{layer} differs from the framework's own path: {differing}"
    if settings.current.strict:
        raise Mismatch(f"{text}; accepted are {found.tolerance:.0e} of the largest element. Please report it")
    if len(found.differing) == 1:
        logger.warning("%s", text)


def _why_not(output: Any) -> str | None:
    if any(surroundings.capturing(t) for t in layer_calls.tensors_in(output)):
        return "a CUDA graph is being captured"
    if surroundings.saved_tensor_hooks():
        return "saved-tensor hooks (activation checkpointing)"
    if surroundings.tracing() or surroundings.transforming():
        return "a trace or a torch.func transform is active"
    return None


def _differences(found: report.Comparison, module: Any, args: tuple, kwargs: dict, output: Any, state: tuple) -> str:
    """Return what differs beyond the tolerance in one call, or an empty string, and update the largest errors."""
    with _undone(module, state, args), report.fresh():
        ours = _run(module, args, kwargs)
    theirs = _frameworks_run(module, args, kwargs, state)
    for name, tensor in zip([n for n in ours if n.startswith("output")], _floats(output), strict=True):
        ours[name] = tensor.detach()  # the script's own output, from the path with all its cached state
    again: dict[str, Tensor] = {}
    exact: dict[str, Tensor] | None = None
    differing = []
    for name, want in theirs.items():
        tolerance = TOLERANCES.get(want.dtype, 1e-4)
        error = relative_error(ours[name], want)
        if not error <= tolerance:
            if exact is None:
                again = _frameworks_run(module, args, kwargs, state)
                exact = _exact(module, args, kwargs, state)
            if not relative_error(again[name], want) <= tolerance:
                raise RuntimeError("the framework's own path gives different results in each call")
            if name not in exact or not _no_worse(ours[name], want, exact[name]):
                differing.append(f"{name}: {error:.1e}")
            continue
        found.tolerance = max(found.tolerance, tolerance)
        if name.startswith("output"):
            found.output_error = max(found.output_error, error)
        else:
            found.gradient_error = max(found.gradient_error, error)
    return ", ".join(differing)


def _frameworks_run(module: Any, args: tuple, kwargs: dict, state: tuple) -> dict[str, Tensor]:
    with _undone(module, state, args), _frameworks_path():
        return _run(module, args, kwargs)


def _run(module: Any, args: tuple, kwargs: dict, double: bool = False) -> dict[str, Tensor]:
    """Call a layer, and return its outputs and the gradients of its inputs and parameters by name."""
    inputs: dict[str, Tensor] = {}
    args, kwargs = _fresh(args, "input", inputs, double), _fresh(kwargs, "input", inputs, double)
    outputs = _floats(module.forward(*args, **kwargs))
    results = {f"output {i}" if i else "output": t.detach() for i, t in enumerate(outputs)}
    reached = [t for t in outputs if t.requires_grad]
    if not torch.is_grad_enabled() or not reached:
        return results
    wanted = {**inputs, **{name: p for name, p in module.named_parameters() if p.requires_grad}}
    if not wanted:
        return results
    gradients = torch.autograd.grad(reached, list(wanted.values()), [_direction(t) for t in reached], allow_unused=True)
    results.update((f"gradient of {name}", g) for name, g in zip(wanted, gradients, strict=True) if g is not None)
    return {name: t for name, t in results.items() if t.layout is torch.strided}


def _direction(output: Tensor) -> Tensor:
    """Return the gradient that every pass starts from: the same random numbers for outputs of equal shape."""
    generator = torch.Generator().manual_seed(output.numel())
    return torch.randn(output.shape, generator=generator).to(output.device, output.dtype)


def _fresh(value: Any, name: str, inputs: dict[str, Tensor], double: bool) -> Any:
    """Return arguments in which tensors with a gradient are leaves, and collect these leaves by name.

    All others stay the same objects, because results are cached by the identity of edges and weights.
    """
    if isinstance(value, Tensor) and value.is_floating_point() and value.layout is torch.strided:
        if not value.requires_grad:
            return value.double() if double else value
        leaf = (value.double() if double else value).detach().requires_grad_()
        inputs[f"{name} {len(inputs)}"] = leaf
        return leaf
    if type(value) in (tuple, list):
        return type(value)(_fresh(part, name, inputs, double) for part in value)
    if type(value) is dict:
        return {key: _fresh(part, key, inputs, double) for key, part in value.items()}
    return value


def _floats(output: Any) -> list[Tensor]:
    return [t for t in layer_calls.tensors_in(output) if t.is_floating_point() and t.layout is torch.strided]


def _exact(module: Any, args: tuple, kwargs: dict, state: tuple) -> dict[str, Tensor]:
    """Return the results of the framework's own path in float64, or {} if the layer cannot be copied."""
    try:
        full = copy.deepcopy(module).double()
        with _undone(module, state, args), _frameworks_path():
            with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
                return _run(full, args, kwargs, double=True)
    except Exception:
        return {}


def _no_worse(ours: Tensor, theirs: Tensor, exact: Tensor) -> bool:
    own = relative_error(theirs.double(), exact)
    return relative_error(ours.double(), exact) <= _WORSE * own


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Return the largest difference of an element, relative to the largest element of `expected`.

    The result is infinite if shapes or dtypes differ, or if one has a NaN or an infinity where the other has none.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    if not expected.numel():
        return 0.0
    unequal = found != expected
    same_nan = found.isnan() & expected.isnan()
    difference = torch.where(unequal & ~same_nan, (found.double() - expected.double()).abs(), 0.0)
    scale = float(torch.where(expected.isfinite(), expected.double().abs(), 0.0).max())
    error = float(difference.max()) / (scale or 1.0)
    return float("inf") if math.isnan(error) else error


@contextlib.contextmanager
def _frameworks_path() -> Iterator[None]:
    active = settings.set_active(False)
    try:
        yield
    finally:
        settings.set_active(active)


@contextlib.contextmanager
def _undone(module: torch.nn.Module, state: tuple, args: tuple) -> Iterator[None]:
    """Run a block from the random state of the layer's call, and undo what it does to the layer and to graphs.

    Buffers (running statistics) are copies inside the block, because the script's backward pass needs the originals as
    they are. Attributes (cached normalisations) and the features on a DGLGraph are restored.
    """
    submodules = list(module.modules())
    attributes = [dict(vars(m)) for m in submodules]
    buffers = [dict(m._buffers) for m in submodules]
    after = _random_state(module, args)
    _set_random_state(state)
    for m in submodules:
        m._buffers.update({name: b.detach().clone() for name, b in m._buffers.items() if b is not None})
    try:
        with contextlib.ExitStack() as scopes:
            for arg in args:
                if hasattr(arg, "local_scope"):
                    scopes.enter_context(arg.local_scope())
            yield
    finally:
        _set_random_state(after)
        for m, values, originals in zip(submodules, attributes, buffers, strict=True):
            vars(m).clear()
            vars(m).update(values)
            m._buffers.clear()
            m._buffers.update(originals)


def _set_random_state(state: tuple) -> None:
    cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda)
