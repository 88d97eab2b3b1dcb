"""The decider is a pure function: its decisions are those on file, fit the kernels, and follow the facts."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
import torch
from golden_decisions import DEVICES, FILE, decisions, facts_of

import gnna_plugin
from gnna_plugin import decider, settings
from gnna_plugin.decider import Facts

H100, H200 = DEVICES["H100"], DEVICES["H200"]
CUDA = torch.device("cuda")
FACTS = Facts(rows=10**5, cols=10**5, edges=10**6, max_degree=900, width=64, head_dim=64)


@pytest.fixture
def on_h100(monkeypatch):
    monkeypatch.setattr(decider, "device_facts", lambda device: H100)


def parameters(facts, device, config=None):
    return decider.decide_on(device, facts, config).parameters()


def draw_facts(draw: random.Random) -> Facts:
    rows, edges = draw.choice([0, 1, 7, 1000, 10**6]), draw.choice([0, 1, 50, 10**5, 10**8])
    width = draw.randint(1, 700)
    heads = draw.choice([h for h in (1, 2, 4, 8, width) if width % h == 0])
    return Facts(
        rows, max(rows, 1), edges, min(edges, 10**5), width, width // heads, draw.choice([2, 4, 8]),
        draw.random() < 0.5, draw.choice(decider.REDUCES), draw.random() < 0.8,
    )  # fmt: skip


def test_decisions_are_those_on_file():
    """After an intended change of the rules: python tests/golden_decisions.py, and read the diff."""
    assert decisions() == json.loads(FILE.read_text(encoding="utf-8"))


def test_decisions_do_not_depend_on_earlier_ones():
    draw = random.Random(0)
    cases = [draw_facts(draw) for _ in range(200)]
    first = [parameters(facts, H100) for facts in cases]
    order = list(range(len(cases)))
    draw.shuffle(order)
    assert all(parameters(cases[i], H100) == first[i] for i in order)


@pytest.mark.parametrize("config", [None, {"kernel": "group"}, {"lanes": 32}, {"vectors": 4}, {"block": 512}])
def test_any_facts_give_a_configuration_that_the_kernels_take(config):
    draw = random.Random(1)
    for _ in range(1000):
        facts = draw_facts(draw)
        c = parameters(facts, draw.choice([H100, H200]), config)
        compute = max(facts.itemsize, 4)  # 16-bit features are summed in float
        tile = c["lanes"] * c["vectors"] * c["vector_width"] * compute
        assert c["lanes"] in (1, 2, 4, 8, 16, 32) and c["vectors"] in (1, 2, 4)
        assert c["vector_width"] in (1, 16 // facts.itemsize)
        assert c["split_above"] >= 1 and c["chunk_edges"] >= 1
        if c["kernel"] == "row":
            assert c["lanes"] * c["groups"] <= 32 and 32 <= c["block"] <= 256
        else:
            assert c["vectors"] <= 2 and 32 <= c["block"] <= 512
            assert tile * 2 * (c["block"] // c["lanes"]) <= 48 << 10
            assert c["split_above"] <= c["group_size"] * (c["block"] // c["lanes"])


def test_loads_of_16_bytes_never_straddle_weights_or_rows():
    draw = random.Random(2)
    for _ in range(1000):
        facts = draw_facts(draw)
        loaded = parameters(facts, H100)["vector_width"]
        if loaded == 1:
            continue
        if facts.weighted and facts.head_dim < facts.width:
            assert facts.head_dim % loaded == 0
        if not facts.aligned or facts.width % loaded:  # x is copied: worth it only for graphs with edges to gather
            assert facts.edges > facts.cols


def test_more_edges_per_row_never_mean_fewer_groups():
    for width in (16, 64, 256):
        groups = [
            parameters(Facts(500_000, 500_000, 500_000 * d, 10**5, width, width), H100)["groups"]
            for d in (1, 5, 15, 30, 60, 100, 300)
        ]
        assert groups == sorted(groups)


def test_smaller_graphs_never_mean_smaller_blocks():
    blocks = [parameters(Facts(n, n, 8 * n, 500, 64, 64), H100)["block"] for n in (10**6, 80_000, 9_000, 1_000)]
    assert blocks == sorted(blocks)


def test_rows_far_above_the_average_are_split_and_average_ones_are_not():
    for graph in ("pubmed", "com-dblp", "reddit"):
        facts = facts_of(graph, 64, {})
        c = parameters(facts, H100)
        assert facts.edges / facts.rows < c["split_above"] < facts.max_degree


def test_wide_features_beyond_l2_are_gathered_in_tiles():
    def tile(facts):
        c = parameters(facts, H100)
        return c["lanes"] * c["vectors"] * c["vector_width"] * facts.itemsize

    assert tile(facts_of("com-dblp", 512, {})) < 512 * 4
    assert tile(facts_of("facebook-links", 128, {})) == 128 * 4  # inside L2


@pytest.mark.parametrize(
    ("graph", "width", "layer", "said"),
    [
        ("com-dblp", 41, {}, "copied into rows of 44"),
        ("com-dblp", 47, {"itemsize": 2, "weighted": True}, "copied into rows of 48"),
        ("com-dblp", 7, {}, "not a multiple of 4"),
        ("com-dblp", 56, {"weighted": True, "heads": 8}, "heads of 7"),
        ("com-dblp", 64, {"aligned": False}, "copied into rows of 64"),
        ("cora", 64, {"aligned": False}, "do not start on 16 bytes"),
        ("com-dblp", 64, {}, "rows are short and many"),
        ("com-dblp", 512, {}, "column tiles of 256 bytes"),
        ("cora", 64, {}, "blocks of 256 threads"),
        ("pubmed", 64, {}, "split into chunks"),
        ("reddit", 16, {}, "neighbour groups per row"),
    ],
)
def test_the_reason_names_what_decided(on_h100, graph, width, layer, said):
    config = decider.decide(facts_of(graph, width, layer), CUDA)
    assert said in config.reason and f"width {width}" in config.reason and config.runner_up


def test_the_papers_parameters_set_by_hand(on_h100):
    """They select the group kernel; a row has at most one group for each team of a block, or is split."""
    old = decider.decide(FACTS, CUDA, {"ngs": 16, "dw": 16, "warps_per_block": 4})
    new = decider.decide(FACTS, CUDA, {"group_size": 16, "lanes": 16, "block": 128})
    assert old == new
    assert (new.kernel, new.group_size, new.lanes, new.block) == ("group", 16, 16, 128)
    assert new.groups is None and new.split_above == new.chunk_edges == 16 * (128 // 16)
    assert new.lanes * new.vectors * new.vector_width >= 64  # the rest follows


@pytest.mark.parametrize("name", [n for n in decider.PARAMETERS if n != "group_size"])
def test_every_parameter_of_the_row_kernel_can_be_set(on_h100, name):
    value = {"lanes": 2, "groups": 4, "vector_width": 1, "vectors": 1, "block": 256}.get(name, 77)
    chosen, free = (decider.decide(FACTS, CUDA, config) for config in ({name: value}, None))
    assert chosen.kernel == "row" and getattr(chosen, name) == value != getattr(free, name)


def test_a_whole_configuration_can_be_set_again(on_h100):
    for config in (None, {"kernel": "group"}):
        once = decider.decide(dataclasses.replace(FACTS, width=100, head_dim=100), CUDA, config)
        again = decider.decide(dataclasses.replace(FACTS, width=100, head_dim=100), CUDA, once)
        assert again.parameters() == once.parameters()


def test_what_is_set_by_hand_is_held_to_what_a_launch_takes(on_h100):
    wide = dataclasses.replace(FACTS, width=512, head_dim=512, itemsize=2)
    c = decider.decide(wide, CUDA, {"lanes": 32, "groups": 32})
    assert (c.lanes, c.groups) == (32, 1)
    c = decider.decide(FACTS, CUDA, {"kernel": "row", "block": 512})
    assert c.block == 256 and "the most that kernel row takes" in c.reason
    floats = dataclasses.replace(wide, itemsize=4)
    c = decider.decide(floats, CUDA, {"kernel": "group", "vector_width": 1, "vectors": 2})
    assert c.lanes * c.vectors * c.vector_width * 4 * 2 * (c.block // c.lanes) <= 48 << 10


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"group_size": 0}, "group_size to 0; accepted are 1 to"),
        ({"lanes": 24}, "lanes to 24; accepted are 1, 2, 4, 8, 16, 32"),
        ({"block": 48}, "block to 48; accepted are 32, 64"),
        ({"warps_per_block": 3}, "warps_per_block to 3; accepted are 1, 2, 4"),
        ({"ngs": True}, "ngs to True"),
        ({"lanes": 2.0}, "lanes to 2.0"),
        ({"lanes": 8, "dw": 8}, "lanes twice"),
        ({"tile": 1}, "'tile'; accepted are kernel, lanes"),
        ({"kernel": "edges"}, "kernel to 'edges'; accepted are 'row', 'group'"),
        ({"kernel": "row", "group_size": 4}, "a parameter of kernel 'group'"),
        ({"ngs": 4, "groups": 2}, "a parameter of kernel 'row'"),
    ],
)
def test_a_wrong_parameter_is_named(config, words):
    with pytest.raises(ValueError, match=words):
        gnna_plugin.enable(config=config)
    assert settings.current.config == ()


def test_by_hand_goes_before_tuned_and_tuned_before_the_rules(on_h100):
    def in_force(facts=FACTS):
        config = decider.decide_in_force(facts, CUDA)
        return config.lanes, config.source

    by_rules = in_force()
    assert by_rules[1] == "rules"
    try:
        torch.ops.gnna.set_tuned(FACTS.numbers(), decider.overrides_of({"lanes": 32}))
        assert in_force() == (32, "tuned")
        assert in_force(dataclasses.replace(FACTS, aligned=False)) == (32, "tuned")
        assert in_force(dataclasses.replace(FACTS, edges=10**6 + 1)) == by_rules  # other facts
        torch.ops.gnna.set_overrides(decider.overrides_of({"lanes": 2}))
        assert in_force() == (2, "by hand")
    finally:
        torch.ops.gnna.set_overrides(decider.overrides_of(None))
        torch.ops.gnna.clear_tuned()
    assert in_force() == by_rules


def test_a_launch_records_its_decision(device):
    edge_index = torch.tensor([[0, 1, 2, 3, 3], [1, 1, 1, 0, 2]], device=device)
    with gnna_plugin.enabled(config={"chunk_edges": 77}):
        gnna_plugin.spmm(torch.ones(4, 6, device=device), edge_index, torch.ones(5, device=device))
        facts, config = decider.last_decision()
    assert (facts.rows, facts.cols, facts.edges, facts.max_degree, facts.width) == (4, 4, 5, 3, 6)
    assert (facts.itemsize, facts.weighted, facts.reduce) == (4, True, "sum")
    assert config.source == "by hand"
    if device.type == "cuda":
        assert config.chunk_edges == 77
        assert config.parameters() == decider.decide(facts, device, {"chunk_edges": 77}).parameters()
    else:
        assert config.kernel.startswith("row-") and config.lanes is None


def test_config_without_a_cuda_device_changes_nothing_and_says_so(caplog):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    with gnna_plugin.enabled(config={"group_size": 8}):
        assert "there is no CUDA device" in caplog.text


def test_parameters_of_a_command_line():
    assert decider.parse_config("ngs=32, lanes=16,kernel=group") == {"ngs": 32, "lanes": 16, "kernel": "group"}
    for text, words in (("ngs", "'ngs' is not of the form"), ("dw=7", "dw to 7"), ("", "is not of the form")):
        with pytest.raises(ValueError, match=words):
            decider.parse_config(text)


def test_a_configuration_is_a_value():
    a, b = (decider.decide(Facts(100, 100, 500, 9, 16, 16)) for _ in range(2))
    assert a == b and hash(a) == hash(b) and a.as_dict()["reason"] == a.reason
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.lanes = 4


def test_cpu_names_its_instructions_and_threads():
    config = decider.decide(Facts(100, 100, 500, 9, 16, 16))
    assert config.kernel == f"row-{torch.ops.gnna.instruction_set()}"
    assert "thread" in config.reason and config.lanes is None and "lanes" not in config.as_dict()
