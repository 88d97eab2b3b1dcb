"""Invalid arguments raise the fitting exception with one sentence. Nothing is corrupted, and the next call works."""

from __future__ import annotations

import pytest
import torch

import gnna_plugin


def call(device, src=(0, 1), dst=(0, 1), x=None, weight=None, num_dst=3, reduce="sum", index_dtype=torch.int64):
    x = torch.ones(3, 4, device=device) if x is None else x
    src, dst = (torch.tensor(side, dtype=index_dtype, device=device) for side in (src, dst))
    return torch.ops.gnna.spmm(x, weight, src, dst, num_dst, reduce)


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("src", "dst", "sentence"),
    [
        ((0, 3, 5), (0, 0, 0), r"src\[1\] = 3 is out of range: valid indices are 0 to 2"),
        ((0, 1, -1), (0, 0, 0), r"src\[2\] = -1 is out of range"),
        ((0, 1, 1), (0, 4, 2), r"dst\[1\] = 4 is out of range: valid indices are 0 to 3"),
        ((0, 1, 1), (-7, 4, 2), r"dst\[0\] = -7 is out of range"),
    ],
)
def test_an_index_out_of_range_is_named_with_position_value_and_limit(device, src, dst, sentence, index_dtype):
    with pytest.raises(ValueError, match=sentence):
        call(device, src, dst, num_dst=4, index_dtype=index_dtype)
    assert call(device).sum() == 8  # after an unchecked access, the CUDA context would be lost


def test_the_first_bad_position_of_a_long_list_is_named(device):
    src = torch.zeros(200_000, dtype=torch.int64, device=device)
    src[150_123] = src[170_000] = 9
    with pytest.raises(ValueError, match=r"src\[150123\] = 9"):
        torch.ops.gnna.spmm(torch.ones(3, 4, device=device), None, src, torch.zeros_like(src), 3, "sum")


def test_indices_are_checked_when_width_is_zero(device):
    with pytest.raises(ValueError, match=r"src\[0\] = 9"):
        call(device, src=(9, 0), x=torch.ones(3, 0, device=device))


def test_unsupported_dtypes_are_refused(device):
    with pytest.raises(TypeError, match="int32 or both int64"):
        torch.ops.gnna.spmm(torch.ones(3, 4, device=device), None, *torch.zeros(2, 2, device=device), 3, "sum")
    with pytest.raises(TypeError, match="float32, float64, float16 and bfloat16 are supported"):
        call(device, x=torch.ones(3, 4, dtype=torch.int32, device=device))
    with pytest.raises(TypeError, match="one dtype"):
        call(device, weight=torch.ones(2, dtype=torch.float64, device=device))


def test_shapes_that_do_not_fit_are_refused(device):
    with pytest.raises(ValueError, match="one length"):
        call(device, src=(0, 1, 2))
    with pytest.raises(ValueError, match="leading feature dimensions"):
        call(device, weight=torch.ones(3, device=device))
    with pytest.raises(ValueError, match="leading feature dimensions"):
        call(device, weight=torch.ones(2, 3, device=device))
    with pytest.raises(ValueError, match="num_dst is -1"):
        call(device, num_dst=-1)
    with pytest.raises(ValueError, match=r"must be \[2, number of edges\]"):
        gnna_plugin.spmm(torch.ones(3, 4, device=device), torch.zeros(5, 2, dtype=torch.int64, device=device))


def test_an_unknown_reduce_is_refused(device):
    with pytest.raises(ValueError, match="reduce is 'median'; accepted are 'sum', 'mean', 'max' and 'min'"):
        call(device, reduce="median")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_two_devices_are_refused():
    with pytest.raises(ValueError, match="one device"):
        torch.ops.gnna.spmm(torch.ones(3, 4, device="cuda"), None, *torch.zeros(2, 2, dtype=torch.int64), 3, "sum")


X, EDGES, POINTERS = torch.ones(3, 4), torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 1, 2, 2])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: gnna_plugin.spmm(X.numpy(), EDGES), r"x is of type ndarray; .* torch.from_numpy\(x\) makes one"),
        (lambda: gnna_plugin.spmm(X, EDGES.numpy()), "edge_index is of type ndarray"),
        (lambda: gnna_plugin.spmm(X, EDGES, torch.ones(2).numpy()), "weight is of type ndarray"),
        (lambda: gnna_plugin.spmm(X.tolist(), EDGES), "x is of type list; it must be a torch.Tensor$"),
        (lambda: gnna_plugin.spmm(X, EDGES, "sum"), "weight is of type str"),
        (lambda: gnna_plugin.spmm(X, EDGES, reduce=None), "reduce is None; accepted are 'sum', 'mean'"),
        (lambda: gnna_plugin.spmm(X, EDGES, num_dst="3"), "num_dst is '3'; it must be a whole number"),
        (lambda: gnna_plugin.spmm(X, EDGES, num_dst=2.0), "num_dst is 2.0"),
        (lambda: gnna_plugin.spmm_csr(X, POINTERS.numpy(), EDGES[0]), "rowptr is of type ndarray"),
        (lambda: gnna_plugin.spmm_csr(X, POINTERS, EDGES[0], perm=[0, 1]), "perm is of type list"),
        (lambda: gnna_plugin.spmm_csr(X, POINTERS, EDGES[0], reduce=3), "reduce is 3"),
        (lambda: gnna_plugin.spmm_csc(X, POINTERS, None), "row is of type NoneType"),
        (lambda: gnna_plugin.spmm_csc(X, POINTERS, EDGES[0], num_dst="3"), "num_dst is '3'"),
        (lambda: gnna_plugin.sddmm(X, None, EDGES), "b is of type NoneType"),
        (lambda: gnna_plugin.sddmm(X, X, EDGES, "1"), "head_dims is '1'"),
    ],
)  # fmt: skip
def test_arguments_of_another_type_are_named(call, sentence):
    with pytest.raises(TypeError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_counts_may_be_of_any_type_of_whole_number():
    numpy = pytest.importorskip("numpy")
    assert gnna_plugin.spmm(X, EDGES, num_dst=numpy.int64(5)).shape == (5, 4)
    with pytest.raises(ValueError, match="x has no dimensions"):
        gnna_plugin.spmm(torch.tensor(1.0), EDGES)


@pytest.mark.slow
def test_the_checks_keep_sizes_symbolic(nothing_compiled):
    compiled = torch.compile(gnna_plugin.spmm, backend="eager", fullgraph=True, dynamic=True)
    for nodes in (7, 9, 11):
        x, edges = torch.randn(nodes, 4), torch.randint(0, nodes, (2, 3 * nodes))
        with torch.compiler.set_stance("default" if nodes == 7 else "fail_on_recompile"):
            torch.testing.assert_close(compiled(x, edges), gnna_plugin.spmm(x, edges))
