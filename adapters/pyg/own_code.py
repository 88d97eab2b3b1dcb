"""Detects which steps of a layer are still PyG's own code. A shortcut must check here before it skips or reorders a
step, because a user's class, instance or hook may have replaced it.
"""

from __future__ import annotations

import dis
import inspect
import operator
import types
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch_geometric.nn import Aggregation, MessagePassing

_STEPS = (
    "propagate", "edge_updater", "message", "aggregate", "update", "edge_update", "message_and_aggregate",
    "_check_input", "_set_size", "_collect", "_index_select", "_index_select_safe",
)  # fmt: skip
_LAYER_HOOKS = tuple(
    f"_{step}_forward_{kind}"
    for step in ("propagate", "message", "aggregate", "message_and_aggregate", "edge_update")
    for kind in ("pre_hooks", "hooks")
)
_MODULE_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_module = torch.nn.modules.module
_GLOBAL_HOOKS = tuple(
    getattr(_module, name)
    for name in (
        "_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_pre_hooks", "_global_backward_hooks",
    )
)  # fmt: skip
_FRAMEWORK = "torch_geometric."
_functions = operator.attrgetter(*_STEPS)
_layer_hooks = operator.itemgetter(*_LAYER_HOOKS)
_Known = tuple[tuple[weakref.ref, ...], bool]  # a cached answer: the functions that it was found for, and the answer
_classes: weakref.WeakKeyDictionary[type, _Known] = weakref.WeakKeyDictionary()
_aggregations: weakref.WeakKeyDictionary[type, _Known] = weakref.WeakKeyDictionary()
# What a layer's code does, and the functions that it was found for.
_habits: weakref.WeakKeyDictionary[MessagePassing, tuple[tuple[weakref.ref, ...], set[str]]]
_habits = weakref.WeakKeyDictionary()


def _holds(known: _Known, cls: type) -> bool:
    return tuple([ref() for ref in known[0]]) == _functions(cls)


def _is_pygs(function: Any) -> bool:
    """Return whether PyG defines this function. A wrapper may copy __module__, but not the globals."""
    return getattr(function, "__globals__", {}).get("__name__", "").startswith((_FRAMEWORK, "torch.nn."))


def class_is_own(cls: type) -> bool:
    """Return whether all steps of a layer class are PyG's functions."""
    known = _classes.get(cls)
    if known is None or not _holds(known, cls):
        functions = _functions(cls)
        _classes[cls] = known = (tuple(map(weakref.ref, functions)), all(map(_is_pygs, functions)))
    return known[1]


def _overrides(conv: MessagePassing) -> list:
    """Return the steps that were set on the instance."""
    attributes = conv.__dict__
    if attributes.keys().isdisjoint(_STEPS):
        return []
    return [attributes[step] for step in _STEPS if step in attributes]


def module_is_plain(module: Any) -> bool:
    """Return whether calling a module runs its class's forward and nothing else."""
    attributes = module.__dict__
    if any(map(attributes.get, _MODULE_HOOKS)) or any(_GLOBAL_HOOKS):
        return False
    return "forward" not in attributes and attributes.get("_compiled_call_impl") is None


def _aggregation_is_own(module: Any) -> bool:
    if module is None:
        return True
    if not module_is_plain(module) or "reduce" in module.__dict__:
        return False
    cls = type(module)
    steps = (cls.forward, cls.__call__, getattr(cls, "reduce", cls.forward))
    known = _aggregations.get(cls)
    if known is None or tuple([ref() for ref in known[0]]) != steps:
        _aggregations[cls] = known = (tuple(map(weakref.ref, steps)), all(map(_is_pygs, steps)))
    if not known[1]:
        return False
    return all(map(_aggregation_is_own, module.__dict__["_modules"].values()))


def steps_are_own(conv: MessagePassing) -> bool:
    """Return whether only PyG's code runs from a gather to the end of the call."""
    if not class_is_own(type(conv)) or _overrides(conv):
        return False
    attributes = conv.__dict__
    return not any(_layer_hooks(attributes)) and _aggregation_is_own(attributes["_modules"].get("aggr_module"))


