"""Soundness: small random programs behave the same with the plug-in on (tests/programs)."""

from __future__ import annotations

import importlib.util
import os

import pytest
from hypothesis import HealthCheck, given, note, settings

pytest.importorskip("torch_geometric")

from programs.compare import differences
from programs.interpreter import run_accelerated, run_plain
from programs.strategies import FAMILIES, programs

# Programs per family. Together they take about a minute on two cores. GNNA_PROGRAMS=N runs N other programs per family.
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
    """Draw the same programs each time, unless GNNA_PROGRAMS is set. A slow run is not a failure."""
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
def test_two_plain_runs_of_a_program_do_not_differ(family):
    """If two plain runs differ, or a name is undefined, the programs or the comparison are wrong."""

    @_settings(40)
    @given(programs(family))
    def check(program):
        plain = run_plain(program)
        assert not differences(program, plain, run_plain(program)), repr(program)
        assert plain.error is None or not isinstance(plain.error[1], (NameError, SyntaxError)), repr(program)

    check()
