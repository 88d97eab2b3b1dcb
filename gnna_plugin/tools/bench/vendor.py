"""The plug-in with torch's own sparse kernels in the place of ours: what tells a fused gather's gain from a kernel's.

Hooks, plan keys and autograd stay as they are; only the CPU or CUDA kernel of gnna::spmm is another while the block
runs: torch.sparse.mm, that is MKL or cuSPARSE, on a CSR matrix made once per edge list.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def torch_sparse_kernel(device_type: str) -> Iterator[None]:
    """Sums and means with one weight per edge at most; anything else raises NotImplementedError inside the block."""
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
            matrices[key] = made, degree.clamp(min=1).to(dtype).unsqueeze(1), ends  # which keeps the addresses taken
        return matrices[key]

    def spmm(x, weight, src, dst, num_dst, reduce, cache=True):
        if reduce not in ("sum", "mean") or x.dim() != 2 or (weight is not None and weight.dim() != 1):
            raise NotImplementedError("torch.sparse.mm sums rows with one weight per edge")
        found, count, _ = matrix(weight, src, dst, (num_dst, x.size(0)), x.dtype)
        out = torch.sparse.mm(found, x)
        return out / count if reduce == "mean" else out

    library = torch.library.Library("gnna", "IMPL")
    # Releases that know the word refuse without it; older ones only warn.
    override = {"allow_override": True} if "allow_override" in inspect.signature(library.impl).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that a kernel is overridden: that is what is wanted
        library.impl("spmm", spmm, device_type.upper(), **override)
    try:
        yield
    finally:
        library._destroy()
