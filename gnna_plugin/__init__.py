"""GNNAdvisor's neighbour aggregation (Wang et al., OSDI 2021) as a plug-in for PyTorch Geometric and DGL.

    import gnna_plugin
    gnna_plugin.enable()

Afterwards, a layer that gathers neighbour features, scales them and reduces them runs as one fused kernel. Everything
else falls back to the framework. `status()` reports what was fused, `disable()` restores the framework. This file owns
the public names.
"""

from gnna_plugin import _load
from gnna_plugin._version import __version__

if _load.load_for_package():
    from gnna_plugin.decider import Config
    from gnna_plugin.explain import Explanation, explain
    from gnna_plugin.ops import clear_cache, release_captures, sddmm, spmm, spmm_csc, spmm_csr
    from gnna_plugin.profiling import Profile, profile
    from gnna_plugin.renumber import renumber
    from gnna_plugin.report import reset as reset_status
    from gnna_plugin.settings import Fallback
    from gnna_plugin.status import Status, status
    from gnna_plugin.switch import (
        disable,
        disabled,
        enable,
        enabled,
        load_ipython_extension,  # noqa: F401
        unload_ipython_extension,  # noqa: F401
    )
    from gnna_plugin.verifying import Mismatch

__all__ = [
    "Config",
    "Explanation",
    "Fallback",
    "Mismatch",
    "Profile",
    "Status",
    "__version__",
    "clear_cache",
    "disable",
    "disabled",
    "enable",
    "enabled",
    "explain",
    "profile",
    "release_captures",
    "renumber",
    "reset_status",
    "sddmm",
    "spmm",
    "spmm_csc",
    "spmm_csr",
    "status",
]
