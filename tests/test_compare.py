"""The side-by-side comparison: what its numbers mean, what it writes, and how it refuses. No time is ever asserted."""

import csv
import json
import os
import sys
import types

import numpy as np
import pytest
import torch
from rich.console import Console

import gnna_plugin
from gnna_plugin.data import Graph, load_graph
from gnna_plugin.tools import cli, demo
from gnna_plugin.tools.compare import measure, report, runner
from gnna_plugin.tools.compare.data import read_graph, save_graph, training_data
from gnna_plugin.tools.compare.spec import Case, UsageError, WorkerError
from gnna_plugin.tools.pairs import time_in_pairs

KEYS = """graph nodes edges framework model device baseline_ms accelerated_ms speedup baseline_same_allocator_ms
baseline_peak_mib accelerated_peak_mib first_call_ms break_even_epochs max_rel_error loss_gap baseline_accuracy
accelerated_accuracy fused_calls fallback_calls decisions baseline_spread_ms accelerated_spread_ms epochs threads seed
command versions""".split()


# ---- what the numbers mean -------------------------------------------------------------------------------------------


def test_the_error_is_relative_to_the_largest_value_of_its_own_array():
    expected = {"outputs": np.array([100.0, -1.0]), "gradient": np.array([0.01, 0.0])}
    found = {"outputs": np.array([100.0, -2.0]), "gradient": np.array([0.01, 0.002])}
    assert runner.max_rel_error(expected, expected) == 0
    assert runner.max_rel_error(found, expected) == pytest.approx(0.2)
    assert runner.max_rel_error({"a": [0.5]}, {"a": [0.0]}) == 0.5


def test_a_nan_in_any_array_is_never_hidden_by_another():
    expected = {"a": [1.0], "b": [1.0], "c": [1.0]}
    assert np.isnan(runner.max_rel_error({"a": [1.0], "b": [np.nan], "c": [2.0]}, expected))
    assert np.isnan(runner.loss_gap([1.0, np.nan, 3.0], [1.0, 2.0, 3.0]))


def test_arrays_that_do_not_match_are_an_error_not_a_number():
    with pytest.raises(ValueError, match="different arrays"):
        runner.max_rel_error({"a": [1.0]}, {"a": [1.0], "b": [1.0]})
    with pytest.raises(ValueError, match="shape"):
        runner.max_rel_error({"a": [1.0]}, {"a": [1.0, 1.0]})


def test_the_loss_gap_is_the_largest_relative_distance():
    assert runner.loss_gap([4.0, 2.0, 1.0], [4.0, 2.0, 1.0]) == 0
    assert runner.loss_gap([4.0, 2.2, 1.0], [4.0, 2.0, 1.0]) == pytest.approx(0.1)


def test_median_and_interquartile_range():
    assert measure.median_and_spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3.0, 2.0)
    assert measure.median_and_spread([7.0]) == (7.0, 0.0)


@pytest.mark.parametrize(("busy", "own", "missing"), [(20.0, 20.0, 0.0), (20.0, 10.0, 1.0), (12.0, 10.0, 0.2)])
def test_cores_taken_by_others_are_those_busy_without_us(monkeypatch, busy, own, missing):
    """On two cores, both wanted, over ten seconds."""
    monkeypatch.setattr(measure.os, "sched_getaffinity", lambda pid: {0, 1})
    readings = {
        "_busy_seconds": iter([100.0, 100.0 + busy]),
        "perf_counter": iter([5.0, 15.0]),
        "process_time": iter([1.0, 1.0 + own]),
    }
    monkeypatch.setattr(measure, "_busy_seconds", lambda: next(readings["_busy_seconds"]))
    clock = types.SimpleNamespace(**{key: readings[key].__next__ for key in ("perf_counter", "process_time")})
    monkeypatch.setattr(measure, "time", clock)
    assert measure.OtherWork().missing_cores(threads=2) == pytest.approx(missing)


def test_a_hook_left_in_place_is_found_by_identity(monkeypatch):
    package = types.ModuleType("fakegnn")
    exec("class Layer:\n    def gather(self): pass\ndef scatter(): pass", package.__dict__)
    monkeypatch.setitem(sys.modules, "fakegnn", package)
    before = measure.snapshot(("fakegnn",))
    assert measure.differences(before, measure.snapshot(("fakegnn",))) == []
    package.scatter = lambda: None
    package.Layer.gather = lambda self: None
    assert measure.differences(before, measure.snapshot(("fakegnn",))) == ["fakegnn.Layer.gather", "fakegnn.scatter"]


