"""Replacing a framework's functions so that it can be undone exactly, and TorchScript still finds their source."""

from __future__ import annotations

import functools
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Iterable

import torch

_MISSING = object()


def misfit(signatures: Iterable[tuple[object, str, list[str]]]) -> str | None:
    """The first of (owner, function name, parameter names) that is not so, in words; None when all are."""
    for owner, name, expected in signatures:
        function = vars(owner).get(name)
        found = list(inspect.signature(function).parameters) if inspect.isfunction(function) else None
        if found != expected:
            return f"{getattr(owner, '__name__', owner)}.{name} takes {found}, not {expected}"
    return None


def stand_in(replacement: Callable, original: Callable) -> Callable:
    """`replacement` dressed as `original`: its name, module and, through __wrapped__, its source.

    torch.jit.script compiles a function from the source it unwraps to and resolves names in the function's globals; so
    the stand-in runs our code in eager mode, scripts as the original, and must reach our own names as closure variables
    only.
    """
    function = types.FunctionType(
        replacement.__code__, original.__globals__, original.__name__, original.__defaults__, replacement.__closure__
    )
    function.__kwdefaults__ = original.__kwdefaults__
    return functools.update_wrapper(function, original)


def share_script_overloads(source: Callable, target: Callable) -> None:
    """Gives `target` the compiled TorchScript overloads of `source`. torch.jit keeps them by function object and
    forgets their declarations once compiled, so that a stand-in could not be scripted after its original was, nor the
    reverse."""
    compiled = getattr(torch.jit._state, "_jit_function_overload_caching", {})
    if source in compiled:
        compiled[target] = compiled[source]


class Spread:
    """A function that a package's modules import from one another by name: replaced in all that hold it, and given back
    in all, those imported meanwhile included. Its compiled TorchScript overloads go with it."""

    def __init__(self, package: str, original: Callable, ours: Callable) -> None:
        self._prefix, self._original, self._ours = f"{package}.", original, ours
        share_script_overloads(original, ours)
        self._move(original, ours)

    def undo(self) -> None:
        share_script_overloads(self._ours, self._original)
        self._move(self._ours, self._original)

    def _move(self, old: Callable, new: Callable) -> None:
        name = self._original.__name__
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith(self._prefix) and vars(module).get(name) is old:
                setattr(module, name, new)


class Patches:
    """A list of replaced attributes. undo() restores each one, but never overwrites what somebody else put there
    since."""

    def __init__(self) -> None:
        self._done: list[tuple[object, str, object, object]] = []

    def replace(self, owner: object, name: str, new: object) -> None:
        old = vars(owner).get(name, _MISSING)
        setattr(owner, name, new)
        self._done.append((owner, name, vars(owner)[name], old))

    def undo(self) -> None:
        """Restores in reverse order. What somebody else replaced meanwhile is left as it is, with a warning."""
        foreign = []
        while self._done:
            owner, name, ours, old = self._done.pop()
            if vars(owner).get(name) is not ours:
                foreign.append(f"{getattr(owner, '__name__', owner)}.{name}")
            elif old is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, old)
        if foreign:
            text = f"gnna_plugin left {', '.join(foreign)} as found: replaced by others after enable()"
            warnings.warn(text, stacklevel=4)
