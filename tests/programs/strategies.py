"""Draws random programs. Each uses a small selection of kinds and layers, so that these interact with each other."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence

from hypothesis import strategies as st

from . import dgl_steps, pyg_steps
from .messages import AGGREGATIONS, MESSAGES, RAW_WRITES_COME_FIRST
from .reduction import quoted
from .script import Program, Start, Step

_LAYERS = re.compile(rf"(?<!dgl\.)\b({'|'.join(pyg_steps.LAYERS + dgl_steps.LAYERS)})\(")
_REDUCERS = re.compile(rf"(?:fn\.|_[ue]_)({'|'.join(dgl_steps.REDUCERS)})\(")
FAMILIES = ("messages", "layers", "dgl")
_FIELD = re.compile(r"\{(call|slice)(?::((?:[^{}]|\{\w+\})*))?\}")


def kinds_without() -> frozenset[str]:
    """Return the kinds that are excluded by default or by GNNA_PROGRAMS_WITHOUT."""
    return frozenset(pyg_steps.NOT_BY_DEFAULT) | frozenset(
        filter(None, os.environ.get("GNNA_PROGRAMS_WITHOUT", "").split(","))
    )


def other_kinds(kinds: Collection[str]) -> set[str]:
    """Return the kinds to exclude so that only these and the ordinary ones are drawn."""
    return {*pyg_steps.STEPS, *dgl_steps.STEPS, *MESSAGES} - {*kinds, "product"}


@st.composite
def programs(draw: st.DrawFn, family: str, without: Collection[str] | None = None) -> Program:
    """Draw a program.

    Args:
        family: "messages" for user-written layers of PyG, "layers" for PyG's own, or "dgl".
        without: kinds and exact statements to exclude; default: kinds_without().
    """
    without = kinds_without() if without is None else frozenset(without)
    draws = _Draws(draw, family, without)
    start = Start(
        "dgl" if family == "dgl" else "pyg",
        draw(st.sampled_from(("float64", "float32"))),
        draw(st.integers(1, 3)),
        draw(st.booleans()),
    )
    definitions = draws.definitions()
    chosen = (
        draw(st.lists(st.sampled_from(draws.step_kinds), min_size=1, max_size=4, unique=True))
        if draws.step_kinds
        else []
    )
    definitions += [
        Step(pyg_steps.NEEDED[kind], ("product",)) for kind in chosen if family != "dgl" and kind in pyg_steps.NEEDED
    ]
    # Calls and backward passes are as likely as all other kinds together.
    palette = ["call"] * max(1, len(chosen)) + [*chosen] + ["backward"] * max(1, len(chosen) // 2) + ["restart"]
    kinds = draw(st.lists(st.sampled_from(palette), min_size=1, max_size=8))
    return Program(start, tuple(definitions), tuple(draws.step(kind) for kind in kinds))


class _Draws:
    """The choices for one program: the layers that it calls, and the statements of each kind."""

    def __init__(self, draw: st.DrawFn, family: str, without: frozenset[str]) -> None:
        self.draw, self.family, self.without = draw, family, without
        steps = dgl_steps.STEPS if family == "dgl" else pyg_steps.STEPS
        if family == "messages":
            steps = {kind: steps[kind] for kind in pyg_steps.BESIDE_MESSAGES}
        self.table = _allowed(pyg_steps.COMMON | steps, without)
        self.step_kinds = sorted(set(steps) & set(self.table))
        calls = dgl_steps.CALLS if family == "dgl" else pyg_steps.CALLS
        if family == "layers":
            calls = calls[1:]
        calls = tuple(call for call in calls if not without & set(layers_of(call)))
        common = tuple(call for call in calls if call in pyg_steps.COMMON_CALLS) * 3
        self.calls = draw(st.lists(st.sampled_from(calls + common), min_size=1, max_size=2, unique=True))
        self.reducers = [name for name in dgl_steps.REDUCERS if name not in without]
        if family == "messages":
            self.calls = [pyg_steps.CALLS[0], *self.calls[:1]]

    def pick(self, choices: Sequence[str]) -> str:
        return self.draw(st.sampled_from(choices))

    def definitions(self) -> list[Step]:
        """Draw the definition of `conv`, if the program calls it."""
        if not any(call.startswith("conv(") for call in self.calls):
            return []
        table = _allowed(MESSAGES, self.without)
        palette = (
            self.draw(st.lists(st.sampled_from(sorted(table)), min_size=1, max_size=4, unique=True)) if table else []
        )
        kinds = self.draw(st.lists(st.sampled_from(palette), max_size=5)) if table else []
        kinds.sort(key=lambda kind: kind != RAW_WRITES_COME_FIRST)
        body = [self.pick(table[kind]) for kind in kinds]
        arguments = ", ".join(map(quoted, (self.pick(AGGREGATIONS), *body)))
        return [Step(f"conv = layer({arguments})", tuple(dict.fromkeys(kinds)))]

    def step(self, kind: str) -> Step:
        text = self.pick(self.table[kind])
        text = _FIELD.sub(lambda field: self.call(field[1], field[2]), text)
        for name, choices in (
            ("k", "123456"), ("t", ("10", "20", "15")), ("w", ("w", "c")), ("reduce", self.reducers),
            ("layer", [name for call in self.calls for name in layers_of(call)]),
        ):  # fmt: skip
            while "{" + name + "}" in text:
                value = self.pick(choices)
                text = (
                    text.replace("{" + name + "}", value)
                    if name == "layer"
                    else text.replace("{" + name + "}", value, 1)
                )
        return Step(text.replace("{{", "{").replace("}}", "}"), (kind, *layers_of(text)))

    def call(self, field: str, operand: str | None) -> str:
        """Draw the call of a layer, with `operand` in place of its weights (w or c) or else of its edges."""
        calls = [call for call in self.calls if "{w}" not in call] if field == "slice" else self.calls
        call = self.pick(calls or ["sage(h, {e})"])
        if operand and operand[0] in "wc":
            call = call if "{w}" in call else "graph(h, {e}, {w})"
            return call.replace("{w}", operand).replace("{e}", "e")
        return call.replace("{e}", operand or "e")


def layers_of(text: str) -> list[str]:
    """Return the layers and reducers that a statement names. These also count as kinds."""
    return sorted({*_LAYERS.findall(text), *_REDUCERS.findall(text)})


def _allowed(table: dict[str, tuple[str, ...]], without: frozenset[str]) -> dict[str, tuple[str, ...]]:
    kept = {kind: tuple(t for t in texts if t not in without) for kind, texts in table.items() if kind not in without}
    return {kind: texts for kind, texts in kept.items() if texts}
