"""Turns the plug-in on and off, for the process and for a block of code."""

from __future__ import annotations

import contextlib
import difflib
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping

import torch

from gnna_plugin import allocator, decider, replays, settings, tuned, verifying
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.report import logger

_lock = threading.RLock()


class _Installing:
    ident: int | None = None  # of the thread that imports an adapter; _lock lets one thread do so


_installing = _Installing()


def enable(
    *frameworks: str,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    strict: bool | None = None,
    verify: bool | None = None,
    min_work: int | None = None,
    max_plan_bytes: int = settings.Settings.max_plan_bytes,
    keep_memory: bool = True,
    config: Mapping[str, int | str] | decider.Config | None = None,
    schedule: bool = True,
    rewrite: bool = True,
) -> None:
    """Run the neighbour aggregation of PyG and DGL on the plug-in's kernels.

    Affects models built before and after. Calling it again replaces all settings, those that are not given by their
    defaults.

    Args:
        frameworks: "pyg", "dgl"; without names, all that are installed.
        only: layer class names ("GCNConv") to accelerate; None for all. Default: GNNA_ONLY.
        skip: layer class names that run as the framework's own code. One layer opts out with `conv.gnna = False`.
            Default: GNNA_SKIP.
        strict: raise gnna_plugin.Fallback if a call would fall back to the framework. Default: GNNA_STRICT.
        verify: repeat every call of a layer on the framework's own path, and compare outputs and gradients. A
            difference is logged and shown by status(), with the layer's name; with strict=True it raises
            gnna_plugin.Mismatch. Takes three to four times as long. Default: GNNA_VERIFY.
        min_work: smallest edges x feature width to accelerate. Default: GNNA_MIN_WORK, else what `gnna tune` measured
            here, else a measured value per device. By default, small edge lists on a CPU are accelerated only after a
            few uses; an explicit value turns that off.
        max_plan_bytes: bound on the cached CSR plans; the least recently used are dropped first.
        config: launch parameters on CUDA fixed by hand, as in the paper's manual mode, for example {"group_size": 32,
            "lanes": 16, "block": 128}: any of kernel ("row" or "group") and the numbers of gnna_plugin.Config. The
            decider chooses the others. explain() and status() show the outcome.
        schedule: process the rows of plans by community or degree if that is expected to repay its cost. Results are
            bit-identical. False: look for no new order.
        rewrite: compute functions of gathered features from the features of the nodes where that is exact in real
            arithmetic and cheaper (docs/message-algebra.md).
        keep_memory: on Linux, keep freed buffers in the process for later ones of the same size, until disable().

    Raises:
        ValueError: an unknown framework name or a setting out of range.
        ImportError: a named framework, or every known one, is not installed.

    >>> import gnna_plugin
    >>> gnna_plugin.enable("pyg", skip=["GATConv"])
    >>> gnna_plugin.disable()
    """
    names = frameworks or tuple(name for name, framework in FRAMEWORKS.items() if framework.is_installed())
    for name in frameworks:
        if not isinstance(name, str) or name not in FRAMEWORKS:
            hint = "; give names one by one, as in enable('pyg', 'dgl')" if isinstance(name, (list, tuple, set)) else ""
            raise ValueError(f"unknown framework {name!r}; known are {', '.join(map(repr, FRAMEWORKS))}{hint}")
        if not FRAMEWORKS[name].is_installed():
            raise ImportError(f"{name!r} was asked for, but {FRAMEWORKS[name].package} is not installed")
    if not names:
        raise ImportError("no supported framework is installed; `pip install torch-geometric` gives one")
    only = settings.layers_from_environment("GNNA_ONLY") if only is None else only
    skip = settings.layers_from_environment("GNNA_SKIP") or () if isinstance(skip, tuple) and not skip else skip
    for label, classes in (("only", only), ("skip", skip)):
        if isinstance(classes, str) or not (isinstance(classes, Iterable) or (classes is None and label == "only")):
            raise ValueError(f"{label} is {classes!r}; it must be a list of layer class names")
    only, skip = None if only is None else list(only), list(skip)
    for label, classes in (("only", only or []), ("skip", skip)):
        for cls in classes:
            if not isinstance(cls, str):
                raise ValueError(f"{label} holds {cls!r}; it must hold names of layer classes, such as 'GATConv'")
    for label, switch in (("keep_memory", keep_memory), ("schedule", schedule), ("rewrite", rewrite)):
        if not isinstance(switch, bool):
            raise ValueError(f"{label} is {switch!r}; it must be True or False")
    if not settings.is_count(max_plan_bytes):
        raise ValueError(f"max_plan_bytes is {max_plan_bytes!r}; it must be a whole number of bytes, 0 to 2**63 - 1")
    if config is not None and not isinstance(config, (Mapping, decider.Config)):
        raise ValueError(f"config is {config!r}; it must be a dictionary of launch parameters, a Config or None")
    strict = settings.switch_from_environment("strict", strict)
    verify = settings.switch_from_environment("verify", verify)
    min_work = settings.min_work_from_environment(min_work)
    parameters = config.parameters() if isinstance(config, decider.Config) else dict(config or {})
    decider.overrides_of(parameters)  # raises here rather than in a layer
    chosen = settings.Settings(
        only=None if only is None else frozenset(only),
        skip=frozenset(skip),
        strict=strict,
        verify=verify,
        min_work=min_work,
        max_plan_bytes=max_plan_bytes,
        keep_memory=keep_memory,
        config=tuple(parameters.items()),
        tuned_min_work=tuned.load(),
        schedule=schedule,
        rewrite=rewrite,
    )
    if settings.kept_off():
        logger.info("enable() has no effect, because this process is a plain run of `gnna compare`")
        return
    if config and not torch.cuda.is_available():
        logger.warning("config sets parameters of CUDA launches, and there is no CUDA device: it changes nothing here")
    with _lock:
        enabled_before = list(settings.enabled_frameworks)
        try:
            for name in names:
                if name not in settings.enabled_frameworks and _install(name, asked_for=name in frameworks):
                    settings.enabled_frameworks.append(name)
        except BaseException:
            _uninstall_all_but(enabled_before)
            raise
        if settings.enabled_frameworks:
            _apply(chosen)
    for label, classes in (("only", only or []), ("skip", skip)):
        for cls in classes:
            _warn_of_misspelling(label, cls)  # now that the frameworks are imported


