"""`gnna tune`: the search finds the best launch there is, what was kept decides later runs, and nothing else does."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from golden_decisions import DEVICES

import gnna_plugin
from gnna_plugin import decider, settings, tuned
from gnna_plugin.decider import Facts
from gnna_plugin.tools import cli
from gnna_plugin.tools.tune import crossover, launches
from gnna_plugin.tools.tune.search import search

FACTS = Facts(1000, 1000, 12_000, 90, 64, 64, 4, False, "sum")


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("GNNA_TUNED", str(tmp_path / "kept" / "tuned.json"))
    yield tmp_path / "kept" / "tuned.json"
    tuned.unload()


def decided(partial):
    """The decider's completion on an H100, which this machine need not have."""
    return decider.decide_on(DEVICES["H100"], FACTS, partial).parameters()


def test_the_search_finds_a_better_launch_of_either_kernel():
    def cost(config):
        if config["kernel"] == "group":
            return 3.0
        return 1.0 + abs(config["lanes"] - 16) + 0.1 * (config["block"] != 256) + 0.2 * (config["split_above"] != 32)

    found = search(decided, cost)
    assert found.decider_ms == cost(decided({})) > found.ms
    assert (found.config["lanes"], found.config["block"], found.config["split_above"]) == (16, 256, 32)
    by_groups = search(decided, lambda c: 1.0 if c["kernel"] == "group" and c["group_size"] == 64 else 2.0)
    assert by_groups.config["group_size"] == 64


def test_the_deciders_choice_stands_where_nothing_is_clearly_faster():
    first = decided({})
    found = search(decided, lambda config: 1.0 if config == first else 0.985)
    assert found.config == first and found.ms == found.decider_ms == 1.0


def test_launches_that_cannot_be_made_are_passed_over_and_none_is_timed_twice():
    times = {}

    def cost(config):
        key = tuple(sorted(config.items()))
        assert key not in times
        times[key] = None if config["lanes"] > 16 else 1.0 / config["lanes"]
        return times[key]

    found = search(decided, cost)
    assert found.config["lanes"] == 16 and any(ms is None for _, ms in found.tried)
    with pytest.raises(ValueError, match="cannot be launched"):
        search(decided, lambda config: None)


def test_a_model_asks_for_each_aggregation_once_and_for_its_transpose():
    pyg = pytest.importorskip("torch_geometric.nn")
    edge_index = torch.tensor([[0, 1, 2, 3, 3], [1, 1, 1, 0, 2]])  # asymmetric: longest row 3, transposed 2
    first, second = pyg.SAGEConv(6, 6), pyg.SAGEConv(6, 6, aggr="max")
    with gnna_plugin.enabled("pyg", min_work=0):
        found = launches.launches_of(lambda: second(first(torch.randn(4, 6), edge_index), edge_index))
    facts = [launch.facts for launch in found]
    assert [(f.reduce, f.max_degree) for f in facts] == [("mean", 3), ("sum", 2), ("max", 3)]
    assert all((f.rows, f.cols, f.edges, f.width, f.weighted) == (4, 4, 5, 6, False) for f in facts)


def test_what_is_kept_comes_back_and_replaces_its_like(file):
    entry = {"facts": asdict(FACTS), "config": {"lanes": 8}, "us": 2.0}
    other = {**entry, "facts": asdict(replace(FACTS, width=16))}
    tuned.write("some GPU", {"launches": [entry, other]})
    tuned.write("some GPU", {"launches": [{**entry, "config": {"lanes": 16}}]})
    tuned.write("some CPU", {"min_work": 7})
    kept = json.loads(file.read_text())
    assert [item["config"] for item in kept["some GPU"]["launches"]] == [{"lanes": 16}, {"lanes": 8}]
    assert kept["some CPU"] == {"min_work": 7} and not list(file.parent.glob("tmp*"))


