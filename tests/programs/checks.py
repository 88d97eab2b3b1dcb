"""Runs a program in both ways and compares the runs, and searches for a program that fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Flaky

from .compare import differences
from .interpreter import run_accelerated, run_plain
from .reduction import reduce
from .script import Program
from .strategies import layers_of, programs

# Kinds that nearly every program contains, so that they do not hint at the cause of a failure.
ORDINARY = {"call", "backward", "restart", "product"}


@dataclass
class Found:
    """Result of a search.

    Attributes:
        program: the smallest failing program, or None.
        differences: how it fails.
        examples: programs that ran until the first one failed.
    """

    program: Program | None
    differences: list[str]
    examples: int


def differences_of(program: Program) -> list[str]:
    return differences(program, run_plain(program), run_accelerated(program))


def suspects(program: Program) -> set[str]:
    """Return the kinds that may cause a failure. If there are none, return the program's layers and reducers."""
    layers = {name for step in program.steps for name in layers_of(step.text)}
    return program.kinds - ORDINARY - layers or layers - {"conv"}


def _fails(program: Program) -> bool:
    """Return whether one of three runs fails. A failure that needs a reused address does not occur in every run."""
    return any(differences_of(program) for _ in range(3))


def find(family: str, without: Collection[str], examples: int, start: int, seconds: float = 1e9) -> Found:
    """Search for a failing program and shrink it.

    Args:
        family: one of strategies.FAMILIES.
        without: kinds and statements to exclude.
        examples: most programs to try.
        start: seed of the search.
        seconds: time after which the search gives up.
    """
    found, end = Found(None, [], 0), time.monotonic() + seconds

    @seed(start)
    @settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False, phases=(Phase.generate,), print_blob=False,
    )  # fmt: skip
    @given(programs(family, without))
    def search(program: Program) -> None:
        if time.monotonic() > end:
            return
        found.examples += found.program is None
        different = differences_of(program)
        if different:
            found.program, found.differences = found.program or program, found.differences or different
            raise AssertionError

    with contextlib.suppress(AssertionError, Flaky):
        search()
    if found.program is not None:
        found.program = reduce(found.program, _fails)
        found.differences = differences_of(found.program) or found.differences
    return found