def _warn_of_misspelling(label: str, layer: str) -> None:
    """Warn if a layer class has nearly this name but none has it. A class of the user's may be defined later."""
    convs = sys.modules.get("torch_geometric.nn.conv")
    root = getattr(convs, "MessagePassing", None)
    if root is None:
        return
    known, found = set(), [root]
    while found:
        cls = found.pop()
        known.add(cls.__name__)
        found += cls.__subclasses__()
    near = difflib.get_close_matches(layer, known, n=1, cutoff=0.8)
    if layer not in known and near:
        warnings.warn(f"{label} names {layer!r}, which no layer class has so far; {near[0]!r} is near", stacklevel=3)


def is_installing() -> bool:
    """Return whether enable() is at work on this thread. Adapters import their frameworks then."""
    return _installing.ident == threading.get_ident()


def _install(name: str, asked_for: bool) -> bool:
    framework = FRAMEWORKS[name]
    before, _installing.ident = _installing.ident, threading.get_ident()
    try:
        adapter = framework.load()
    except ImportError as error:  # installed, but not in working order, such as a DGL built for another torch
        text = f"{framework.package} is installed but cannot be imported ({error}), so gnna_plugin stays off for it"
        if asked_for:
            raise ImportError(text) from error
        warnings.warn(text, stacklevel=3)
        return False
    finally:
        _installing.ident = before
    try:
        return adapter.install()
    except BaseException:
        adapter.uninstall()  # whatever is in place by now
        raise


def _put_in_force(chosen: settings.Settings) -> None:
    verifying.put_in_force(chosen.verify)
    settings.current = chosen
    torch.ops.gnna.set_max_plan_bytes(chosen.max_plan_bytes)
    torch.ops.gnna.set_overrides(decider.overrides_of(dict(chosen.config)))
    torch.ops.gnna.set_auto_schedule(chosen.schedule)


def _apply(chosen: settings.Settings) -> None:
    _put_in_force(chosen)
    replays.check()
    if chosen.keep_memory:
        allocator.keep_freed_memory()
    else:
        allocator.restore()


def disable() -> None:
    """Restore the frameworks' own functions, drop all plans, and return kept memory. Safe to call at any time.

    Memory that captured CUDA graphs read is kept and logged; see release_captures().
    """
    with _lock:
        _uninstall_all_but([])
        _put_in_force(settings.Settings())
        tuned.unload()
        torch.ops.gnna.clear_cache()
        allocator.restore()
        replays.stop_checking()
        _, held = torch.ops.gnna.captures()
        if held:
            logger.info(
                "%.1f MiB stay for captured CUDA graphs; gnna_plugin.release_captures() gives them back", held / 2**20
            )


def _uninstall_all_but(kept: list[str]) -> None:
    for name in [name for name in settings.enabled_frameworks if name not in kept]:
        settings.enabled_frameworks.remove(name)
        FRAMEWORKS[name].load().uninstall()


def frameworks() -> list[str]:
    """Return the names of the frameworks whose hooks are in place."""
    return list(settings.enabled_frameworks)


@contextlib.contextmanager
def enabled(
    *frameworks: str,
    only: Iterable[str] | None = None,
    skip: Iterable[str] = (),
    strict: bool | None = None,
    verify: bool | None = None,
    min_work: int | None = None,
    max_plan_bytes: int = settings.Settings.max_plan_bytes,
    keep_memory: bool = True,
    config: Mapping[str, int | str] | decider.Config | None = None,
    schedule: bool = True,
    rewrite: bool = True,
) -> Iterator[None]:
    """Enable the plug-in for a block of code; afterwards everything is as it was before.

    Inside a disabled() block, the plug-in is on again for this block.

    Args:
        frameworks, only, skip, strict, verify, min_work, max_plan_bytes, keep_memory, config, schedule, rewrite: as
            for enable().

    Raises:
        ValueError, ImportError: as for enable().

    >>> import gnna_plugin
    >>> with gnna_plugin.enabled("pyg", min_work=0):
    ...     pass
    """
    with _lock:
        installed_before, settings_before = list(settings.enabled_frameworks), settings.current
        enable(
            *frameworks,
            only=only,
            skip=skip,
            strict=strict,
            verify=verify,
            min_work=min_work,
            max_plan_bytes=max_plan_bytes,
            keep_memory=keep_memory,
            config=config,
            schedule=schedule,
            rewrite=rewrite,
        )
    active = settings.set_active(True)
    try:
        yield
    finally:
        settings.set_active(active)
        with _lock:
            if installed_before:
                _uninstall_all_but(installed_before)
                _apply(settings_before)
            else:
                disable()


@contextlib.contextmanager
def disabled() -> Iterator[None]:
    """Run everything on this thread as the frameworks' own code inside the block."""
    active = settings.set_active(False)
    try:
        yield
    finally:
        settings.set_active(active)


def load_ipython_extension(_shell: object) -> None:
    """Turn the plug-in on: IPython calls this for `%load_ext gnna_plugin`."""
    enable()


def unload_ipython_extension(_shell: object) -> None:
    """Turn the plug-in off: IPython calls this for `%unload_ext gnna_plugin`."""
    disable()
