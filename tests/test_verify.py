"""`gnna verify`: right kernels pass on any graph and dtype, and every kind of wrong result is found."""

import json

import pytest
import torch

from gnna_plugin.data import load_graph
from gnna_plugin.tools import cli
from gnna_plugin.tools.verify import cases, reference
from gnna_plugin.tools.verify.reference import Edges, Exact

SMALL = ["verify", "--graph", "community:300x2000", "--device", "cpu", "--widths", "5"]
DTYPES = ["float32", "float64", "float16", "bfloat16"]


def edges_of(nodes=40, count=300, device="cpu"):
    """Random, with repeated edges and isolated nodes."""
    generator = torch.Generator().manual_seed(count)
    ends = (torch.randint(2, nodes - 3, (count,), generator=generator) for _ in range(2))
    return Edges(*(end.to(device) for end in ends), nodes)


@pytest.fixture(params=[7, 1 << 18])
def chunk(request, monkeypatch):
    monkeypatch.setitem(reference.CHUNK_ELEMENTS, "cpu", request.param)


# ---- the reference ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max", "min"])
def test_the_reference_is_torchs_own_scatter_and_its_gradient(reduce, weighted, chunk):
    edges = edges_of()
    x = torch.randn(edges.nodes, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(300, dtype=torch.float64, requires_grad=True) if weighted else None
    messages = x[edges.src] if weight is None else x[edges.src] * weight[:, None]
    name = {"max": "amax", "min": "amin"}.get(reduce, reduce)
    index = edges.dst[:, None].expand_as(messages)
    out = torch.zeros(edges.nodes, 3, dtype=torch.float64)
    out = out.scatter_reduce(0, index, messages, name, include_self=False)
    grad = torch.randn_like(out)
    leaves = [x] if weight is None else [x, weight]
    wanted = [out, *torch.autograd.grad(out, leaves, grad)]
    bare = (x.detach(), None if weight is None else weight.detach())
    found = [reference.reduced(edges, *bare, reduce), *reference.gradients(edges, *bare, reduce, grad)]
    for have, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(have.value, want.detach(), rtol=1e-12, atol=1e-13)
        assert (have.scale >= have.value.abs() * (1 - 1e-12)).all()


def test_the_reference_of_the_softmax(chunk):
    edges = edges_of()
    scores = (torch.randn(300, 2, dtype=torch.float64) * 4 + 800).requires_grad_()
    rows = [torch.softmax(scores[edges.dst == i], 0) for i in range(edges.nodes)]
    out = torch.empty(300, 2, dtype=torch.float64)
    for i, row in enumerate(rows):
        out[edges.dst == i] = row
    grad = torch.randn_like(scores)
    (wanted,) = torch.autograd.grad(out, scores, grad)
    found = reference.softmax(edges, scores.detach())
    torch.testing.assert_close(found, out.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(reference.gradient_of_scores(edges, found, grad).value, wanted, rtol=1e-10, atol=1e-13)


# ---- the verdict -----------------------------------------------------------------------------------------------------


def test_the_worst_element_decides_in_units_of_its_own_tolerance():
    exact = Exact(torch.tensor([1.0, 0.0, 0.0]).double(), torch.tensor([1.0, 4.0, 0.0]).double())
    allowed = torch.tensor([1e-2, 1e-3, 1e-3])
    assert cases.judge(torch.tensor([1.005, 0.008, 0.0]), exact, allowed) == pytest.approx((2e-3, 1e-3), rel=1e-4)
    assert cases.judge(torch.tensor([1.0, 0.0, 1e-3]), exact, allowed)[0] == float("inf")
    assert cases.judge(torch.tensor([float("nan"), 0.0, 0.0]), exact, allowed)[0] == float("inf")
    assert cases.judge(torch.tensor([1.0, 0.0, 0.0]), exact, allowed)[0] == 0.0


def test_inputs_of_max_are_exact_and_never_zero():
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        generator = torch.Generator().manual_seed(1)
        a, b = (cases._integers((5000,), dtype, generator) for _ in range(2))
        torch.testing.assert_close((a * b).double(), a.double() * b.double(), rtol=0, atol=0)
        assert (a != 0).all() and (a < 0).any() and (a > 0).any()


def test_a_dropped_edge_of_a_long_row_exceeds_the_tolerance():
    terms = torch.randn(10_000, dtype=torch.float64)
    exact = Exact(terms.sum().view(1), terms.abs().sum().view(1))
    allowed = cases.tolerance(10_000.0, torch.float32)
    error, limit = cases.judge((terms.sum() - terms.abs().max()).view(1).float(), exact, allowed)
    assert error > limit
    error, limit = cases.judge(terms.float().sum().view(1), exact, allowed)
    assert error <= limit


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_kernels_pass(dtype, device, tmp_path):
    stored = tmp_path / "verdicts.json"
    words = ["verify", "--graph", "community:300x2000", "--device", device.type, "--widths", "1", "33"]
    assert cli.main([*words, "--dtype", dtype, "--json", str(stored)]) == 0
    result = json.loads(stored.read_text())
    rows = result["rows"]
    assert len(rows) == 2 * 4 * 5 + 2 and all(row["right"] and row["error"] <= row["tolerance"] for row in rows)
    assert {row["weighted"] for row in rows} == {False, True} and result["seed"] >= 0


def test_graphs_of_every_kind_pass():
    for nodes, count in ((40, 300), (500, 60), (6, 0), (30, 20_000)):
        edges, generator = edges_of(nodes, count), torch.Generator().manual_seed(3)
        found = cases.softmax_cases(edges, torch.float32, generator)
        for verdicts in cases.spmm_cases(edges, 4, ["sum", "mean", "max", "min"], torch.float32, generator):
            found += verdicts
        assert all(verdict.right for verdict in found), (nodes, count)


# ---- wrong kernels ---------------------------------------------------------------------------------------------------


def scaled(real):
    return lambda *arguments: real(*arguments) * 1.0001


def without_an_edge(real):
    def wrong(x, weight, src, dst, nodes, reduce):
        return real(x, None if weight is None else weight[1:], src[1:], dst[1:], nodes, reduce)

    return wrong


def towards_the_source(real):
    return lambda x, weight, src, dst, nodes, reduce: real(x, weight, dst, src, nodes, reduce)


def without_weights(real):
    def wrong(x, weight, src, dst, nodes, reduce):
        out = real(x, None, src, dst, nodes, reduce)
        return out if weight is None else out + 0.0 * weight.sum()

    return wrong


def with_a_nan(real):
    def wrong(*arguments):
        out = real(*arguments).clone()
        out[-1, 0] = float("nan")
        return out

    return wrong


@pytest.mark.parametrize("wrong", [scaled, without_an_edge, towards_the_source, without_weights, with_a_nan])
def test_a_wrong_spmm_is_found(wrong, monkeypatch, capsys, tmp_path):
    graph = load_graph("community:300x2000")  # symmetric, so that swapped ends show in the weights only
    assert graph.num_edges == 2000
    monkeypatch.setattr(torch.ops.gnna, "spmm", wrong(torch.ops.gnna.spmm))
    stored = tmp_path / "verdicts.json"
    assert cli.main([*SMALL, "--reduce", "sum", "--json", str(stored)]) == 1
    assert "wrong" in capsys.readouterr().out
    by = {row["operation"]: [] for row in json.loads(stored.read_text())["rows"]}
    for row in json.loads(stored.read_text())["rows"]:
        by[row["operation"]].append(row["right"])
    assert not all(by["spmm"]) and all(by["softmax"])


def test_a_wrong_gradient_is_found(monkeypatch):
    real = torch.ops.gnna.spmm

    class WrongBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, *rest):
            ctx.rest, ctx.shape = rest, x.shape
            return real(x, *rest)

        @staticmethod
        def backward(ctx, grad):  # the artifact's fault: the edges are not reversed
            weight, src, dst, nodes, reduce = ctx.rest
            return real(grad, None, src, dst, nodes, reduce), *(None,) * 5

    monkeypatch.setattr(torch.ops.gnna, "spmm", WrongBackward.apply)
    edges = edges_of()
    found = cases._spmm(edges, 4, "sum", False, torch.float32, torch.Generator().manual_seed(0))
    assert [verdict.right for verdict in found] == [True, False]


def test_a_wrong_softmax_is_found(monkeypatch):
    real = torch.ops.gnna.segment_softmax
    wrong = lambda scores, index, rows: real(scores * 1.001, index, rows)  # noqa: E731
    monkeypatch.setattr(torch.ops.gnna, "segment_softmax", wrong)
    assert cli.main([*SMALL, "--reduce", "sum"]) == 1


def test_inputs_are_new_unless_a_seed_is_given(tmp_path, capsys):
    def errors(*words):
        assert cli.main([*SMALL, "--reduce", "sum", *words, "--json", str(tmp_path / "a.json")]) == 0
        result = json.loads((tmp_path / "a.json").read_text())
        return result["seed"], [row["error"] for row in result["rows"]]

    (first, one), (second, two) = errors(), errors()
    assert first != second and one != two
    assert errors("--seed", str(first)) == (first, one)
    assert str(first) in capsys.readouterr().out
