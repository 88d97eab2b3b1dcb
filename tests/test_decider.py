"""The decider is one pure function: the same facts give the same configuration, and every choice can be explained."""

from __future__ import annotations

import dataclasses
import random

import pytest
import torch

import gnna_plugin
from gnna_plugin import decider, settings

H200 = (True, 132, 60 << 20, 4_917_000_000_000)  # CUDA, multiprocessors, bytes of L2, of memory a second
H100 = (True, 132, 50 << 20, 3_352_000_000_000)


@pytest.fixture
def on_h200(monkeypatch):
    monkeypatch.setattr(decider, "device_facts", lambda device: H200)


# (rows, edges, max degree) of com-dblp, facebook-links, BlogCatalog3, cora, DD, PROTEINS, musae-github, pubmed,
# PP-Pathways, and about those of NCI-HIV-H
DBLP, FACEBOOK, BLOG, CORA = (
    (317_080, 2_099_732, 343), (63_731, 1_634_180, 1_098), (10_312, 667_966, 3_992), (2_708, 10_556, 168)
)  # fmt: skip
DD, PROTEINS, GITHUB, PUBMED, PATHWAYS, NCI = (
    (334_925, 1_686_092, 19), (43_471, 162_088, 25), (37_700, 578_006, 9_458), (19_717, 88_651, 171),
    (21_557, 680_989, 2_131), (1_890_931, 3_946_402, 11),
)  # fmt: skip

# graph, width -> (dw, groups, vector width, vectors): the winners of the width's regime on an H200
TABLE = [
    (DBLP, 16, (4, 1, 4, 1)),
    (DBLP, 32, (8, 1, 4, 1)),
    (DBLP, 64, (8, 1, 4, 2)),
    (DBLP, 128, (8, 1, 4, 4)),
    (DBLP, 256, (16, 1, 4, 4)),
    (FACEBOOK, 16, (4, 2, 4, 1)),
    (FACEBOOK, 32, (8, 1, 4, 1)),
    (FACEBOOK, 64, (16, 1, 4, 1)),
    (FACEBOOK, 256, (32, 1, 4, 1)),
    (BLOG, 64, (16, 2, 4, 1)),
    (BLOG, 256, (32, 1, 4, 1)),
    (CORA, 16, (4, 8, 4, 1)),
    (CORA, 64, (16, 2, 4, 1)),
    (CORA, 128, (32, 1, 4, 1)),
    (DD, 16, (4, 1, 4, 1)),
    (DD, 64, (4, 1, 4, 4)),
    (DD, 128, (8, 1, 4, 4)),
    (PROTEINS, 16, (4, 1, 4, 1)),
    (PROTEINS, 64, (16, 1, 4, 1)),
    (PROTEINS, 128, (8, 1, 4, 4)),
    (GITHUB, 128, (32, 1, 4, 1)),
    (PUBMED, 128, (32, 1, 4, 1)),
    (PATHWAYS, 32, (8, 2, 4, 1)),
    (PATHWAYS, 64, (16, 2, 4, 1)),
    (NCI, 16, (2, 1, 4, 2)),
    (NCI, 32, (2, 1, 4, 4)),
    (DBLP, 96, (8, 1, 4, 4)),
    (DBLP, 24, (8, 1, 4, 1)),
    (DBLP, 48, (8, 1, 4, 2)),
    (FACEBOOK, 48, (16, 1, 4, 1)),
    (FACEBOOK, 96, (16, 1, 4, 2)),
    (DD, 24, (4, 1, 4, 2)),
    (CORA, 22, None),
]


@pytest.mark.parametrize(("graph", "width", "expected"), TABLE)
def test_table_of_facts(on_h200, graph, width, expected):
    rows, edges, longest = graph
    config = decider.decide(rows, rows, edges, longest, width, device=torch.device("cuda"))
    if expected is None:
        assert config.vector_width == 1  # 22 floats are not whole loads, and the graph is too small to copy x
    else:
        assert (config.dw, config.groups, config.vector_width, config.vectors) == expected
    assert f"width {width}" in config.reason and "average degree" in config.reason


