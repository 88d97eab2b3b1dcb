"""Shrinks a failing program: removes, one by one, the statements that the failure does not need."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from .messages import MESSAGES
from .script import Program, Start, Step


def reduce(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Remove and simplify parts for as long as the program still fails, and return the result."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(program):
            if fails(candidate):
                program, smaller = candidate, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    for name in ("steps", "definitions"):
        steps = getattr(program, name)
        for i in range(len(steps)):
            yield replace(program, **{name: steps[:i] + steps[i + 1 :]})
        for i, step in enumerate(steps if name == "steps" else ()):
            for simpler in _simpler(step):
                yield replace(program, steps=steps[:i] + (simpler,) + steps[i + 1 :])
    start = program.start
    for simpler in (
        replace(start, epochs=start.epochs - 1), replace(start, dtype=Start.dtype), replace(start, coarse=False),
    ):  # fmt: skip
        if simpler != start and simpler.epochs:
            yield replace(program, start=simpler)
    for i, step in enumerate(program.definitions):
        for text in _shorter(step.text):
            changed = Step(text, kinds_of_layer(text) or step.kinds)
            yield replace(program, definitions=program.definitions[:i] + (changed,) + program.definitions[i + 1 :])


_REWRITES = ((".data", ""), (".detach()", ""), (".tanh()", ""), ("h = h + ", "h = "), ("h += ", "h = "), (" c)", " w)"))
_CALL = re.compile(r"h = (\w+)\(h, e(?:, w)?\)")


def _simpler(step: Step) -> Iterator[Step]:
    """Yield simpler forms of a step, down to a plain call of its layer if the text has that form."""
    for before, after in _REWRITES:
        if before in step.text:
            text = step.text.replace(before, after)
            call = _CALL.fullmatch(text)
            yield Step(text, ("call", call[1]) if call else step.kinds)


def _shorter(definition: str) -> Iterator[str]:
    """Yield the definition of a layer without one of its statements, for each statement."""
    name, _, call = definition.partition(" = ")
    arguments = [argument.value for argument in ast.parse(call, mode="eval").body.args]
    for i in range(1, len(arguments)):
        kept = ", ".join(quoted(argument) for argument in arguments[:i] + arguments[i + 1 :])
        keywords = ast.parse(call, mode="eval").body.keywords
        yield f"{name} = layer({kept}{''.join(f', {k.arg}={k.value.value!r}' for k in keywords)})"


def quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text else repr(text)


def kinds_of_layer(definition: str) -> tuple[str, ...]:
    """Return the kinds of the statements in a layer's definition."""
    arguments = [a.value for a in ast.parse(definition.partition(" = ")[2], mode="eval").body.args]
    return tuple(kind for kind, texts in MESSAGES.items() if set(arguments) & set(texts))
