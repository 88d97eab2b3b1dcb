"""Explains in one sentence why DGL cannot be imported. Each DGL wheel contains libraries for few releases of torch."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn an error of DGL's import into an ImportError that says what is missing.

    DGL 2.0 and later always load GraphBolt, which needs torchdata and a library built for exactly this torch.
    """
    try:
        yield
    except (ImportError, OSError) as error:
        frames = [frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__)]
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not any(str(names.get("__name__")).startswith("dgl.graphbolt") for names in frames):
            raise ImportError(reason) from error
        version = next((names["__version__"] for names in frames if names.get("__name__") == "dgl"), "2")
        raise ImportError(
            f"DGL {version} loads GraphBolt, which fails beside torch {torch.__version__}: {reason}; "
            "install DGL 1.1.3, which does not load it"
        ) from error