# graph, width, bytes per element, heads of the weight or 0 -> (dw, vectors): where weights and 16 bits want others
@pytest.mark.parametrize(
    ("graph", "width", "itemsize", "heads", "expected"),
    [
        (DBLP, 64, 4, 1, (8, 2)),
        (DBLP, 128, 4, 1, (8, 4)),
        (DD, 64, 4, 1, (4, 4)),
        (FACEBOOK, 128, 4, 1, (16, 2)),
        (DBLP, 32, 4, 4, (4, 2)),
        (DBLP, 64, 4, 4, (8, 2)),
        (FACEBOOK, 64, 4, 4, (8, 2)),
        (FACEBOOK, 256, 4, 1, (32, 2)),
        (FACEBOOK, 256, 4, 4, (32, 2)),
        (PUBMED, 64, 4, 4, (16, 1)),
        (PUBMED, 128, 4, 1, (16, 2)),
        (PUBMED, 256, 4, 4, (32, 2)),
        (DBLP, 64, 2, 0, (8, 1)),
        (DBLP, 64, 2, 1, (4, 2)),
        (DBLP, 128, 2, 0, (8, 2)),
        (FACEBOOK, 128, 2, 0, (16, 1)),
        (FACEBOOK, 128, 2, 1, (16, 1)),
        (DD, 64, 2, 0, (4, 2)),
        (NCI, 64, 2, 0, (2, 4)),
        (DBLP, 512, 2, 0, (32, 2)),
        (CORA, 64, 2, 0, (8, 1)),
        (DBLP, 128, 8, 0, (32, 1)),
    ],
)
def test_loads_of_a_lane(on_h200, graph, width, itemsize, heads, expected):
    rows, edges, longest = graph
    config = decider.decide(
        rows, rows, edges, longest, width, itemsize=itemsize, weighted=heads > 0, head_dim=width // max(heads, 1),
        device=torch.device("cuda"),
    )  # fmt: skip
    assert (config.dw, config.vectors) == expected


# facts of the device, graph, width, more facts -> bytes of a column tile, or 0
@pytest.mark.parametrize(
    ("device", "graph", "width", "facts", "expected"),
    [
        (H100, DBLP, 256, {}, 256),
        (H100, DBLP, 64, {}, 0),  # no wider than a tile
        (H100, DBLP, 256, {"weighted": True}, 512),
        (H100, DBLP, 512, {"itemsize": 2}, 256),
        (H100, FACEBOOK, 128, {}, 0),  # inside L2
        (H100, DD, 256, {}, 0),  # rows of one length
        (H200, DBLP, 256, {}, 0),
        ((*H100[:3], 0), DBLP, 256, {}, 0),  # a bandwidth that is not known
    ],
)
def test_slow_memory_wants_column_tiles(monkeypatch, device, graph, width, facts, expected):
    monkeypatch.setattr(decider, "device_facts", lambda _: device)
    rows, edges, longest = graph
    config = decider.decide(rows, rows, edges, longest, width, device=torch.device("cuda"), **facts)
    tile = config.dw * config.vectors * config.vector_width * facts.get("itemsize", 4)
    assert (tile if tile < width * facts.get("itemsize", 4) else 0) == expected
    assert ("miss the L2 cache of 50 MiB less often" in config.reason) == (expected > 0)


@pytest.mark.parametrize(
    ("graph", "width", "facts", "warps", "size"),
    [
        (CORA, 64, {}, 8, "tiny"),
        (PUBMED, 64, {}, 4, "small"),
        (PUBMED, 16, {}, 2, None),  # 16 groups in a block of 64 threads
        (GITHUB, 64, {}, 4, "small"),
        (GITHUB, 64, {"weighted": True}, 2, None),
        (GITHUB, 128, {"itemsize": 2}, 2, None),
        (FACEBOOK, 64, {}, 2, None),
    ],
)
def test_blocks_grow_as_graphs_shrink(on_h200, graph, width, facts, warps, size):
    rows, edges, longest = graph
    config = decider.decide(rows, rows, edges, longest, width, device=torch.device("cuda"), **facts)
    assert config.warps_per_block == warps
    assert ("because the graph is" in config.reason) == (size is not None) and (size or "") in config.reason


