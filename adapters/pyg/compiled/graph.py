"""Rewrites the graphs that dynamo traced, before their backend compiles them, and runs the result."""

from __future__ import annotations

import copy
import functools
import inspect
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.fx.experimental import symbolic_shapes

from gnna_plugin import report
from gnna_plugin.patching import Patches

from . import early, fuse

_MODULE, _METHOD = "torch._dynamo.output_graph", "call_user_compiler"
_CAPTURES_ANY_SIZE = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 13)
_patches = Patches()
_installed = False
_ops = torch.ops.gnna
layers: list[str] = []  # the classes of the layers that dynamo has traced since it passed on its last graph


def ensure() -> bool:
    """Make dynamo pass its graphs through this module.

    Called while dynamo traces a layer, which is before it passes on that graph.

    Returns:
        Whether this release of torch has the expected function.
    """
    global _installed
    owner = getattr(sys.modules.get(_MODULE), "OutputGraph", None)
    if owner is None or _installed:
        return _installed
    original = vars(owner).get(_METHOD)
    if list(inspect.signature(original).parameters) != ["self", "gm", "example_inputs"]:
        return False
    _patches.replace(owner, _METHOD, _pass_through(original))
    _installed = True
    return True


def uninstall() -> None:
    """Restore dynamo's function."""
    global _installed
    _patches.undo()
    _installed = False


def forget_compiled() -> None:
    """Drop all compiled code, because it contains PyG's functions as they were when it was compiled."""
    frames = sys.modules.get("torch._dynamo.convert_frame")
    if frames is not None and frames.output_codes.seen:
        torch.compiler.reset()


def _pass_through(original: Callable) -> Callable:
    def call_user_compiler(self: Any, gm: fx.GraphModule, example_inputs: list) -> Callable:
        backend = self.compiler_fn
        self.compiler_fn = _rewriting(backend)
        try:
            return original(self, gm, example_inputs)
        finally:
            self.compiler_fn = backend

    return call_user_compiler


def _rewriting(backend: Callable) -> Callable:
    """Return a backend that rewrites a graph and passes it to `backend`."""

    @functools.wraps(backend)
    def compile_rewritten(gm: fx.GraphModule, example_inputs: list) -> Callable:
        traced = layers.copy()
        layers.clear()
        if not any(_is_ours(node) for node in gm.graph.nodes):
            return backend(gm, example_inputs)

        def layer_of(node: fx.Node) -> str:
            return _module_of(node) or (traced[-1] if traced else "compiled code")

        gm = _copy(gm)
        fused = Counter(map(layer_of, fuse.fuse(gm.graph)))
        reduced = Counter(
            "softmax" if fuse.calls(node, _ops.segment_softmax) else layer_of(node)
            for node in gm.graph.nodes
            if fuse.calls(node, _ops.segment_softmax) or fuse.calls(node, _ops.segment_reduce)
        )
        further_inputs, fakes = early.move(gm)
        gm.graph.lint()
        gm.recompile()
        unknown_sizes = any(symbolic_shapes.free_unbacked_symbols(fake) for fake in fakes)
        compile_graph = _without_cuda_graphs(backend) if unknown_sizes else backend
        compiled = compile_graph(gm, [*example_inputs, *fakes])

        def run(*args: Any) -> Any:
            for layer, calls in fused.items():
                report.fused(layer, calls)
            for layer, calls in reduced.items():
                report.reduced(layer, calls)
            try:
                return compiled(*args, *further_inputs(*args))
            except ValueError as error:
                if "out of range" in str(error):  # an index; PyG's own gather raises an IndexError
                    raise IndexError(str(error)) from None
                raise

        return run

    return compile_rewritten


def _without_cuda_graphs(backend: Callable) -> Callable:
    """Return the backend without the CUDA graphs of mode="reduce-overhead", if this torch cannot combine them.

    Before torch 2.13, Inductor asks for the sizes of all inputs of a graph that it captures.
    """
    inner: Any = backend
    while hasattr(inner, "_torchdynamo_orig_backend"):  # dynamo's wrappers for debugging
        inner = inner._torchdynamo_orig_backend
    config = getattr(inner, "config", None)
    if _CAPTURES_ANY_SIZE or not isinstance(config, dict) or not config.get("triton.cudagraphs"):
        return backend
    changed = copy.copy(inner)
    changed.config = {**config, "triton.cudagraphs": False}
    return changed


def _is_ours(node: fx.Node) -> bool:
    return str(node.target).startswith(("gnna.", "gnna_pyg."))


def _copy(gm: fx.GraphModule) -> fx.GraphModule:
    """Copy a graph, because dynamo still refers to its own."""
    graph, nodes = fx.Graph(), {}  # type: ignore[var-annotated]
    graph.output(graph.graph_copy(gm.graph, nodes))
    for node, same in nodes.items():
        if node.op == "placeholder":
            same._dynamo_source = node._dynamo_source
    copied = fx.GraphModule(gm, graph)
    copied.meta = gm.meta
    for name, value in vars(gm).items():  # what dynamo noted for backends
        vars(copied).setdefault(name, value)
    return copied


def _module_of(node: fx.Node) -> str | None:
    """Return the class of the layer that a node belongs to; None in a layer that was compiled on its own."""
    stack = node.meta.get("nn_module_stack") or {}
    for _, cls in reversed(stack.values()):
        name = (cls if isinstance(cls, str) else cls.__name__).rpartition(".")[2]
        if not name.endswith("Aggregation"):
            return name
    return None
