"""`gnna study`: the paper's graphs are found, rows hold what was measured, and sweeps cover what the paper sweeps."""

import csv
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import CUDA
from golden_decisions import DEVICES

import gnna_plugin
from gnna_plugin import decider
from gnna_plugin.data import STANDINS, load_graph
from gnna_plugin.decider import Facts
from gnna_plugin.tools import cli, renumbering
from gnna_plugin.tools.bench import epoch, peers
from gnna_plugin.tools.study import command, graphs, launches, spmm, tables, training

SMALL = "community:300x2000"
needs_pyg = pytest.mark.skipif(importlib.util.find_spec("torch_geometric") is None, reason="needs torch-geometric")
needs_dgl = pytest.mark.skipif(isinstance(peers.adapter("dgl"), str), reason="needs DGL")
has_matplotlib = importlib.util.find_spec("matplotlib") is not None


@pytest.fixture
def one_process(monkeypatch):
    """Measure in this process, one thread, instead of in new ones, which import torch and PyG for seconds."""

    class Here(training.Workers):
        def __call__(self, function, *arguments):
            try:
                return function(*arguments), None
            finally:
                gnna_plugin.disable()
                gnna_plugin.allocator.restore()

    before = torch.get_num_threads()
    monkeypatch.setattr(training, "Workers", Here)
    monkeypatch.setattr(epoch, "_SLICE_S", 0.005)
    yield
    torch.set_num_threads(before)


def study(tmp_path, *words):
    stored, table = tmp_path / "rows.json", tmp_path / "rows.csv"
    words = ["study", *words, "--graph", SMALL, "--rounds", "1", "--threads", "1", "--device", "cpu"]
    assert cli.main([*words, "--json", str(stored), "--csv", str(table)]) == 0
    found = json.loads(stored.read_text())
    with open(table) as file:
        assert len(list(csv.DictReader(file))) == len(found["rows"])
    return found


# ---- graphs ----------------------------------------------------------------------------------------------------------


def test_every_graph_of_the_paper_can_be_had_without_files(monkeypatch):
    monkeypatch.delenv("GNNA_DATA", raising=False)
    sources = graphs.paper_sources(graphs.TYPES)
    assert len(sources) == 15 and {source.name for source in sources} <= set(STANDINS)
    assert {source.origin for source in sources} == {graphs.STAND_IN}
    assert [source.name for source in graphs.paper_sources(["I"])] == ["citeseer", "cora", "pubmed", "ppi"]
    assert graphs.resolve("cora").load(0).num_edges == STANDINS["cora"].edges


def test_a_file_of_the_name_is_preferred_to_the_stand_in(tmp_path, monkeypatch):
    src = np.arange(5)
    np.savez(tmp_path / "cora.npz", src_li=src, dst_li=src[::-1].copy(), num_nodes=5)
    monkeypatch.setenv("GNNA_DATA", str(tmp_path))
    real, drawn, other = graphs.resolve("cora"), graphs.resolve("standin:cora"), graphs.resolve(SMALL)
    assert (real.origin, real.load(0).num_nodes, real.dim, real.classes) == (graphs.FROM_FILE, 5, 1433, 7)
    assert (drawn.origin, drawn.name, drawn.dim) == (graphs.STAND_IN, "cora", 1433)
    assert (other.origin, other.type, other.dim, other.classes) == (graphs.AS_GIVEN, "", 96, 22)


def test_a_renumbered_graph_is_the_same_graph():
    graph = load_graph("community:60x300")
    order = renumbering.find_order(graph)
    moved = renumbering.renumbered(graph, order)
    pairs = {(order[s], order[d]) for s, d in zip(moved.src, moved.dst, strict=True)}
    assert pairs == set(zip(graph.src, graph.dst, strict=True)) and len(pairs) == moved.num_edges
    np.testing.assert_array_equal(moved.x, graph.x[order])
    np.testing.assert_array_equal(moved.y, graph.y[order])
    assert renumbering.as_asked(graph, "no") is graph
    assert renumbering.as_asked(graph, "rule") is not graph  # floor(sqrt(60) / 100) is 0
    shuffled = renumbering.renumbered(graph, np.random.default_rng(0).permutation(60))
    again = renumbering.as_asked(shuffled, "rabbit")
    assert renumbering.average_edge_span(again) < renumbering.average_edge_span(shuffled)


# ---- training --------------------------------------------------------------------------------------------------------


