"""Runs the plug-in with torch's own sparse kernels, to separate the gain of the fused gather from that of our kernel.

Inside the block, the CPU or CUDA kernel of gnna::spmm is torch.sparse.mm (MKL or cuSPARSE) on a CSR matrix that is
built once per edge list. Hooks, plan keys and autograd do not change.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def torch_sparse_kernel(device_type: str) -> Iterator[None]:
    """Return a context in which gnna::spmm runs torch.sparse.mm.

    ``device_type`` is "cpu" or "cuda". The context supports sums and means with at most one weight per edge. Inside the
    block, anything else raises NotImplementedError.
    """
    matrices: dict[tuple, tuple] = {}

    def matrix(weight, src, dst, shape, dtype):
        ends = (src, dst) if weight is None else (src, dst, weight)
        key = (*(t.data_ptr() for t in ends), src.numel(), *shape, dtype)
        if key not in matrices:
            order = torch.argsort(dst, stable=True)
            degree = torch.bincount(dst, minlength=shape[0])
            rowptr = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
            values = torch.ones(src.numel(), dtype=dtype, device=src.device) if weight is None else weight[order]
            made = torch.sparse_csr_tensor(rowptr, src[order], values, shape, check_invariants=False)
            # ends is stored so that no other tensor gets the addresses in the key.
            matrices[key] = made, degree.clamp(min=1).to(dtype).unsqueeze(1), ends
        return matrices[key]

    def spmm(x, weight, src, dst, num_dst, reduce, cache=True):
        if reduce not in ("sum", "mean") or x.dim() != 2 or (weight is not None and weight.dim() != 1):
            raise NotImplementedError("torch.sparse.mm supports only sums and means of rows with one weight per edge")
        found, count, _ = matrix(weight, src, dst, (num_dst, x.size(0)), x.dtype)
        out = torch.sparse.mm(found, x)
        return out / count if reduce == "mean" else out

    library = torch.library.Library("gnna", "IMPL")
    # Releases of torch that have this argument refuse an override without it. Older ones only warn.
    override = {"allow_override": True} if "allow_override" in inspect.signature(library.impl).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about the override, which is intended here
        library.impl("spmm", spmm, device_type.upper(), **override)
    try:
        yield
    finally:
        library._destroy()
