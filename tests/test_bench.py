"""What `gnna bench` promises: peers compute one function, a wrong one is never timed, and what is stored is whole."""

import importlib.util
import json

import numpy as np
import pytest
import torch

import gnna_plugin
from gnna_plugin.data import load_graph
from gnna_plugin.data.problem import Problem, Unsupported, error_of, exact
from gnna_plugin.tools import cli
from gnna_plugin.tools.bench import epoch, kernels, page, peers, rates
from gnna_plugin.tools.bench.timing import Rounds, time_calls
from gnna_plugin.tools.bench.vendor import torch_sparse_kernel
from gnna_plugin.tools.compare.spec import UsageError, WorkerError

QUICK = Rounds(1, 0.001, 0)
needs_pyg = pytest.mark.skipif(importlib.util.find_spec("torch_geometric") is None, reason="needs torch-geometric")


def problem(kind="spmm", nodes=40, edges=300, width=6, **options):
    """Random and asymmetric, sorted by destination, the last nodes without edges."""
    generator = torch.Generator().manual_seed(edges)
    dst = torch.randint(0, nodes - 3, (edges,), generator=generator).sort().values
    return Problem(kind, torch.randint(0, nodes, (edges,), generator=generator), dst, nodes, width, **options)


def one_by_one(p, operands):
    """The definition, an edge at a time, in Python's floats."""
    if p.kind == "sddmm":
        a, b = (t.detach().double().numpy() for t in operands)
        return np.stack([(a[s] * b[d]).sum(-1) for s, d in zip(p.src.tolist(), p.dst.tolist(), strict=True)])
    x, weight = (
        operands[0].detach().double().numpy(),
        operands[1].detach().double().numpy() if p.weight != "none" else None,
    )
    out = np.zeros((p.num_nodes, *p.feature_shape()))
    for i in range(p.num_nodes):
        found = [
            x[e if p.kind == "segment" else p.src[e]] * (1.0 if weight is None else weight[e][..., None])
            for e in (p.dst == i).nonzero().flatten().tolist()
        ]
        if found:
            out[i] = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}[p.reduce](np.stack(found), axis=0)
    return out


CASES = [
    problem(),
    problem(reduce="mean", weight="static"),
    problem(reduce="max", weight="learned"),
    problem(reduce="min"),
    problem(heads=3, weight="learned"),
    problem("segment", reduce="mean"),
    problem("sddmm", heads=2),
    problem("sddmm"),
]


@pytest.mark.parametrize("p", CASES, ids=lambda p: f"{p.kind}-{p.reduce}-{p.weight}-{p.heads}")
def test_the_float64_answer_is_the_definition(p, monkeypatch):
    monkeypatch.setattr("gnna_plugin.data.problem._CHUNK_ELEMENTS", 300)  # a column at a time
    operands = p.operands()
    assert error_of(exact(p, operands, None), [torch.from_numpy(one_by_one(p, operands))], False) < 1e-14


@pytest.mark.parametrize("p", CASES, ids=lambda p: f"{p.kind}-{p.reduce}-{p.weight}-{p.heads}")
def test_gradients_in_chunks_are_the_whole_ones(p, monkeypatch):
    operands, grad = p.operands(), torch.randn(p.output_shape())
    whole = exact(p, operands, grad)
    assert len(whole) == sum(t.requires_grad for t in operands)
    if p.kind == "sddmm":
        return
    monkeypatch.setattr("gnna_plugin.data.problem._CHUNK_ELEMENTS", 300)
    assert error_of(exact(p, operands, grad), whole, False) < 1e-12


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("p", CASES, ids=lambda p: f"{p.kind}-{p.reduce}-{p.weight}-{p.heads}")
def test_every_peer_that_computes_the_case_is_right(p, direction, monkeypatch):
    compiled = [name for name in peers.all_peers()[0] if "compiled" in name]  # minutes on two cores
    wanted = [name for name in peers.all_peers()[0] if name not in compiled]
    monkeypatch.setattr(rates, "gather_gbs", lambda *_: (10.0, "spmm"))
    monkeypatch.setattr(rates, "copy_gbs", lambda *_: 10.0)
    rows, left_out = kernels.measure(p, direction, wanted, QUICK)
    assert {"gnna", "gather + scatter"} <= {row["peer"] for row in rows}
    assert all(row["error"] < 1e-4 and row["ms"] > 0 for row in rows)
    wrong = {name for name, text in left_out.items() if text.startswith("wrong")}
    # DGL sends the gradient of a maximum over no neighbours to node 0, and that of equals to the first.
    assert wrong <= ({"DGL"} if direction == "backward" and p.reduce in ("max", "min") else set())