# graph, width, more facts -> (vector width, what the reason says)
@pytest.mark.parametrize(
    ("graph", "width", "facts", "expected", "said"),
    [
        (DBLP, 41, {}, 4, "copied into rows of 44"),
        (DBLP, 22, {}, 4, "copied into rows of 24"),
        (DBLP, 64, {"aligned": False}, 4, "copied into rows of 64"),
        (DBLP, 47, {"itemsize": 2, "weighted": True}, 8, "copied into rows of 48"),
        (DBLP, 7, {}, 1, "not a multiple of 4"),
        (CORA, 41, {}, 1, "not a multiple of 4"),
        (DBLP, 56, {"weighted": True, "head_dim": 7}, 1, "with heads of 7"),
        (DBLP, 47, {"itemsize": 8}, 1, "not a multiple of 2"),
        (DBLP, 47, {"config": {"vector_width": 1}}, 1, "as set by hand"),
    ],
)
def test_rows_of_whole_loads(on_h200, graph, width, facts, expected, said):
    rows, edges, longest = graph
    config = decider.decide(rows, rows, edges, longest, width, device=torch.device("cuda"), **facts)
    assert config.vector_width == expected and said in config.reason and ("copied" in config.reason) == (expected > 1)


def test_many_loads_are_said(on_h200):
    cuda, said = torch.device("cuda"), "for short rows, of which there are many"
    assert said in decider.decide(DBLP[0], *DBLP, 64, device=cuda).reason
    assert said not in decider.decide(FACEBOOK[0], *FACEBOOK, 64, device=cuda).reason


