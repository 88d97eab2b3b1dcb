"""The element types of the kernels as numpy sees them: how values are stored, and what they are computed in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Storage:
    name: str  # numpy's and torch's, and the one that tests/simt/driver.cpp knows
    itemsize: int
    compute: type  # of the kernels' arithmetic and accumulation
    eps: float  # spacing of the stored numbers at 1
    smallest: float  # spacing of the stored numbers at 0

    def __str__(self):
        return self.name

    @property
    def full(self) -> int:
        """Elements in 16 bytes."""
        return 16 // self.itemsize

    @property
    def compute_eps(self) -> float:
        return float(np.finfo(self.compute).eps)

    def encode(self, values) -> np.ndarray:
        """The values as they lie in memory, rounded once, to nearest even. From compute or what is exact in it."""
        values = np.asarray(values).astype(self.compute)
        if self.itemsize > 2:
            return values
        return torch.from_numpy(values).to(getattr(torch, self.name)).view(torch.int16).numpy()

    def decode(self, data) -> np.ndarray:
        """Numbers to compute with, from bytes or from what encode gave."""
        data = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        if self.itemsize > 2:
            return np.frombuffer(data, self.compute).copy()
        bits = torch.from_numpy(np.frombuffer(data, np.int16).copy())
        return bits.view(getattr(torch, self.name)).float().numpy()

    def round(self, values) -> np.ndarray:
        """What is left of the values once they are stored; to compute with."""
        return self.decode(self.encode(values)).reshape(np.shape(values))

    def rounding(self, values) -> np.ndarray:
        """By how much the one rounding at the store may change results that were computed in another type."""
        if self.itemsize > 2:
            return np.zeros_like(values)
        return np.maximum(np.abs(values) * self.eps, self.smallest) / 2

    def flag(self) -> dict:
        return {} if self.name == "float32" else {self.name: 1}


FLOAT32 = Storage("float32", 4, np.float32, 2**-23, 2**-149)
FLOAT64 = Storage("float64", 8, np.float64, 2**-52, 2**-1074)
FLOAT16 = Storage("float16", 2, np.float32, 2**-10, 2**-24)
BFLOAT16 = Storage("bfloat16", 2, np.float32, 2**-7, 2**-133)
STORAGES = [FLOAT32, FLOAT64, FLOAT16, BFLOAT16]