def test_a_wrong_peer_is_named_and_not_timed(monkeypatch):
    monkeypatch.setitem(peers._OWN, "off by one", lambda p: lambda x: p.plain(x) + 1)
    monkeypatch.setitem(
        peers._OWN,
        "one lost edge",
        lambda p: lambda x: torch.ops.gnna.spmm(x, None, p.src[1:], p.dst[1:], p.num_nodes, "sum"),
    )
    rows, left_out = kernels.measure(problem(), "forward", ["off by one", "one lost edge"], QUICK)
    assert [row["peer"] for row in rows] == ["gnna"]
    assert left_out["off by one"].startswith("wrong") and left_out["one lost edge"].startswith("wrong")


def test_a_wrong_result_of_ours_is_an_error(monkeypatch):
    monkeypatch.setitem(peers._OWN, "gnna", lambda p: lambda x: p.plain(x) * 1.01)
    with pytest.raises(WorkerError, match="wrong"):
        kernels.measure(problem(), "forward", ["none"], QUICK)


def test_a_peer_that_fails_or_refuses_is_told_by_its_reason(monkeypatch):
    def refuses(p):
        raise Unsupported("no sums")

    def fails(p):
        raise RuntimeError("first line\nsecond")

    monkeypatch.setitem(peers._OWN, "refuses", refuses)
    monkeypatch.setitem(peers._OWN, "fails", fails)
    _, left_out = kernels.measure(problem(), "forward", ["refuses", "fails"], QUICK)
    assert left_out["refuses"] == "no sums" and left_out["fails"] == "RuntimeError: first line"


def test_nan_counts_as_wrong():
    nan = torch.tensor([1.0, float("nan")])
    assert not error_of([nan], [torch.ones(2).double()], False) <= 1.0


def test_times_are_per_call_and_in_turn():
    order = []
    timings, _ = time_calls(
        {"a": lambda i: order.append("a"), "b": lambda i: order.append("b")}, torch.device("cpu"), Rounds(3, 0.0001, 0)
    )
    assert set(timings) == {"a", "b"} and all(0 < t.ms < 1 and t.how == "clock" for t in timings.values())
    turns = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert turns == ["a", "b"] * (len(turns) // 2) and len(turns) >= 6


def test_torchs_kernel_takes_our_place_only_inside_the_block():
    p = problem()
    x = p.operands()[0].detach()
    ours = torch.ops.gnna.spmm(x, None, p.src, p.dst, p.num_nodes, "sum")
    with torch_sparse_kernel("cpu"):
        assert torch.allclose(torch.ops.gnna.spmm(x, None, p.src, p.dst, p.num_nodes, "sum"), ours, atol=1e-5)
        with pytest.raises(NotImplementedError):
            torch.ops.gnna.spmm(x, None, p.src, p.dst, p.num_nodes, "max")
    torch.ops.gnna.spmm(x, None, p.src, p.dst, p.num_nodes, "max")


@pytest.mark.parametrize("text", ["2", "0x16", "2x0", "2x16+batch", "x"])
def test_a_shape_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="LAYERSxHIDDEN"):
        epoch.Shape.parse(text)


