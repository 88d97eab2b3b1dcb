"""The table of frameworks: their names, the packages that Python imports, and the modules of their adapters.

No other module of the runtime names an adapter. This one names them only in strings, so `import gnna_plugin` imports no
framework.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Framework:
    """A framework that the plug-in can accelerate."""

    label: str  # name shown in tables
    package: str  # import name
    distribution: str  # name for pip
    adapter: str  # module of its adapter, which has install() and uninstall()
    hooked: tuple[str, ...]  # packages whose functions the adapter replaces

    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def load(self, part: str = "") -> Any:
        """Import the adapter, or a module of it such as "renumber" or "tools.models".

        Raises:
            ImportError: the framework is not installed or cannot be imported.
        """
        return importlib.import_module(f"{self.adapter}.{part}" if part else self.adapter)


# Keys are the names that enable() and the command line accept.
FRAMEWORKS: dict[str, Framework] = {
    "pyg": Framework(
        label="PyG",
        package="torch_geometric",
        distribution="torch-geometric",
        adapter="gnna_plugin.adapters.pyg",
        hooked=("torch_geometric", "torch_sparse", "torch_scatter"),
    ),
    "dgl": Framework(
        label="DGL",
        package="dgl",
        distribution="dgl",
        adapter="gnna_plugin.adapters.dgl",
        hooked=("dgl",),
    ),
}


def framework_of(value: object) -> Framework | None:
    """Return the framework that defines a value's type or one of its bases, or None."""
    by_package = {framework.package: framework for framework in FRAMEWORKS.values()}
    roots = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
    return next((by_package[root] for root in roots if root in by_package), None)
