"""Replacing a framework's functions so that it can be undone exactly, and TorchScript still finds their source."""

from __future__ import annotations

import functools
import gc
import inspect
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any

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


class ScriptAliases:
    """Makes TorchScript compile the original wherever it meets a stand-in.

    torch.jit caches the compiled overloads of a function by function object, but keeps the declarations that are not
    compiled yet by qualified name, and deletes them after the first compilation. A stand-in and its original share the
    qualified name, so whichever is compiled second would find no overloads. Here every lookup uses the original, and
    torch.jit's tables hold the same entries as without the plug-in.

    The lookup of overloads is replaced for as long as a stand-in exists: usually until disable(), longer if a program
    still holds one. For functions without overloads torch.jit calls `__prepare_scriptable__` itself.
    """

    _OWN = ("__wrapped__", "__prepare_scriptable__")  # attributes that only a stand-in has

    def __init__(self) -> None:
        self._originals: dict[weakref.ref, Callable] = {}
        self._patches = Patches()
        self._was_asked = False  # TorchScript has met a stand-in since the last release()
        self._lock = threading.RLock()  # reentrant, because the garbage collector may call _forget() inside add()

    def add(self, ours: Callable, original: Callable) -> None:
        ours.__prepare_scriptable__ = lambda: original  # type: ignore[attr-defined]
        with self._lock:
            if not self._originals:
                lookup = self._lookup(torch.jit._script._get_overloads)
                self._patches.replace(torch.jit._script, "_get_overloads", lookup)
            self._originals[weakref.ref(ours, self._forget)] = original

    def _forget(self, ours: weakref.ref, finalizing: Callable = sys.is_finalizing) -> None:
        if finalizing():
            return  # modules are being torn down, and nothing can be compiled any more
        with self._lock:
            self._originals.pop(ours, None)
            if not self._originals:
                self._patches.undo()

    def release(self) -> None:
        """Removes what still refers to stand-ins after all of a package's modules have their originals back.

        Modules of the user may have imported stand-ins, under any name. torch.jit leaves copies of the namespaces that
        it compiled in reference cycles.
        """
        if self._originals:
            for module in list(sys.modules.values()):
                names = getattr(module, "__dict__", {})
                for name, value in list(names.items()):
                    if type(value) is types.FunctionType and (original := self._original_of(value)) is not None:
                        names[name] = original
        if self._originals and self._was_asked:
            gc.collect()
        self._was_asked = False

    def _original_of(self, function: Callable) -> Callable | None:
        return self._originals.get(weakref.ref(function))

    def _lookup(self, get_overloads: Callable) -> Callable:
        def _get_overloads(obj: Any) -> Any:
            original = self._original_of(obj)
            if original is None:
                return get_overloads(obj)
            self._was_asked = True
            self.share_marks(obj, original)
            return get_overloads(original)

        return _get_overloads

    def share_marks(self, ours: Callable, original: Callable) -> None:
        """Gives both the attributes that either has received since, such as the mark of torch.jit.ignore."""
        for name, value in vars(ours).items():
            if name not in self._OWN:
                vars(original).setdefault(name, value)
        vars(ours).update(vars(original))


script_aliases = ScriptAliases()


class Spread:
    """A function that a package's modules import from one another by name, replaced in all modules that hold it.

    undo() restores it in all modules that hold the stand-in by then, those imported meanwhile included.
    """

    def __init__(self, package: str, original: Callable, ours: Callable) -> None:
        self._prefix, self._original = f"{package}.", original
        self._ours: Any = ours  # None once undone
        script_aliases.add(ours, original)
        self._move(original, ours)

    def undo(self) -> None:
        script_aliases.share_marks(self._ours, self._original)
        self._move(self._ours, self._original)
        self._ours = None

    def _move(self, old: Callable, new: Callable) -> None:
        name = self._original.__name__
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith(self._prefix) and vars(module).get(name) is old:
                setattr(module, name, new)
