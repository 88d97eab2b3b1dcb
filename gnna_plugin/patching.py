"""Replaces functions of a framework so that they can be restored exactly and TorchScript compiles the originals."""

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
    """Describe the first function with unexpected parameters; None if there is none.

    Args:
        signatures: (owner, function name, expected parameter names) of every function.
    """
    for owner, name, expected in signatures:
        function = vars(owner).get(name)
        found = list(inspect.signature(function).parameters) if inspect.isfunction(function) else None
        if found != expected:
            return f"{getattr(owner, '__name__', owner)}.{name} takes {found}, not {expected}"
    return None


def stand_in(replacement: Callable, original: Callable) -> Callable:
    """Return a function that runs `replacement` and looks like `original`.

    It has the name and module of `original` and, through __wrapped__, its source. torch.jit.script compiles a function
    from the source that __wrapped__ leads to, and resolves names in the function's globals. The stand-in therefore runs
    `replacement` in eager mode and compiles as `original`. Its globals are those of `original`, so `replacement` must
    refer to names of its own module through closure variables only.
    """
    function = types.FunctionType(
        replacement.__code__, original.__globals__, original.__name__, original.__defaults__, replacement.__closure__
    )
    function.__kwdefaults__ = original.__kwdefaults__
    return functools.update_wrapper(function, original)


class Patches:
    """A list of replaced attributes and functions.

    undo() restores each one unless other code has replaced it since.
    """

    def __init__(self) -> None:
        self._done: list[tuple[object, str, object, object]] = []
        self._spreads: list[Spread] = []

    def replace(self, owner: object, name: str, new: object) -> None:
        old = vars(owner).get(name, _MISSING)
        setattr(owner, name, new)
        self._done.append((owner, name, vars(owner)[name], old))

    def replace_everywhere(self, package: str, original: Callable, new: Callable) -> None:
        """Replace a function in all modules of a package that hold it, see Spread."""
        self._spreads.append(Spread(package, original, new))

    def __bool__(self) -> bool:
        return bool(self._done or self._spreads)

    def undo(self) -> None:
        """Restore the functions and the attributes, each in reverse order.

        Attributes that other code replaced since are left as they are, with a warning.
        """
        while self._spreads:
            self._spreads.pop().undo()
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
            text = f"gnna_plugin did not restore {', '.join(foreign)}: replaced by other code after enable()"
            warnings.warn(text, stacklevel=4)


class ScriptAliases:
    """Makes TorchScript compile the original if it is given a stand-in.

    torch.jit caches the compiled overloads of a function by function object. Declarations that are not compiled yet are
    stored by qualified name and deleted after the first compilation. A stand-in and its original have the same
    qualified name, so the second of them to be compiled would find no overloads. This class makes every lookup use the
    original, so that torch.jit's tables hold the same entries as without the plug-in.

    torch.jit's lookup of overloads is replaced as long as a stand-in exists. That is usually until disable(), or longer
    if a program still holds one. For functions without overloads, torch.jit itself calls `__prepare_scriptable__`.
    """

    _OWN = ("__wrapped__", "__prepare_scriptable__")  # attributes that only a stand-in has

    def __init__(self) -> None:
        self._originals: dict[weakref.ref, Callable] = {}
        self._patches = Patches()
        self._was_asked = False  # whether TorchScript has looked up a stand-in since the last release()
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
            return  # the interpreter is shutting down, and nothing will be compiled any more
        with self._lock:
            self._originals.pop(ours, None)
            if not self._originals:
                self._patches.undo()

    def release(self) -> None:
        """Remove the remaining references to stand-ins.

        Call this after all modules of the package have their originals back. User modules may have imported stand-ins
        under any name, so all loaded modules are searched. torch.jit leaves copies of the namespaces that it compiled
        in reference cycles, which only the garbage collector frees.
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
        """Give both functions the attributes that either was given.

        An example is the mark that torch.jit.ignore sets.
        """
        for name, value in vars(ours).items():
            if name not in self._OWN:
                vars(original).setdefault(name, value)
        vars(ours).update(vars(original))


script_aliases = ScriptAliases()


class Spread:
    """Replaces a function in all modules of a package that hold it.

    The modules import the function from one another by name. undo() restores it in all modules that hold the
    replacement at that time, including those imported since.
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
