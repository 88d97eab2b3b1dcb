"""Verify mode: every call of a graph layer is repeated on the framework's own path, and the results are compared.

`enable(verify=True)` turns it on, `status()` shows what it found. The repeats run on copies of the layer and of its
arguments that are made before the call, from the same random numbers. The script's own results, its layers and its
random numbers are therefore what they are without verify mode.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
# Hooks before a call that compute parameters (weight_norm, lazy initialisation). Users' hooks do not run in repeats.
_HOOKS_OF_LAYERS = ("torch.nn.", "torch_geometric.nn.")


class Mismatch(RuntimeError):
    """Raised in verify mode with strict=True if a layer's results differ from the framework's own."""


class _NotCompared(Exception):
    """The reason why a call cannot be compared."""


@dataclass
class _Inputs:
    """Copies of a layer and of the arguments of one call, and the random state, from before the call."""

    module: torch.nn.Module
    args: tuple
    kwargs: dict
    random: dict

    def copied(self, double: bool = False) -> tuple[torch.nn.Module, tuple, dict, dict[str, Tensor]]:
        """Return copies for one repeat, and the arguments with a gradient by name."""
        leaves: dict[str, Tensor] = {}
        module = _copied(self.module, indices=True)
        if double:
            module = module.double()
        args, kwargs = _copied((self.args, self.kwargs), leaves, double)
        return module, args, kwargs, leaves


_stop: Callable[[], None] | None = None


def put_in_force(verify: bool) -> None:
    """Start or stop verify mode."""
    global _stop
    if verify and _stop is None:
        _stop = layer_calls.watch(_keep, _compare)
    elif not verify and _stop is not None:
        _stop()
        _stop = None


def _keep(module: torch.nn.Module, args: tuple, kwargs: dict) -> _Inputs | str | None:
    """Return the copies, a reason why the call cannot be compared, or None if the plug-in is off."""
    if not settings.active():
        return None
    reason = _why_not(args)
    if reason is not None:
        return reason
    try:
        twin = _copied(module, indices=True)
        _without_users_hooks(twin)
        args, kwargs = _copied((args, kwargs))
        return _Inputs(twin, args, kwargs, _random_state())
    except Exception as error:
        return f"the layer or its arguments cannot be copied ({type(error).__name__})"


def _why_not(args: tuple) -> str | None:
    if any(surroundings.capturing(t) for t in layer_calls.tensors_in(args)):
        return "a CUDA graph is being captured"
    if surroundings.saved_tensor_hooks():
        return "saved-tensor hooks (activation checkpointing)"
    return surroundings.mode()


def _compare(module: torch.nn.Module, args: tuple, kwargs: dict, output: Any, inputs: _Inputs | str | None) -> None:
    """Compare one call with the framework's own path, and record the differences."""
    if inputs is None:
        return
    layer = type(module).__name__
    found = report.compared(layer)
    try:
        if isinstance(inputs, str):
            raise _NotCompared(inputs)
        differing = _differences(found, inputs, output)
    except _NotCompared as reason:
        found.unchecked[str(reason)] += 1
        return
    except Exception as error:  # the layer's own call has succeeded
        found.unchecked[f"repeating the call raised {type(error).__name__}: {str(error).partition(chr(10))[0]}"] += 1
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


def _differences(found: report.Comparison, inputs: _Inputs, output: Any) -> str:
    """Return what differs beyond the tolerance in one call, or an empty string, and update the largest errors.

    Raises:
        _NotCompared: there is nothing to compare.
    """
    outputs = _floats(output)
    if not outputs:
        raise _NotCompared("its output holds no tensor of floating point numbers")
    theirs = _frameworks_results(inputs)
    with report.fresh():
        ours = _results(inputs)
        accelerated = any(report.totals()[:2])
    found.accelerated += accelerated
    names = [name for name in ours if name.startswith("output")]
    # The outputs are those of the script's own call, which had all cached state.
    ours.update((name, tensor.detach()) for name, tensor in zip(names, outputs, strict=True))
    again: dict[str, Tensor] = {}
    exact: dict[str, Tensor] = {}
    differing = []
    for name, want in theirs.items():
        tolerance = TOLERANCES.get(want.dtype, TOLERANCES[torch.float32])
        error = relative_error(ours[name], want)
        found.tolerance = max(found.tolerance, tolerance)
        if not error <= tolerance:
            if not again:
                again, exact = _frameworks_results(inputs), _exact_results(inputs)
            if not relative_error(again[name], want) <= tolerance:
                raise _NotCompared("the framework's own path gives different results in each call")
            if name not in exact or not _no_worse(ours[name], want, exact[name]):
                differing.append(f"{name}: {error:.1e}")
        elif name.startswith("output"):
            found.output_error = max(found.output_error, error)
        else:
            found.gradient_error = max(found.gradient_error, error)
    return ", ".join(differing)


def _frameworks_results(inputs: _Inputs, double: bool = False) -> dict[str, Tensor]:
    active = settings.set_active(False)
    try:
        return _results(inputs, double)
    finally:
        settings.set_active(active)