# ---- what is trained on ----------------------------------------------------------------------------------------------


def small_graph(**more):
    return Graph("small", 3, np.array([0, 1, 2]), np.array([1, 2, 0]), **more)


def test_a_graph_reaches_the_worker_unchanged(tmp_path):
    graph = load_graph("community:200x1000")
    save_graph(graph, tmp_path)
    again = read_graph(tmp_path)
    for key in ("num_nodes", "src", "dst", "x", "y", "train_mask", "val_mask", "test_mask"):
        np.testing.assert_array_equal(getattr(again, key), getattr(graph, key))
    bare = tmp_path / "bare"
    bare.mkdir()
    save_graph(small_graph(), bare)
    assert read_graph(bare).x is None


def test_a_bare_graph_gets_equal_random_features_and_labels_from_equal_seeds():
    first, again, other = (
        training_data(small_graph(), Case("small", dim=5, classes=4, seed=seed).resolved()) for seed in (1, 1, 2)
    )
    assert first.x.shape == (3, 5) and first.x.dtype == np.float32 and first.classes == 4
    assert first.train is first.test is None
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.y, again.y)
    assert not np.array_equal(first.x, other.x)


def test_own_features_and_labels_are_used_unless_synthetic_ones_are_asked_for():
    mask = np.array([True, False, False])
    graph = small_graph(
        x=np.array([[1, 3], [0, 0], [5, 5]], np.float32), y=np.array([0, 6, 2]), train_mask=mask, test_mask=~mask
    )
    own = training_data(graph, Case("small").resolved())
    np.testing.assert_array_equal(own.x, [[0.25, 0.75], [0, 0], [0.5, 0.5]])
    assert own.classes == 7 and own.train.tolist() == [0] and own.test.tolist() == [1, 2]
    drawn = training_data(graph, Case("small", dim=9, synthetic=True).resolved())
    assert drawn.x.shape == (3, 9) and drawn.classes == 22 and drawn.test is None


# ---- a whole comparison ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results():
    pytest.importorskip("torch_geometric")
    graph = load_graph("community:3000x60000")
    cases = [(graph, Case(graph.name, model=model, epochs=6)) for model in ("gcn", "gin", "weighted")]
    events = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GNNA_MIN_WORK", "0")
        found = runner.measure_cases(
            cases, threads=1, command="the command", on_progress=lambda *event: events.append(event)
        )
    assert all(any(arm in what for what, _, _ in events) for arm in ("baseline", "allocator", "accelerated"))
    return found


def test_a_row_has_the_documented_keys_and_facts(results):
    for result, model in zip(results, ("gcn", "gin", "weighted"), strict=True):
        row = result.row
        assert sorted(row) == sorted(KEYS)
        assert (row["graph"], row["nodes"], row["edges"]) == ("community:3000x60000", 3000, 60000)
        assert (row["framework"], row["model"], row["device"]) == ("pyg", model, "cpu")
        assert (row["epochs"], row["threads"], row["seed"], row["command"]) == (6, 1, 0, "the command")
        assert row["speedup"] == row["baseline_ms"] / row["accelerated_ms"]
        assert {"torch", "torch_geometric", "gnna_plugin", "python"} <= set(row["versions"])


def test_the_accelerated_arm_ran_accelerated_and_says_why(results):
    for result in results:
        assert result.row["fused_calls"] > 0 and result.row["fallback_calls"] == 0
        assert result.row["decisions"] and all(decision["reason"] for decision in result.row["decisions"])
        assert all(counts["fused"] > 0 for counts in result.detail["layers"].values())


def test_outputs_and_gradients_are_as_near_to_float64_as_the_plain_ones(results):
    for result in results:
        assert 0 < result.row["max_rel_error"] < 1e-4
        assert 0 < result.detail["baseline_error"] < 1e-4


def test_the_loss_curves_agree_with_dropout_drawn_alike(results):
    assert results[0].row["loss_gap"] < 1e-5
    assert all(result.detail["reordered_loss_gap"] is not None for result in results)


