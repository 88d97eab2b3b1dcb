"""Settles lazy messages before eager code enters code compiled by torch.compile.

Dynamo inspects arguments and closures without going through any hook of a tensor class. So all messages of the layers
that run on this thread are settled first.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch._C._dynamo import eval_frame

from gnna_plugin.patching import Patches

from . import layer_call

_MODULE = "torch._dynamo.eval_frame"
_patches = Patches()
_installed = False
_active = getattr(eval_frame, "get_eval_frame_callback", None)  # absent from torch 2.4


def dynamo_listens() -> bool:
    """Return whether dynamo compiles the frames that start now on this thread."""
    return _active is not None and bool(_active())


def _entry(original: Callable) -> Callable:
    def set_eval_frame(callback: Any) -> Any:
        if callback:
            for call in layer_call.running():
                call.settle("torch.compile")
        return original(callback)

    return set_eval_frame


def ensure() -> None:
    """Install the hook if dynamo is loaded and the hook is not installed yet.

    torch loads dynamo on the first use of torch.compile.
    """
    global _installed
    module = sys.modules.get(_MODULE)
    if _installed or module is None or not hasattr(module, "set_eval_frame"):
        return
    _installed = True
    # The last function that a compiled callable calls before its body. It is looked up in the module at every call.
    name = "_maybe_set_eval_frame" if hasattr(module, "_maybe_set_eval_frame") else "set_eval_frame"
    _patches.replace(module, name, _entry(getattr(module, name)))


def uninstall() -> None:
    global _installed
    _patches.undo()
    _installed = False