def test_pure_whatever_was_asked_before(on_h200):
    cases = [(*graph, width) for graph, width, _ in TABLE]
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
        assert c.vector_width in (1, 16 // itemsize) and c.long_row >= 16 and c.item_edges >= 1
        if c.vector_width > 1:
            assert width % c.vector_width == 0 or "copied into rows" in c.reason


def test_weights_of_narrow_heads_forbid_vectors(on_h200):
    """All elements of one load share a weight."""
    facts = dict(rows=10**5, cols=10**5, edges=10**6, max_degree=50, width=64, device=torch.device("cuda"))
    assert decider.decide(**facts, head_dim=2, weighted=True).vector_width == 1
    assert decider.decide(**facts, head_dim=2, weighted=False).vector_width == 4
    assert decider.decide(**facts, head_dim=8, weighted=True).vector_width == 4


FACTS = dict(rows=10**5, cols=10**5, edges=10**6, max_degree=900, device=torch.device("cuda"))


def test_the_papers_parameters_set_by_hand(on_h200):
    """ngs asks for the neighbour-group kernel; a row has at most one group for each team of a block, or is cut."""
    c = decider.decide(**FACTS, width=64, config={"ngs": 16, "dw": 16, "warps_per_block": 4})
    assert (c.kernel, c.ngs, c.dw, c.warps_per_block) == ("groups", 16, 16, 4)
    assert c.groups is None and c.long_row == c.item_edges == 16 * (4 * 32 // 16)
    assert c.dw * c.vectors * c.vector_width >= 64  # the rest was chosen for it
    assert "set by hand: kernel, dw, ngs, warps_per_block" in c.reason and c.runner_up.startswith("the row kernel")


@pytest.mark.parametrize("name", [n for n in decider.PARAMETERS if n != "ngs"])
def test_every_parameter_of_the_row_kernel_can_be_set(on_h200, name):
    value = {"dw": 2, "groups": 4, "vector_width": 1, "vectors": 1, "warps_per_block": 8}.get(name, 77)
    chosen, free = (decider.decide(**FACTS, width=64, config=c) for c in ({name: value}, None))
    assert chosen.kernel == "rows" and getattr(chosen, name) == value != getattr(free, name)
    assert f"set by hand: {name}" in chosen.reason and free.runner_up.startswith("the neighbour-group kernel")


def test_a_whole_configuration_can_be_set_again(on_h200):
    for config in (None, {"kernel": "groups"}):
        once = decider.decide(**FACTS, width=100, config=config)
        again = decider.decide(**FACTS, width=100, config=once)
        assert again.as_dict() | {"reason": ""} == once.as_dict() | {"reason": ""}


def test_what_is_set_by_hand_still_fits_a_launch(on_h200):
    """Two groups a row for 32 lanes, or 16 warps of wide tiles, cannot be; the nearest that can is taken, and said."""
    c = decider.decide(**FACTS, width=256, config={"dw": 32, "groups": 32})
    assert (c.dw, c.groups) == (32, 1)
    c = decider.decide(**FACTS, width=64, config={"kernel": "rows", "warps_per_block": 16})
    assert c.warps_per_block == 8 and "warps_per_block, which the row kernel takes up to 8" in c.reason
    c = decider.decide(**FACTS, width=512, itemsize=2, config={"kernel": "groups", "vectors": 2, "warps_per_block": 16})
    assert 2 * c.vectors * c.vector_width * 4 * 32 * c.warps_per_block <= 48 << 10 and "48 KiB" in c.reason
    c = decider.decide(**FACTS, width=64, config={"ngs": 4, "long_row": 10**6})
    assert c.long_row <= 4 * (32 * c.warps_per_block // c.dw)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"ngs": 0}, "ngs to 0; accepted are 1 to"),
        ({"dw": 24}, "dw to 24; accepted are 1, 2, 4, 8, 16, 32"),
        ({"warps_per_block": 3}, "warps_per_block to 3"),
        ({"ngs": True}, "ngs to True"),
        ({"tile": 1}, "'tile'; accepted are kernel, dw"),
        ({"kernel": "edges"}, "kernel to 'edges'; accepted are 'rows', 'groups'"),
        ({"kernel": "rows", "ngs": 4}, "it is a parameter of kernel 'groups'"),
        ({"ngs": 4, "groups": 2}, "it is a parameter of kernel 'rows'"),
    ],
)
def test_a_wrong_parameter_is_named(config, words):
    with pytest.raises(ValueError, match=words):
        gnna_plugin.enable(config=config)
    assert settings.current.config is None


def test_enable_fixes_parameters_for_launches_and_reports(caplog):
    with gnna_plugin.enabled(config={"ngs": 8}):
        assert settings.current.config == {"ngs": 8}
        gnna_plugin.spmm(torch.ones(9, 4), torch.randint(0, 9, (2, 40)))
    assert settings.current.config is None
    if not torch.cuda.is_available():
        assert "there is no CUDA device" in caplog.text
        assert "parameters of CUDA launches" in decider.decide(9, 9, 40, 9, 4, config={"ngs": 8}).reason


def test_parameters_of_a_command_line():
    assert decider.parse_config("ngs=32, dw=16,kernel=groups") == {"ngs": 32, "dw": 16, "kernel": "groups"}
    for text, words in (("ngs", "'ngs' is not of the form"), ("dw=7", "dw to 7"), ("", "is not of the form")):
        with pytest.raises(ValueError, match=words):
            decider.parse_config(text)


def test_a_configuration_is_a_value():
    a, b = (decider.decide(100, 100, 500, 9, 16) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a.as_dict()["reason"] == a.reason
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.dw = 4


def test_cpu_names_its_instructions_and_threads():
    config = decider.decide(100, 100, 500, 9, 16)
    assert config.kernel == f"rows-{torch.ops.gnna.instruction_set()}"
    assert "thread" in config.reason and config.dw is None and "dw" not in config.as_dict()
