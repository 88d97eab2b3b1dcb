"""Replaces PyG's products of a sparse matrix and features: utils.spmm, torch_sparse.matmul and EdgeIndex.matmul.

A layer that gets a SparseTensor, a torch.sparse matrix or a sorted EdgeIndex makes such a product instead of messages.
The matrix is used as it is, and its plan is cached with its index tensors. A matrix that a layer makes in every forward
pass, as gcn_norm does, would not repay a plan, so the first uses of each matrix are left to the framework.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric import edge_index as edge_index_module
from torch_geometric.typing import SparseTensor
from torch_geometric.utils import spmm

from gnna_plugin import report, settings, surroundings
from gnna_plugin.patching import Patches, stand_in

from . import consume, layer_call, small_graphs

_REDUCES = {"sum": "sum", "add": "sum", "mean": "mean", "max": "max", "min": "min"}
_FIRST_USES = 8  # more than the layers of a usual model make of one matrix
_CONVERTED = ("torch.sparse_coo", "torch.sparse_csc")  # PyG converts them to CSR in every call, with a warning
_PLAIN = (Tensor, torch.nn.Parameter)
_patches = Patches()
_uses: WeakIdKeyDictionary = WeakIdKeyDictionary()  # matrix -> its uses so far


class _Matrix(NamedTuple):
    """A sparse matrix [rows, cols].

    Attributes:
        pointers: [rows + 1] if the entries are in CSR form, else None.
        row, col: [E], the entries in any order; row is None in CSR form.
        value: [E], or None for ones.
    """

    rows: int
    cols: int
    pointers: Tensor | None
    row: Tensor | None
    col: Tensor
    value: Tensor | None


def _multiply(key: Any, read: Callable[[], _Matrix | None], other: Any, reduce: str, kind: str) -> Tensor | None:
    """Return matrix @ other, or None if the call is left to the framework.

    Args:
        key: the object whose uses are counted.
        read: returns the matrix, or None if it has no supported form.
        other: features [cols, F], or [*B, cols, F] for a SparseTensor.
        kind: the name of the matrix's class, for status().
    """
    if not settings.active() or type(other) not in _PLAIN or reduce not in _REDUCES:
        return None
    if other.dim() < 2 or (other.dim() > 2 and kind != "SparseTensor"):
        return None
    call = layer_call.current()
    layer = kind if call is None else type(call.layer).__name__
    if not settings.current.chooses(layer) or (call is not None and not call.layer.__dict__.get("gnna", True)):
        report.left_to_framework(layer, report.EXCLUDED)
        return None
    reason = surroundings.reason(other) or _too_early(key, kind)
    if reason is None:
        try:
            matrix = read()
        except ValueError:
            matrix = None  # the framework raises its own error
        reason = f"{kind} of a form that the ops do not take" if matrix is None else _unfit(matrix, other, reduce, kind)
        if reason is None and matrix is not None:
            return _product(matrix, other, _REDUCES[reduce], layer)
    report.left_to_framework(layer, reason or "")
    return None


def _too_early(key: Any, kind: str) -> str | None:
    if surroundings.saved_tensor_hooks():
        return "saved-tensor hooks (activation checkpointing)"
    _uses[key] = uses = _uses.get(key, 0) + 1
    if settings.current.min_work is None:
        return report.COMES_ONCE if uses <= _FIRST_USES else None
    return "PyG warns once that it converts the matrix" if kind in _CONVERTED and uses == 1 else None


def _unfit(matrix: _Matrix, other: Tensor, reduce: str, kind: str) -> str | None:
    if other.dtype not in settings.DTYPES.get(other.device.type, ()):
        return f"{str(other.dtype).removeprefix('torch.')} features"
    if matrix.col.device != other.device or other.size(-2) != matrix.cols:
        return "features that do not fit the matrix"
    value = matrix.value
    if value is not None and (type(value) not in _PLAIN or value.dim() != 1 or not value.is_floating_point()):
        return "values that are not one number per entry"
    if value is not None and value.dtype != other.dtype and kind != "SparseTensor":  # only torch-sparse converts them
        return "values of another dtype"
    trained = torch.is_grad_enabled() and (other.requires_grad or (value is not None and value.requires_grad))
    if trained and reduce in ("max", "min"):
        return "gradients of max or min, of which the libraries share ties in different ways"
    if other.is_cuda and reduce in ("max", "min") and kind.startswith("torch."):
        return "max or min of a torch.sparse matrix on CUDA, which PyG refuses"
    work = matrix.col.numel() * (other.numel() // max(matrix.cols, 1))
    if not work:
        return "no edges or no features"
    return small_graphs.too_small(work, matrix.col, other.is_cuda, known=True)


def _product(matrix: _Matrix, other: Tensor, reduce: str, layer: str) -> Tensor | None:
    weight = matrix.value
    if weight is not None and weight.dtype != other.dtype:
        weight = weight.to(other.dtype)
    x, weight = consume.kept_operands(other, weight, reduce)
    x = x.movedim(-2, 0)
    try:
        if matrix.pointers is not None:
            row, col = torch.ops.gnna.edges_of_csr(matrix.pointers, matrix.col, None, matrix.cols, True)
        else:
            row, col = matrix.row, matrix.col
        out = torch.ops.gnna.spmm(x, weight, col, row, matrix.rows, reduce, True)
    except ValueError:
        return None  # the framework raises its own error
    report.aggregated(layer, x, weight, col, row, out, reduce)
    return out.movedim(0, -2).contiguous() if other.dim() > 2 else out


# ---- matrices of each kind -------------------------------------------------------------------------------------------


def _of_torch(matrix: Tensor, other: Tensor) -> _Matrix | None:
    if matrix.dim() != 2 or matrix.requires_grad:
        return None
    rows, cols = matrix.shape

    def value() -> Tensor:
        # PyG converts these matrices, so later writes to their values do not change its gradients.
        return matrix.values().clone() if other.requires_grad and torch.is_grad_enabled() else matrix.values()

    if matrix.layout is torch.sparse_csr:
        return _Matrix(rows, cols, matrix.crow_indices(), None, matrix.col_indices(), matrix.values())
    if matrix.layout is torch.sparse_coo and matrix.is_coalesced():
        # A copy, because the indices share the values' version, and a write to the values may follow.
        indices = matrix.indices()
        known, _ = torch.ops.gnna.recall("COO", [indices])
        row, col = (known or torch.ops.gnna.remember("COO", [indices], [indices.clone()], ""))[0].unbind()
        return _Matrix(rows, cols, None, row, col, value())
    if matrix.layout is torch.sparse_csc:
        col, row = torch.ops.gnna.edges_of_csr(matrix.ccol_indices(), matrix.row_indices(), None, rows, True)
        return _Matrix(rows, cols, None, row, col, value())
    return None


def _of_sparse_tensor(matrix: Any) -> _Matrix:
    row, col, value = matrix.coo()
    return _Matrix(matrix.size(0), matrix.size(1), None, row, col, value)


def _of_edge_index(edges: Any, value: Tensor | None, transpose: bool) -> _Matrix:
    row, col = edges._data.unbind()
    rows, cols = edges.get_sparse_size(0), edges.get_sparse_size(1)
    return _Matrix(cols, rows, None, col, row, value) if transpose else _Matrix(rows, cols, None, row, col, value)


def _utils_hook(original: Callable) -> Callable:
    compiling, active, multiply = torch.compiler.is_compiling, settings.active, _multiply
    torch_layouts = (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo)
    of_torch, of_sparse_tensor, sparse_tensor = _of_torch, _of_sparse_tensor, SparseTensor

    def spmm(src, other, reduce="sum"):
        if compiling() or not active():
            return original(src, other, reduce)
        out = None
        if type(src) is Tensor and src.layout in torch_layouts:
            out = multiply(src, lambda: of_torch(src, other), other, reduce, f"torch.{str(src.layout)[6:]}")
        elif isinstance(src, sparse_tensor):
            out = multiply(src.storage, lambda: of_sparse_tensor(src), other, reduce, "SparseTensor")
        return original(src, other, reduce) if out is None else out

    return stand_in(spmm, original)


def _torch_sparse_hook(original: Callable) -> Callable:
    compiling, active, multiply = torch.compiler.is_compiling, settings.active, _multiply
    of_sparse_tensor = _of_sparse_tensor

    def spmm(src, other, reduce="sum"):
        if compiling() or not active():
            return original(src, other, reduce)
        out = multiply(src.storage, lambda: of_sparse_tensor(src), other, reduce, "SparseTensor")
        return original(src, other, reduce) if out is None else out

    return stand_in(spmm, original)


def _edge_index_hook(original: Callable) -> Callable:
    compiling, active, multiply, of_edge_index = torch.compiler.is_compiling, settings.active, _multiply, _of_edge_index

    def _spmm(input, other, value=None, reduce="sum", transpose=False):
        if compiling() or not active() or not (input.is_sorted_by_col if transpose else input.is_sorted_by_row):
            return original(input, other, value, reduce, transpose)
        out = multiply(input._data, lambda: of_edge_index(input, value, transpose), other, reduce, "EdgeIndex")
        return original(input, other, value, reduce, transpose) if out is None else out

    return stand_in(_spmm, original)


def install() -> None:
    """Replace the products."""
    _patches.replace_everywhere("torch_geometric", spmm, _utils_hook(spmm))
    _patches.replace(edge_index_module, "_spmm", _edge_index_hook(edge_index_module._spmm))
    library = sys.modules.get("torch_sparse.matmul")
    if library is not None:
        _patches.replace_everywhere("torch_sparse", library.spmm, _torch_sparse_hook(library.spmm))


def uninstall() -> None:
    """Restore the frameworks' own functions."""
    _patches.undo()
