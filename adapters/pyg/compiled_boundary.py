"""Where eager code enters code that torch.compile made: dynamo looks at arguments and closures behind every hook that a
tensor class has, so all messages of the layers at work on this thread are settled before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from torch._C._dynamo import eval_frame

from gnna_plugin.adapters.pyg import layer_call
from gnna_plugin.patching import Patches

_MODULE = "torch._dynamo.eval_frame"
_patches = Patches()
_installed = False
_active = getattr(eval_frame, "get_eval_frame_callback", None)  # absent from torch 2.4


def dynamo_listens() -> bool:
    """Whether dynamo compiles the frames that start now on this thread."""
    return _active is not None and bool(_active())


def _entry(original: Callable) -> Callable:
    def set_eval_frame(callback: Any) -> Any:
        if callback:
            for call in layer_call.running():
                call.settle("torch.compile")
        return original(callback)

    return set_eval_frame


def ensure() -> None:
    """Puts the hook in place once dynamo is loaded, which torch does on the first use of torch.compile."""
    global _installed
    module = sys.modules.get(_MODULE)
    if _installed or module is None or not hasattr(module, "set_eval_frame"):
        return
    _installed = True
    # What a compiled callable calls last before its body, looked up in the module each time.
    name = "_maybe_set_eval_frame" if hasattr(module, "_maybe_set_eval_frame") else "set_eval_frame"
    _patches.replace(module, name, _entry(getattr(module, name)))


def uninstall() -> None:
    global _installed
    _patches.undo()
    _installed = False
