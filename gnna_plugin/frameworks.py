"""The table of frameworks: what each is called, what Python imports for it, and where its adapter is.

No other module of the runtime names an adapter, and this one does so only in strings: `import gnna_plugin` imports no
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

    label: str  # in tables
    package: str  # the import name
    distribution: str  # the name for pip
    adapter: str  # our module for it, which has install() and uninstall()
    hooked: tuple[str, ...]  # packages whose functions the adapter replaces

    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None

    def load(self, part: str = "") -> Any:
        """Import the adapter, or a module of it such as "renumber" or "tools.models".

        Raises:
            ImportError: the framework is not installed, or not in working order.
        """
        return importlib.import_module(f"{self.adapter}.{part}" if part else self.adapter)


# By the name that enable() and the command line take.
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
    """Return the framework that defines the type of `value` or one of its bases, or None."""
    by_package = {framework.package: framework for framework in FRAMEWORKS.values()}
    roots = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
    return next((by_package[root] for root in roots if root in by_package), None)