def test_a_measured_min_work_decides_unless_the_user_says_otherwise(file):
    pytest.importorskip("torch_geometric")
    tuned.write(tuned.device_name("cpu"), {"min_work": 123})
    gnna_plugin.enable("pyg")
    assert settings.current.least_work("cpu") == 123
    assert settings.current.least_work("cuda") == settings.DEFAULT_MIN_WORK["cuda"]
    gnna_plugin.enable("pyg", min_work=5)
    assert settings.current.least_work("cpu") == 5
    gnna_plugin.disable()
    assert settings.current.least_work("cpu") == settings.DEFAULT_MIN_WORK["cpu"]


def lanes_in_force(facts, monkeypatch):
    monkeypatch.setattr(decider, "device_facts", lambda device: DEVICES["H100"])
    config = decider.decide_in_force(facts, torch.device("cuda"))
    return config.lanes, config.source


def test_kept_launches_are_in_force_on_their_device_only(file, monkeypatch):
    tuned.write("this GPU", {"launches": [{"facts": asdict(FACTS), "config": {"lanes": 16}}]})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tuned, "device_name", lambda kind: "this GPU")
    tuned.load()
    assert lanes_in_force(FACTS, monkeypatch) == (16, "tuned")
    assert lanes_in_force(replace(FACTS, edges=1), monkeypatch)[1] == "rules"
    tuned.unload()
    monkeypatch.setattr(tuned, "device_name", lambda kind: "another GPU")
    tuned.load()
    assert lanes_in_force(FACTS, monkeypatch)[1] == "rules"


@pytest.mark.parametrize("text", ["not json", "[1]", "{}"])
def test_a_damaged_file_changes_nothing(file, text):
    file.parent.mkdir()
    file.write_text(text)
    assert tuned.load() == {} and file.read_text() == text


def test_entries_that_fit_no_more_are_passed_over(file, monkeypatch):
    good = {"facts": asdict(FACTS), "config": {"lanes": 16}}
    bad = [{"facts": {"rows": 1}, "config": {}}, {**good, "config": {"lanes": 3}}, {"config": {}}]
    tuned.write("this GPU", {"launches": [good]})
    whole = json.loads(file.read_text())
    whole["this GPU"]["launches"] = [*bad, good]
    file.write_text(json.dumps(whole))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(tuned, "device_name", lambda kind: "this GPU")
    tuned.load()
    assert lanes_in_force(FACTS, monkeypatch) == (16, "tuned")


def test_min_work_is_where_the_slower_sizes_end():
    def rows(**ratios):
        return [{"work": int(w[1:]), "plain_us": 100.0, "accelerated_us": 100.0 * r} for w, r in ratios.items()]

    assert crossover.least_work(rows(w10=1.5, w20=1.1, w30=0.9, w40=0.5)) == 30
    assert crossover.least_work(rows(w10=0.9, w20=1.1, w30=1.01)) == 30
    assert crossover.least_work(rows(w10=1.5, w20=1.1)) == 21
    assert crossover.least_work(rows(w10=0.5, w20=0.4)) == 10


def test_the_command_measures_and_keeps_min_work(file, capsys, monkeypatch):
    pytest.importorskip("torch_geometric")
    monkeypatch.setattr(crossover, "EDGES", {"cpu": (50, 2000)})
    monkeypatch.setattr(crossover, "WIDTHS", (8,))
    assert cli.main(["tune", "--device", "cpu", "--rounds", "1", "--dry-run"]) == 0
    assert not file.exists()
    assert cli.main(["tune", "--device", "cpu", "--rounds", "1"]) == 0
    assert json.loads(file.read_text())[tuned.device_name("cpu")]["min_work"] > 0
    assert "min_work" in capsys.readouterr().out
    assert cli.main(["tune", "--device", "cpu", "--graph", "community"]) == 2
    assert "no launches to tune" in capsys.readouterr().err
    monkeypatch.setenv("GNNA_TUNED", "0")
    assert cli.main(["tune", "--device", "cpu"]) == 2
