"""Soundness: whatever little program a user writes, it does the same with the plug-in on."""

from __future__ import annotations

import importlib.util
import os

import pytest
from hypothesis import HealthCheck, given, note, settings

pytest.importorskip("torch_geometric")

from programs.compare import differences
from programs.interpreter import run_accelerated, run_plain
from programs.strategies import FAMILIES, programs

# Programs per family: about a minute for all of them on two cores. GNNA_PROGRAMS=N asks for others.
DEFAULT_EXAMPLES = {"messages": 300, "layers": 500, "dgl": 500}
ASKED = os.environ.get("GNNA_PROGRAMS")
CASES = [
    pytest.param(
        family,
        marks=[
            pytest.mark.dgl,
            pytest.mark.skipif(importlib.util.find_spec("dgl") is None, reason="needs DGL"),
        ]
        if family == "dgl"
        else [],
    )
    for family in FAMILIES
]


def _settings(examples: int) -> settings:
    """The same programs each time, unless others are asked for. Slow runs of a busy machine are no failures."""
    return settings(
        max_examples=examples, derandomize=ASKED is None, database=None, deadline=None,
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip


@pytest.mark.parametrize("family", CASES)
def test_programs_do_the_same_with_the_plug_in(family):
    @_settings(int(ASKED or DEFAULT_EXAMPLES[family]))
    @given(programs(family))
    def check(program):
        found = differences(program, run_plain(program), run_accelerated(program))
        note("\n".join(found))
        assert not found, repr(program)

    check()


@pytest.mark.parametrize("family", CASES)
def test_programs_do_the_same_twice(family):
    """What differs between two plain runs is a fault of the programs or of their comparison, and so is a wrong name."""

    @_settings(40)
    @given(programs(family))
    def check(program):
        plain = run_plain(program)
        assert not differences(program, plain, run_plain(program)), repr(program)
        assert plain.error is None or not isinstance(plain.error[1], (NameError, SyntaxError)), repr(program)

    check()