def _exact_results(inputs: _Inputs) -> dict[str, Tensor]:
    """Return the results of the framework's own path in float64, or {} if the layer cannot compute in it."""
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return _frameworks_results(inputs, double=True)
    except Exception:
        return {}


def _results(inputs: _Inputs, double: bool = False) -> dict[str, Tensor]:
    """Repeat a call, and return its outputs and the gradients of its inputs and parameters by name."""
    module, args, kwargs, leaves = inputs.copied(double)
    with _random_numbers(inputs.random):
        outputs = _floats(module(*args, **kwargs))
    results = {f"output {i}" if i else "output": t.detach() for i, t in enumerate(outputs)}
    reached = [t for t in outputs if t.requires_grad]
    wanted = {**leaves, **{name: p for name, p in module.named_parameters() if p.requires_grad}}
    if not torch.is_grad_enabled() or not reached or not wanted:
        return results
    gradients = torch.autograd.grad(reached, list(wanted.values()), [_direction(t) for t in reached], allow_unused=True)
    found = {f"gradient of {name}": g for name, g in zip(wanted, gradients, strict=True) if g is not None}
    return {**results, **{name: g for name, g in found.items() if g.layout is torch.strided}}


def _direction(output: Tensor) -> Tensor:
    """Return the gradient that every pass starts from: the same random numbers for outputs of equal shape."""
    generator = torch.Generator().manual_seed(output.numel())
    return torch.randn(output.shape, generator=generator).to(output.device, output.dtype)


def _floats(output: Any) -> list[Tensor]:
    return [t for t in layer_calls.tensors_in(output) if t.is_floating_point() and t.layout is torch.strided]


def _no_worse(ours: Tensor, theirs: Tensor, exact: Tensor) -> bool:
    exact = exact.double()
    own = relative_error(theirs.double(), exact)
    return math.isfinite(own) and relative_error(ours.double(), exact) <= _WORSE * own


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


# ---- copies ----------------------------------------------------------------------------------------------------------


def _copied(
    value: Any, leaves: dict[str, Tensor] | None = None, double: bool = False, indices: bool = False
) -> Any:
    """Return a deep copy in which tensors have no history. A DGLGraph keeps its structure.

    Args:
        leaves: receives the copied tensors that require a gradient, by name.
        double: convert tensors of floating point numbers to float64.
        indices: copy tensors of integers too, such as the counters of a BatchNorm. In arguments they stay the same
            objects, because plans are cached by the identity of edges.
    """
    collected: dict[int, Tensor] = {}

    def copy_tensor(self: Tensor, memo: dict) -> Tensor:
        if id(self) not in memo:
            memo[id(self)] = _copied_tensor(self, double) if indices or self.is_floating_point() else self
            if self.requires_grad:
                collected[id(self)] = memo[id(self)]
        return memo[id(self)]

    memo: dict = {}
    original = Tensor.__deepcopy__
    # torch's own refuses tensors with a history.
    Tensor.__deepcopy__ = copy_tensor  # type: ignore[method-assign]
    try:
        graphs = {id(graph): graph for graph in _graphs_in(value)}
        memo.update((key, _copied_graph(graph, memo)) for key, graph in graphs.items())
        found = copy.deepcopy(value, memo)
    finally:
        Tensor.__deepcopy__ = original  # type: ignore[method-assign]
    if leaves is not None:
        leaves.update((f"input {i}", leaf) for i, leaf in enumerate(collected.values()))
    return found


def _copied_tensor(tensor: Tensor, double: bool) -> Tensor:
    found = tensor.detach().clone()
    return (found.double() if double and found.is_floating_point() else found).requires_grad_(tensor.requires_grad)


def _graphs_in(value: Any) -> list[Any]:
    """Return the DGLGraphs among arguments (args, kwargs)."""
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        return [arg for arg in (*value[0], *value[1].values()) if hasattr(arg, "local_var")]
    return []


def _copied_graph(graph: Any, memo: dict) -> Any:
    found = graph.local_var()
    for views, kinds in ((found.nodes, found.ntypes), (found.edges, found.canonical_etypes)):
        for kind in kinds:
            data = views[kind].data
            for name in list(data):
                data[name] = copy.deepcopy(data[name], memo)
    return found


def _without_users_hooks(module: torch.nn.Module) -> None:
    """Remove the hooks of a copied layer, except those that compute its parameters."""
    for part in module.modules():
        for name, hooks in vars(part).items():
            if name.endswith("_hooks") and isinstance(hooks, dict):
                kept = name == "_forward_pre_hooks"
                for key, hook in list(hooks.items()):
                    home = getattr(hook, "__module__", None) or type(hook).__module__
                    if not (kept and str(home).startswith(_HOOKS_OF_LAYERS)):
                        del hooks[key]


# ---- random numbers --------------------------------------------------------------------------------------------------


def _random_state() -> dict:
    """Return the states of the random number generators of torch, Python and NumPy."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state()
    return state


@contextlib.contextmanager
def _random_numbers(state: dict) -> Iterator[None]:
    """Run a block from this random state, and return to the present one."""
    before = _random_state()
    _set_random_state(state)
    try:
        yield
    finally:
        _set_random_state(before)


def _set_random_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])
    if "numpy" in state:
        sys.modules["numpy"].random.set_state(state["numpy"])