@needs_pyg
def test_training_against_pyg(tmp_path, one_process, capsys):
    found = study(tmp_path, "fig10")
    assert [(row["model"], row["layers"], row["hidden"]) for row in found["rows"]] == [("gcn", 2, 16), ("gin", 5, 64)]
    for row in found["rows"]:
        assert (row["graph"], row["origin"], row["framework"], row["dim"]) == (SMALL, "given", "pyg", 96)
        assert row["speedup"] == pytest.approx(row["baseline_ms"] / row["accelerated_ms"])
        assert row["same_allocator_ms"] > 0 and row["error"] < 1e-3
    assert found["kind"] == "fig10" and not found["left_out"]
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@needs_dgl
def test_training_against_dgl(tmp_path, one_process):
    (row,) = study(tmp_path, "training-dgl", "--models", "gcn")["rows"]
    assert row["framework"] == "dgl" and row["speedup"] > 0


def test_without_dgl_one_sentence_is_all(monkeypatch, capsys):
    monkeypatch.setattr(peers, "adapter", lambda name: "No module named 'dgl'")
    assert cli.main(["study", "fig9", "--graph", SMALL, "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "DGL" in lines[0] and "No module named 'dgl'" in lines[0]


@needs_pyg
def test_hidden_widths(tmp_path, one_process):
    found = study(tmp_path, "hidden-width", "--hidden", "16", "32")
    assert [row["hidden"] for row in found["rows"]] == [16, 32] and found["kind"] == "fig12a"


@needs_pyg
def test_renumbering_reports_both_spans_and_checks_the_result(tmp_path, one_process, monkeypatch):
    (row,) = study(tmp_path, "fig11c", "--models", "gcn")["rows"]
    assert row["span"] > 0 and row["new_span"] > 0 and row["order_s"] > 0 and row["error"] < 1e-3
    assert row["speedup"] == pytest.approx(row["own_ms"] / row["renumbered_ms"])
    real = renumbering.renumbered
    broken = lambda graph, order: real(graph, np.roll(order, 1))  # noqa: E731
    monkeypatch.setattr(renumbering, "renumbered", broken)  # nodes and edges no longer belong together
    words = ["study", "fig11c", "--models", "gcn", "--graph", SMALL, "--rounds", "1", "--device", "cpu"]
    assert cli.main(words) == 1


@needs_pyg
def test_a_case_that_fails_leaves_the_others(tmp_path, one_process, monkeypatch, capsys):
    def refuse(case):
        if case.model == "gcn":
            raise RuntimeError("out of memory")
        return [{"peer": name, "ms": 2.0, "spread_ms": 0.0, "error": 0.0, "how": "clock", "missing_cores": 0.0}
                for name in ("PyG", "PyG, as run", "gnna")], {}  # fmt: skip

    def run(self, function, *arguments):
        try:
            return refuse(*arguments), None
        except RuntimeError as error:
            return None, str(error)

    monkeypatch.setattr(training.Workers, "__call__", run)
    found = study(tmp_path, "fig10")
    assert list(found["left_out"].values()) == ["out of memory"] and "speedup" not in found["rows"][0]
    assert found["rows"][1]["speedup"] == 1.0 and "failed" in capsys.readouterr().out


def test_means_are_geometric_and_by_type():
    rows = [{"type": t, "model": "gcn", "speedup": s} for t, s in (("I", 2.0), ("I", 8.0), ("II", 2.0))]
    found = tables.mean_rows([*rows, {"type": "II", "model": "gcn"}])
    assert [(m["type"], m["count"]) for m in found] == [("I", 2), ("II", 1), (None, 3)]
    assert [m["speedup"] for m in found] == pytest.approx([4.0, 2.0, 32 ** (1 / 3)])


# ---- launches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameter, last", [("group_size", 512), ("lanes", 32)])
def test_a_sweep_holds_every_value_of_the_papers_kernel_and_the_deciders_choice(parameter, last):
    facts = Facts(10_000, 10_000, 120_000, 90, 16, 16)

    def decided(partial):
        return decider.decide_on(DEVICES["H100"], facts, partial).parameters()

    rows = launches.sweep(parameter, decided, lambda config: None if config.get(parameter) == last else 0.5)
    *swept, chosen = rows
    assert [row["value"] for row in swept] == list(launches.SWEEPS[parameter])
    assert all(row["kernel"] == "group" and row[parameter] == row["value"] for row in swept)
    assert [row["us"] for row in swept] == [500.0] * (len(swept) - 1) + [None]
    assert chosen["value"] == launches.DECIDER and chosen["kernel"] == decided({})["kernel"] and chosen["us"] == 500.0
    facts_of_rows = {"graph": "G", "origin": "given", "width": 16, "parameter": parameter}
    table, _ = tables.sweep_table([{**facts_of_rows, **row} for row in rows])
    assert table.row_count == len(rows)


def test_a_swept_launch_is_the_sum_over_the_graph():
    graph = load_graph(SMALL)
    launch = launches.launch_of(graph, 16, torch.device("cpu"))
    facts = launch.facts
    assert (facts.rows, facts.edges, facts.width, facts.weighted, facts.reduce) == (300, 2000, 16, False, "sum")
    assert facts.max_degree == np.bincount(graph.dst).max() and launch.feature_shape == (16,)
    assert torch.equal(launch.row, torch.from_numpy(graph.dst))


@pytest.mark.parametrize("name", ["fig11a", "dimension-workers"])
def test_sweeps_need_a_gpu(name, capsys):
    assert cli.main(["study", name, "--graph", SMALL, "--device", "cpu"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and "needs a GPU" in lines[0]


@pytest.mark.parametrize("name", ["fig11a", "fig11b"])
@pytest.mark.parametrize("device", [CUDA])
def test_sweeps_on_a_gpu(name, device, tmp_path):
    stored = tmp_path / "rows.json"
    assert cli.main(["study", name, "--graph", "community:2000x30000", "--rounds", "1", "--json", str(stored)]) == 0
    rows = json.loads(stored.read_text())["rows"]
    assert all(row["us"] > 0 for row in rows) and rows[-1]["value"] == launches.DECIDER


# ---- single SpMM, plots, names ---------------------------------------------------------------------------------------


def test_spmm_against_a_library(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gnna_plugin.tools.bench.rates.gather_gbs", lambda *_: (10.0, "spmm"))
    monkeypatch.setattr("gnna_plugin.tools.bench.rates.copy_gbs", lambda *_: 10.0)
    found = study(tmp_path, "spmm", "--peers", "torch.sparse.mm", "--widths", "8")
    gnna_plugin.allocator.restore()
    assert [row["peer"] for row in found["rows"]] == ["gnna", "torch.sparse.mm"]
    (mean, count), ratio = spmm.means(found["rows"])["torch.sparse.mm"], found["rows"][1]["times_of_ours"]
    assert count == 1 and mean == pytest.approx(ratio)
    out = capsys.readouterr().out
    assert "Gunrock" in out and max(map(len, out.splitlines())) <= 80


def test_an_unknown_library_is_refused(capsys):
    assert cli.main(["study", "spmm", "--graph", SMALL, "--rounds", "1", "--device", "cpu", "--peers", "nope"]) == 2
    assert "nope" in capsys.readouterr().err


def test_matplotlib_is_needed_only_for_plots(monkeypatch, tmp_path, capsys):
    code = "import sys; from gnna_plugin.tools import cli; cli.build_parser(); assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ["study", "fig10", "--graph", SMALL, "--device", "cpu", "--plot"]
    assert cli.main([*words, str(tmp_path / "a.svg")]) == 2
    assert "matplotlib" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*words, str(tmp_path / "a.pdf")])


@pytest.mark.skipif(not has_matplotlib, reason="needs matplotlib")
@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_every_study_draws_its_rows(suffix, tmp_path):
    from gnna_plugin.tools.study import plot

    about = {"type": "III", "graph": "G", "origin": "given", "width": 16, "layers": 2}
    trained = [
        {**about, "model": model, "hidden": hidden, "speedup": 2.0, "baseline_ms": 2.0, "accelerated_ms": 1.0}
        for model in ("gcn", "gin") for hidden in (16, 32)
    ]  # fmt: skip
    swept = [{**about, "parameter": "lanes", "value": v, "us": u} for v, u in ((1, 3.0), (2, None), ("decider", 2.0))]
    timed = [{**about, "peer": peer, "times_of_ours": t} for peer, t in (("gnna", 1.0), ("torch.sparse.mm", 2.0))]
    files = [tmp_path / f"{name}.{suffix}" for name in "abcd"]
    plot.bars(str(files[0]), trained, "title", "speed-up")
    plot.sweep_lines(str(files[1]), swept, "title")
    plot.hidden_lines(str(files[2]), trained, "title", "PyG")
    plot.spmm_bars(str(files[3]), timed, "title")
    assert all(file.stat().st_size > 1000 for file in files)
    assert (plot.STAND_IN, plot.DECIDER) == (graphs.STAND_IN, launches.DECIDER)


def test_every_study_has_a_readable_name():
    parser = cli.build_parser()
    for name, (alias, _, types) in command._STUDIES.items():
        args = parser.parse_args(["study", alias])
        assert args.study == name and args.types == list(types)