def test_accuracy_is_reported_of_both_arms_where_labels_are_real(results):
    for result in results:
        assert 0 <= result.row["baseline_accuracy"] <= 1
    assert results[0].row["accelerated_accuracy"] == pytest.approx(results[0].row["baseline_accuracy"], abs=0.01)


def test_the_same_bits_come_twice_and_disable_puts_everything_back(results):
    for result in results:
        assert result.detail["same_bits"] is True
        assert result.detail["not_restored"] == [] and result.detail["hooks_checked"] > 1000


def test_json_and_csv_hold_the_rows(results, tmp_path):
    report.write_json(results, tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["model"] for row in rows] == ["gcn", "gin", "weighted"] and list(rows[0]) == list(results[0].row)
    report.write_csv(results, tmp_path / "rows.csv")
    with open(tmp_path / "rows.csv", newline="") as file:
        flat = list(csv.DictReader(file))
    assert sorted(flat[0]) == sorted(set(KEYS) - {"decisions", "versions"})
    assert float(flat[1]["baseline_ms"]) == rows[1]["baseline_ms"]


def test_the_table_fits_80_columns_and_names_what_people_compare(results):
    console = Console(width=80, record=True, file=open(os.devnull, "w"))
    console.print(report.comparison_table(results))
    for line in (*report.proof_lines(results), *report.decision_lines(results)):
        console.print(line)
    text = console.export_text()
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    for word in ("plain", "accelerated", "speed-up", "3000x60000", "weighted", "float64", "same bits", "disable()"):
        assert word in text


# ---- rows that are not rosy ------------------------------------------------------------------------------------------


def altered(results, **changes):
    return runner.Result({**results[0].row, **changes}, results[0].detail)


def shown(lines):
    console = Console(width=200, record=True, file=open(os.devnull, "w"))
    for line in lines:
        console.print(line)
    return console.export_text()


def test_a_number_that_is_not_finite_becomes_null(results, tmp_path):
    report.write_json([altered(results, loss_gap=float("nan"), speedup=float("inf"))], tmp_path / "rows.json")
    row = json.loads((tmp_path / "rows.json").read_text(), parse_constant=pytest.fail)[0]
    assert row["loss_gap"] is row["speedup"] is None


def test_a_noisy_row_is_called_noisy(results):
    quiet = dict(baseline_ms=10.0, baseline_spread_ms=0.1, accelerated_ms=1.0, accelerated_spread_ms=0.01)
    alone = {**results[0].detail, "missing_cores": 0.0}
    crowded = {**alone, "missing_cores": 0.9}
    row = {**results[0].row, **quiet, "threads": 2}
    assert shown(report.noise_lines([runner.Result(row, alone)])) == ""
    varied = runner.Result({**row, "baseline_spread_ms": 9.0}, alone)
    assert "epochs vary by 90 %" in shown(report.noise_lines([varied]))
    assert "other processes took 0.9 of the 2 cores" in shown(report.noise_lines([runner.Result(row, crowded)]))


def test_a_broken_promise_is_shown(results):
    detail = {**results[0].detail, "same_bits": False, "not_restored": ["torch_geometric.utils.scatter"]}
    text = shown(report.proof_lines([runner.Result(results[0].row, detail)]))
    assert "different bits" in text and "torch_geometric.utils.scatter" in text


def test_names_from_files_are_no_markup(results):
    assert "[red]x" in shown([report.comparison_table([altered(results, graph="[red]x")])])


# ---- refusals --------------------------------------------------------------------------------------------------------


