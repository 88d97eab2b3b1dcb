"""Turns the plug-in on in a Python process in which PyTorch Geometric or DGL is imported, and starts the recorder.

`gnna run` and `gnna compare SCRIPT` put this folder on PYTHONPATH, so Python imports this module when it starts, in the
script's process and in those that the script starts. It imports neither torch nor the plug-in: processes without a
framework start as fast as before. A sitecustomize module of the user's own runs as well.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import warnings

_ENABLE = os.environ.get("GNNA_ENABLE", "0").strip().removeprefix("0")  # "" for off
_FRAMEWORKS = {"torch_geometric": "pyg", "dgl": "dgl"}  # package -> the name that enable() takes


class _Watcher(importlib.abc.MetaPathFinder):
    """Finds a framework's package as Python would, with a loader that turns the plug-in on after the import."""

    def __init__(self):
        self._searching = False

    def find_spec(self, name, path=None, target=None):
        if name not in _FRAMEWORKS or self._searching:
            return None
        self._searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _FRAMEWORKS[name])
        return spec


class _Loader(importlib.abc.Loader):
    """Runs another loader, then enable()."""

    def __init__(self, loader, framework):
        self._loader, self._framework = loader, framework

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        for start in (_record, _enable):
            try:
                start(self._framework)
            except Exception as error:  # the script runs without the plug-in
                warnings.warn(f"gnna_plugin stays off for {module.__name__}: {error}", stacklevel=2)


def _record(_framework):
    if "GNNA_RECORD" in os.environ:
        from gnna_plugin.tools.script import recorder

        recorder.start(os.environ["GNNA_RECORD"])


def _enable(framework):
    if not _ENABLE:
        return
    from gnna_plugin import switch

    if not switch.is_installing():  # otherwise an enable() of the script imports the framework
        switch.enable(framework)
    summaries = {"report", "profile", "verify"}.intersection(_ENABLE.split(","))
    if summaries:
        from gnna_plugin.tools.script import summaries as at_end

        at_end.at_exit(summaries)


def _run_users_own():
    """Import the sitecustomize module that Python would have found, and leave sys.path as it would have been."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", sys.path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if _ENABLE or "GNNA_RECORD" in os.environ:
    sys.meta_path.insert(0, _Watcher())
_run_users_own()
