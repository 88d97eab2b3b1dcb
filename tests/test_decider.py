"""The decider is one pure function: the same facts give the same configuration, and every choice can be explained."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

from gnna_plugin import decider

H200 = (True, 132, 60 << 20)  # CUDA, multiprocessors, bytes of L2


@pytest.fixture
def on_h200(monkeypatch):
    monkeypatch.setattr(decider, "device_facts", lambda device: H200)


# (rows, edges, max degree, width) -> (dw, groups, vector width, vectors): the winners of the width's regime on an H200
TABLE = [
    (317_080, 2_099_732, 343, 16, (4, 1, 4, 1)),
    (317_080, 2_099_732, 343, 64, (8, 1, 4, 2)),
    (317_080, 2_099_732, 343, 128, (16, 1, 4, 2)),
    (317_080, 2_099_732, 343, 256, (32, 1, 4, 2)),
    (63_731, 1_634_180, 1_098, 16, (4, 2, 4, 1)),
    (63_731, 1_634_180, 1_098, 64, (8, 2, 4, 2)),
    (10_312, 667_966, 3_992, 64, (8, 4, 4, 2)),
    (2_708, 10_556, 168, 16, (4, 8, 4, 1)),
    (317_080, 2_099_732, 343, 22, None),
]


@pytest.mark.parametrize(("rows", "edges", "longest", "width", "expected"), TABLE)
def test_table_of_facts(on_h200, rows, edges, longest, width, expected):
    config = decider.decide(rows, rows, edges, longest, width, device=torch.device("cuda"))
    if expected is None:
        assert config.vector_width == 1  # 22 floats are not whole vectors of 16 bytes
    else:
        assert (config.dw, config.groups, config.vector_width, config.vectors) == expected
    assert f"width {width}" in config.reason and "average degree" in config.reason


def test_pure_whatever_was_asked_before(on_h200):
    cases = [(rows, edges, longest, width) for rows, edges, longest, width, _ in TABLE]
    first = [decider.decide(r, r, e, d, w, device=torch.device("cuda")) for r, e, d, w in cases]
    order = list(range(len(cases)))
    random.Random(0).shuffle(order)
    for i in order:
        r, e, d, w = cases[i]
        assert decider.decide(r, r, e, d, w, device=torch.device("cuda")) == first[i]


def test_any_facts_give_a_launchable_configuration(on_h200):
    draw = random.Random(1)
    for _ in range(3000):
        rows, edges = draw.choice([0, 1, 7, 1000, 10**6]), draw.choice([0, 1, 50, 10**5, 10**8])
        width, itemsize = draw.randint(1, 700), draw.choice([4, 8])
        heads = draw.choice([h for h in (1, 2, 4, 8, width) if width % h == 0])
        c = decider.decide(
            rows, max(rows, 1), edges, min(edges, 10**5), width, head_dim=width // heads, itemsize=itemsize,
            weighted=draw.random() < 0.5, aligned=draw.random() < 0.8, device=torch.device("cuda"),
        )  # fmt: skip
        assert c.dw * c.groups <= 32 and 1 <= c.warps_per_block <= 16 and c.vectors in (1, 2, 4)
        assert c.vector_width in (1, 16 // itemsize) and c.long_row >= 32 and c.item_edges >= 1
        if c.vector_width > 1:
            assert width % c.vector_width == 0


def test_weights_of_narrow_heads_forbid_vectors(on_h200):
    """All elements of one load share a weight."""
    facts = dict(rows=10**5, cols=10**5, edges=10**6, max_degree=50, width=64, device=torch.device("cuda"))
    assert decider.decide(**facts, head_dim=2, weighted=True).vector_width == 1
    assert decider.decide(**facts, head_dim=2, weighted=False).vector_width == 4
    assert decider.decide(**facts, head_dim=8, weighted=True).vector_width == 4


def test_a_configuration_is_a_value():
    a, b = (decider.decide(100, 100, 500, 9, 16) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a.as_dict()["reason"] == a.reason
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.dw = 4


def test_cpu_names_its_instructions_and_threads():
    config = decider.decide(100, 100, 500, 9, 16)
    assert config.kernel == f"rows-{torch.ops.gnna.instruction_set()}"
    assert "thread" in config.reason and config.dw is None and "dw" not in config.as_dict()