def aggregates_with(conv: MessagePassing, kind: type[Aggregation]) -> bool:
    """Return whether PyG's own steps aggregate with exactly the class `kind`."""
    return type(conv.aggr_module) is kind and steps_are_own(conv)


# ---- user code that treats a lazy message differently ----------------------------------------------------------------

_TYPES, _GRADIENTS, _WRITES = "compares types", "watches gradients", "writes in place"
_WATCHING = frozenset(("register_hook", "retain_grad", "register_post_accumulate_grad_hook", "grad", "backward"))


def asks_for_types(conv: MessagePassing) -> bool:
    """Return whether the user's code in this layer compares tensor types.

    An example is `type(x_j) is torch.Tensor`, which is False for a lazy message.
    """
    return _TYPES in _habits_of(conv)


def watches_gradients(conv: MessagePassing) -> bool:
    """Return whether the user's code in this layer reads gradients of its messages, which a rewrite may not compute."""
    return _GRADIENTS in _habits_of(conv)


def writes_in_place(conv: MessagePassing) -> bool:
    """Return whether the user's code in this layer writes to tensors, some of which may be views of its messages."""
    return _WRITES in _habits_of(conv)


def _habits_of(conv: MessagePassing) -> set[str]:
    """Read the bytecode of the steps, and of the functions, methods and modules that they name.

    The answer is cached per layer, unless steps were set on the instance.
    """
    cls, overrides = type(conv), _overrides(conv)
    if not overrides and class_is_own(cls):
        return set()
    known = None if overrides else _habits.get(conv)
    if known is None or tuple([ref() for ref in known[0]]) != _functions(cls):
        functions: tuple = _functions(cls)
        found: set[str] = set()
        seen: set[types.CodeType] = set()
        for function in (*functions, *overrides):
            _read(function, conv, seen, found)
        if overrides:
            return found
        _habits[conv] = known = (tuple(map(weakref.ref, functions)), found)
    return known[1]


def _read(function: Any, conv: MessagePassing, seen: set[types.CodeType], found: set[str]) -> None:
    if isinstance(function, torch.nn.Module):
        if any(getattr(module, "inplace", False) is True for module in function.modules()):
            found.add(_WRITES)
        function = type(function).forward
    function = getattr(function, "__func__", function)
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, types.FunctionType) or function.__code__ in seen:
        return
    if (function.__module__ or "").partition(".")[0] in ("torch", "torch_geometric", "gnna_plugin"):
        return
    for code in _nested(function.__code__):
        seen.add(code)
        if not _WATCHING.isdisjoint(code.co_names):
            found.add(_GRADIENTS)
        if any(name.endswith("_") and not name.startswith("_") for name in code.co_names):
            found.add(_WRITES)
        for instruction in dis.get_instructions(code):
            in_place = instruction.opname.startswith("INPLACE_") or instruction.argrepr.endswith("=")
            if instruction.opname == "STORE_SUBSCR" or (in_place and instruction.opname != "COMPARE_OP"):
                found.add(_WRITES)
            if {"inplace", "out"}.intersection(_keywords(instruction)):
                found.add(_WRITES)
            if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval == "type":
                found.add(_TYPES)
            if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and instruction.argval == "__class__":
                found.add(_TYPES)
    names = [name for code in _nested(function.__code__) for name in code.co_names]
    for inner in [_named(name, function, conv) for name in names] + [_content(c) for c in function.__closure__ or ()]:
        _read(inner, conv, seen, found)


def _keywords(instruction: dis.Instruction) -> tuple:
    """Return the names of keyword arguments that an instruction passes."""
    names = instruction.argval
    return names if type(names) is tuple and all(type(name) is str for name in names) else ()


def _named(name: str, function: types.FunctionType, conv: MessagePassing) -> Any:
    """Return the attribute of the layer or the global that a name refers to."""
    for names in (conv.__dict__, conv.__dict__["_modules"], function.__globals__):
        if name in names:
            return names[name]
    return inspect.getattr_static(type(conv), name, None)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # the cell is empty
        return None


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)
