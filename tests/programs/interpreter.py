"""Runs a program, plain or with the plug-in on, and records everything that its user can see."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import gnna_plugin

from .script import Program


@dataclass(frozen=True)
class Seen:
    """The state of a tensor when it was recorded."""

    value: Tensor
    requires_grad: bool
    is_leaf: bool
    is_parameter: bool
    grad: Seen | None


@dataclass
class Run:
    """The record of a run.

    Attributes:
        shown: (number of the step, recorded value), in order.
        error: (number of the step, exception) that ended the run, or None.
        final: every tensor that is reachable at the end, by name. After an error, only the user's own tensors.
    """

    shown: list[tuple[int, Any]] = field(default_factory=list)
    error: tuple[int, BaseException] | None = None
    final: dict[str, Any] = field(default_factory=dict)


class _Off:
    """Takes the place of `gnna_plugin` in a plain run. Its functions do nothing."""

    @staticmethod
    def _nothing(*args: Any, **kwargs: Any) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    enable = disable = enabled = disabled = clear_cache = _nothing


class _On:
    """`gnna_plugin` as programs use it: enabled for the program's framework, with min_work=0."""

    def __init__(self, framework: str) -> None:
        self.options = (framework,), {"min_work": 0, "keep_memory": False}

    def enable(self) -> None:
        gnna_plugin.enable(*self.options[0], **self.options[1])

    def enabled(self) -> contextlib.AbstractContextManager:
        return gnna_plugin.enabled(*self.options[0], **self.options[1])

    disable = staticmethod(gnna_plugin.disable)
    disabled = staticmethod(gnna_plugin.disabled)
    clear_cache = staticmethod(gnna_plugin.clear_cache)


def run_plain(program: Program) -> Run:
    gnna_plugin.disable()
    return _run(program, _Off())


def run_accelerated(program: Program) -> Run:
    plugin = _On(program.start.framework)
    gnna_plugin.disable()
    plugin.enable()
    try:
        return _run(program, plugin)
    finally:
        gnna_plugin.disable()


def _run(program: Program, plugin: Any) -> Run:
    from importlib import import_module

    run, number, bound = Run(), 0, []

    def show(value: Any) -> None:
        run.shown.append((number, record(value)))

    module = import_module(f".{program.start.framework}_names", __package__)
    names = module.namespace(program.start, show, plugin)
    torch.default_generator.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for step in program.definitions:
                exec(step.text, names)
            for _ in range(program.start.epochs):
                names["h"] = names["x"] * 1
                for step in program.steps:
                    number += 1
                    before = names["h"]
                    exec(step.text, names)
                    if names["h"] is not before:
                        bound.append(names["h"])
        except Exception as error:
            run.error = number, error
        names.pop("__builtins__", None)
        for i, value in enumerate(bound):
            run.final[f"h at {i}"] = record(value, detach=run.error is not None)
        for name, value in sorted(names.items(), key=lambda item: item[0]):
            if run.error is None:
                run.final |= _reachable(name, value)
            elif isinstance(value, Tensor):  # without its gradient, which a failed backward pass may leave incomplete
                run.final[name] = record(value, detach=True)
    return run


def _reachable(name: str, value: Any) -> dict[str, Any]:
    """Record the tensors in a value: a tensor, a layer, a Data object, a DGL graph, or a sequence of these."""
    if isinstance(value, (Tensor, bool, int, float)):
        return {name: record(value)}
    if isinstance(value, (tuple, list)):
        parts = {f"{name}[{i}]": item for i, item in enumerate(value)}
    elif isinstance(value, torch.nn.Module):
        parts = {f"{name}.{key}": item for key, item in value.named_parameters()}
        parts |= {f"{name}.{key}": item for key, item in vars(value).items() if isinstance(item, (Tensor, tuple, list))}
    elif type(value).__name__ == "Data":
        parts = {f"{name}.{key}": item for key, item in value}
    elif type(value).__name__ == "DGLGraph":
        frames = {"ndata": value.ndata, "edata": value.edata}
        parts = {f"{name}.{frame}[{key}]": item for frame, data in frames.items() for key, item in data.items()}
    else:
        return {}
    found: dict[str, Any] = {}
    for key, item in parts.items():
        found |= _reachable(key, item)
    return found


def record(value: Any, detach: bool = False) -> Any:
    """Return a copy of a value that later writes do not change.

    A tensor is returned as Seen. With detach=True it is recorded without its autograd state.
    """
    try:
        return _record(value.detach() if detach else value)
    except Exception as error:
        return f"{type(error).__name__} when it is read"


def _record(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [record(item) for item in value]
    if not isinstance(value, Tensor):
        return value
    has_grad = (value.is_leaf or value.retains_grad) and value.grad is not None
    copied = value.detach().clone()
    return Seen(
        copied, value.requires_grad, value.is_leaf, isinstance(value, torch.nn.Parameter),
        record(value.grad) if has_grad else None,
    )  # fmt: skip
