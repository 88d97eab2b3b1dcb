"""A program: a list of Python statements, each tagged with the kinds that it belongs to. Its repr() is a script that
`python -m programs FILE` runs again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One statement, on one line, and the kinds that it belongs to."""

    text: str
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """Initial conditions of a run.

    Attributes:
        framework: "pyg" or "dgl". It decides which names a program may use.
        dtype: dtype of all features and weights.
        epochs: how often the steps run. Definitions run once. Each epoch begins with `h = x * 1`.
        coarse: whether initial features are multiples of 1/2, so that ties occur in max and min.
    """

    framework: str = "pyg"
    dtype: str = "float64"
    epochs: int = 1
    coarse: bool = False


@dataclass(frozen=True)
class Program:
    start: Start
    definitions: tuple[Step, ...]
    steps: tuple[Step, ...]

    @property
    def kinds(self) -> set[str]:
        return {kind for step in self.definitions + self.steps for kind in step.kinds}

    def __repr__(self) -> str:
        lines = [(repr(self.start), "start")]
        lines += [(step.text, ", ".join(("define", *step.kinds))) for step in self.definitions]
        lines += [(step.text, ", ".join(step.kinds)) for step in self.steps]
        return "\n" + "\n".join(f"{text}  # {kinds}" for text, kinds in lines) + "\n"


def parse(script: str) -> Program:
    """Parse the output of repr(program).

    Raises:
        ValueError: the script has no line `Start(...)`.
    """
    start, definitions, steps = None, [], []
    for line in filter(None, map(str.strip, script.splitlines())):
        text, _, comment = line.rpartition("  # ")
        text, kinds = (text, tuple(comment.split(", "))) if text else (line, ())
        if text.startswith("Start("):
            start = eval(text, {"Start": Start})
        elif kinds[:1] == ("define",):
            definitions.append(Step(text, kinds[1:]))
        else:
            steps.append(Step(text, kinds))
    if start is None:
        raise ValueError("the script has no line `Start(...)`; give the listing as the test printed it")
    return Program(start, tuple(definitions), tuple(steps))