def test_kernel_rows_and_the_page_made_from_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rates, "gather_gbs", lambda *_: (10.0, "spmm"))
    monkeypatch.setattr(rates, "copy_gbs", lambda *_: 10.0)
    stored, table = tmp_path / "spmm.json", tmp_path / "spmm.csv"
    command = ["bench", "spmm", "--graph", "community:500x4000", "--widths", "8", "--peers", "gather + scatter",
               "--rounds", "1", "--device", "cpu", "--json", str(stored), "--csv", str(table)]  # fmt: skip
    assert cli.main(command) == 0
    result = json.loads(stored.read_text())
    assert {row["peer"] for row in result["rows"]} == {"gnna", "gather + scatter"}
    moved = 4000 * 8 * 4 + 4 * 4000 + 8 * 501 + 500 * 8 * 4
    assert all(row["edges"] == 4000 and row["moved_bytes"] == moved for row in result["rows"])
    assert table.read_text().count("\n") == 3
    written = tmp_path / "benchmarks.md"
    assert cli.main(["bench", "page", str(stored), "--output", str(written)]) == 0
    assert "community:500x4000, 8" in written.read_text() and str(tmp_path) not in written.read_text()


def test_a_file_of_another_kind_is_refused(tmp_path, capsys):
    (tmp_path / "other.json").write_text("[1, 2]")
    assert cli.main(["bench", "page", str(tmp_path / "other.json"), "--output", str(tmp_path / "page.md")]) == 2
    assert "other.json" in capsys.readouterr().err


def test_the_parts_of_the_gain_multiply_to_the_whole():
    times = {"PyG, as run": 12.0, "PyG": 6.0, epoch.MEMO: 4.0, epoch.FUSED: 2.0, "gnna": 1.0}
    rows = [{"graph": "g", "model": "gcn 2x16", "peer": name, "ms": ms} for name, ms in times.items()]
    assert "| g, gcn 2x16 | 12.00x | 2.00x | 1.50x | 2.00x | 2.00x |" in "".join(page._split(rows))
    without_memo = [row for row in rows if row["peer"] != epoch.MEMO]
    assert "| g, gcn 2x16 | 12.00x | 2.00x | - | 3.00x | 2.00x |" in "".join(page._split(without_memo))


@needs_pyg
@pytest.mark.parametrize("model, shape", [("gcn", "2x8"), ("gat", "2x8+norm"), ("sage", "2x8")])
def test_epochs_of_every_arm_are_checked_and_timed(model, shape, monkeypatch):
    monkeypatch.setattr(epoch, "_SLICE_S", 0.0)
    graph, before = load_graph("community:300x2000"), torch.get_num_threads()
    wanted = (epoch.MEMO, epoch.FUSED, "PyG torch.sparse")
    case = epoch.Case(graph, model, epoch.Shape.parse(shape), 12, 4, torch.device("cpu"), 1, 1, 0, True, wanted)
    try:
        rows, left_out = epoch.measure(case)
    finally:
        torch.set_num_threads(before)
        gnna_plugin.disable()
        gnna_plugin.allocator.restore()
    by = {row["peer"]: row for row in rows}
    assert {"PyG", "PyG, as run", "gnna"} <= set(by) and (epoch.MEMO in by) == (model == "gcn")
    assert (epoch.FUSED in by) == (model != "gat")
    assert all(row["error"] < 1e-3 and row["ms"] > 0 and row["steps"] > 0 for row in rows)


def test_plan_and_host_say_what_was_timed(tmp_path):
    for kind, names in (("plan", ["--graph", "community:300x2000"]), ("host", [])):
        stored = tmp_path / f"{kind}.json"
        assert cli.main(["bench", kind, *names, "--rounds", "1", "--device", "cpu", "--json", str(stored)]) == 0
        rows = json.loads(stored.read_text())["rows"]
        assert any(row["peer"].startswith(("gnna, found", "spmm")) for row in rows)
        assert all((row.get("ms") or row.get("us")) > 0 for row in rows)
    assert gnna_plugin.status().frameworks == []