def refused(capsys, *argv):
    """Run the command line, expect status 2, return its one sentence."""
    assert cli.main(list(argv)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("gnna: ") and captured.err.count("\n") == 1
    return captured.err


def test_a_graph_that_is_missing_or_damaged_costs_one_sentence(capsys, tmp_path):
    pytest.importorskip("torch_geometric")
    assert "no graph file or name 'nowhere'" in refused(capsys, "compare", "--graph", "nowhere", "--device", "cpu")
    (tmp_path / "bad.npz").write_bytes(b"bad")
    bad = str(tmp_path / "bad.npz")
    assert bad in refused(capsys, "compare", "--graph", "community:100x400", bad, "--device", "cpu")
    assert "did you mean 'community'?" in refused(capsys, "explain", "--graph", "comunity")


def test_a_missing_framework_costs_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "torch_geometric is not installed" in refused(capsys, "compare", "--graph", "community")
    assert "torch_geometric is not installed" in refused(capsys, "demo")


def test_cuda_that_cannot_be_used_is_refused_when_asked_for_and_told_otherwise(monkeypatch):
    monkeypatch.setattr(runner.torch.cuda, "is_available", lambda: False)
    assert runner.choose_device("cpu") == ("cpu", None)
    device, remark = runner.choose_device("auto")
    assert device == "cpu" and "sees no CUDA device" in remark
    with pytest.raises(UsageError, match="--device cuda: torch .* sees no CUDA device"):
        runner.choose_device("cuda")
    monkeypatch.setattr(runner.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(runner._load, "built_with_cuda", lambda: False)
    with pytest.raises(UsageError, match="built without CUDA"):
        runner.choose_device("cuda")


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--dim", "x"], ["--seed", "-1"], ["--model", "gat"]])
def test_misuse_of_the_command_line_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["compare", "--graph", "community", *arguments])
    assert caught.value.code == 2


def test_a_failing_worker_shows_what_it_wrote(monkeypatch, tmp_path):
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho some noise\necho the reason >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setattr(runner.sys, "executable", str(script))
    with pytest.raises(WorkerError, match="baseline worker ended with status 3\nthe reason"):
        runner.measure_cases([(small_graph(), Case("small"))])


def test_the_rows_before_a_failure_are_shown_and_kept(results, monkeypatch, capsys, tmp_path):
    answers = iter([[results[0]]])

    def measure_cases(*args, **kwargs):
        try:
            return next(answers)
        except StopIteration:
            raise WorkerError("the baseline worker was killed") from None

    monkeypatch.setattr(runner, "measure_cases", measure_cases)
    target = tmp_path / "rows.json"
    argv = ["compare", "--graph", "community:100x400", "community:200x800", "--device", "cpu", "--json", str(target)]
    assert cli.main(argv) == 1
    captured = capsys.readouterr()
    assert "3000x60000" in captured.out and captured.err == "gnna: the baseline worker was killed\n"
    assert len(json.loads(target.read_text())) == 1


def test_a_worker_is_never_accelerated_by_the_environment(monkeypatch):
    monkeypatch.setenv("GNNA_ENABLE", "1")
    monkeypatch.setenv("GNNA_MIN_WORK", "7")
    env = runner._environment(threads=3)
    assert "GNNA_ENABLE" not in env and env["GNNA_MIN_WORK"] == "7" and env["OMP_NUM_THREADS"] == "3"


def test_help_of_every_command_has_examples(capsys):
    for argv in (["--help"], ["compare", "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(argv)
        assert caught.value.code == 0
        assert "examples:" in capsys.readouterr().out


# ---- the demo --------------------------------------------------------------------------------------------------------


def test_the_demo_covers_a_library_layer_and_a_users_own():
    models = [case.model for case in demo.cases([])]
    assert models == ["gcn", "gin", "weighted"]
    assert [case.graph for case in demo.cases(["cora", "road-rome", "pubmed"])][0] == "pubmed"


@pytest.mark.slow
def test_steps_are_timed_in_pairs_and_the_plug_in_is_off_afterwards():
    pytest.importorskip("torch_geometric")
    graph = load_graph("community:20000x200000")
    threads = torch.get_num_threads()
    plain, accelerated, ratio, pairs = time_in_pairs(graph, Case(graph=graph.name, hidden=16), seconds=0.1)
    assert pairs >= 5 and plain > 0 and accelerated > 0 and ratio > 0
    assert torch.get_num_threads() == threads and not gnna_plugin.status().frameworks
    counts = gnna_plugin.status().layers["GCNConv"]
    layers = 2
    assert layers * pairs <= counts.fused <= layers * (pairs + 3)  # the plain steps are not among them


@pytest.mark.slow
def test_the_demo_runs(capsys):
    pytest.importorskip("torch_geometric")
    assert cli.main(["demo", "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    for word in (demo.ADDED_LINE, "accelerated", "float64", "What to type next"):
        assert word in text
    assert "speed-up" in text and "processor time" in " ".join(text.split())
