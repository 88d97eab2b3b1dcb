"""The element types of the kernels for NumPy: how values are stored, and in which type they are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Storage:
    """One element type.

    Attributes:
        name: its name in NumPy, torch and tests/simt/driver.cpp.
        itemsize: bytes per stored element.
        compute: NumPy type of the kernels' arithmetic and accumulation.
        eps: spacing of the stored numbers at 1.
        smallest: spacing of the stored numbers at 0.
    """

    name: str
    itemsize: int
    compute: type
    eps: float
    smallest: float

    def __str__(self):
        return self.name

    @property
    def full(self) -> int:
        """Return the number of elements in 16 bytes."""
        return 16 // self.itemsize

    @property
    def compute_eps(self) -> float:
        return float(np.finfo(self.compute).eps)

    def encode(self, values) -> np.ndarray:
        """Round values to this type, to nearest even, and return them as stored (16-bit types as int16).

        values must be exact in `compute`, so that they are rounded only once.
        """
        values = np.asarray(values).astype(self.compute)
        if self.itemsize > 2:
            return values
        return torch.from_numpy(values).to(getattr(torch, self.name)).view(torch.int16).numpy()

    def decode(self, data) -> np.ndarray:
        """Convert bytes, or an array that encode() returned, to numbers of the type `compute`."""
        data = data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()
        if self.itemsize > 2:
            return np.frombuffer(data, self.compute).copy()
        bits = torch.from_numpy(np.frombuffer(data, np.int16).copy())
        return bits.view(getattr(torch, self.name)).float().numpy()

    def round(self, values) -> np.ndarray:
        """Round values to this type and return them in the type `compute`."""
        return self.decode(self.encode(values)).reshape(np.shape(values))

    def rounding(self, values) -> np.ndarray:
        """Return the largest error of the single rounding when results are stored, 0 if they are not converted."""
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
