"""Makes the replay of a captured CUDA graph raise if the edges that it was captured with have changed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from gnna_plugin import _load
from gnna_plugin.patching import Patches, stand_in

_patches = Patches()


def _checked(original: Callable) -> Callable:
    changed = torch.ops.gnna.changed_before_replay.default

    def replay(self: torch.cuda.CUDAGraph) -> None:
        if changed():
            raise RuntimeError(
                "gnna_plugin: the edges or edge weights of a captured CUDA graph were changed after its capture and "
                "before a replay, whose results are those of the old edges. Capture the step again after such a "
                "change, or leave these layers to the framework with enable(skip=...)"
            )
        return original(self)

    return stand_in(replay, original)


def check() -> None:
    """Check replays from now on. Does nothing without CUDA, or if they are checked already."""
    graph = torch.cuda.CUDAGraph
    if _load.built_with_cuda() and not _patches:
        _patches.replace(graph, "replay", _checked(graph.replay))


def stop_checking() -> None:
    """Restore torch's own function."""
    _patches.undo()
