"""Runs every convolution of PyG and writes which of them the plug-in takes, as docs/coverage.md.

    python benchmarks/coverage.py [--device cuda] [--output docs/coverage.md]

Each layer runs one training step on a random graph in eager mode, compiled by torch.compile, and captured as a CUDA
graph (on a GPU only). The table is made of the plug-in's own counts, which status() shows too, and every result is
compared with plain PyG's. The memory of tensors with features of every edge is what torch's profiler sees allocated in
an eager step.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator

import torch
import torch_geometric
from torch import nn as torch_nn
from torch.profiler import ProfilerActivity, profile
from torch_geometric import nn
from torch_geometric.nn import MessagePassing

import gnna_plugin

NODES, EDGES, WIDTH, OUT, ATTRIBUTES, RELATIONS = 100, 20_000, 16, 16, 3, 4
FEATURES_OF_EDGES = EDGES * OUT * 8  # bytes of one tensor in float64


def mlp(width: int = WIDTH, out: int = OUT) -> torch_nn.Module:
    return torch_nn.Sequential(torch_nn.Linear(width, OUT), torch_nn.ReLU(), torch_nn.Linear(OUT, out))


class Heterogeneous(torch_nn.Module):
    """A layer for typed graphs, on a graph with one node type and two edge types."""

    TYPES = (("n", "even", "n"), ("n", "odd", "n"))

    def __init__(self, make: Callable, width: int = WIDTH, out: int = OUT) -> None:
        super().__init__()
        self.conv = make(width, out, (["n"], list(self.TYPES)), heads=2)

    def forward(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        return self.conv({"n": x}, {kind: edges[:, i::2] for i, kind in enumerate(self.TYPES)})["n"]


# Layer -> (function that makes it, the inputs that its forward takes after x; names are those of `inputs`).
LAYERS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "AGNNConv": (lambda: nn.AGNNConv(), ("edges",)),
    "APPNP": (lambda: nn.APPNP(2, 0.1), ("edges",)),
    "ARMAConv": (lambda: nn.ARMAConv(WIDTH, OUT), ("edges",)),
    "AntiSymmetricConv": (lambda: nn.AntiSymmetricConv(WIDTH), ("edges",)),
    "CGConv": (lambda: nn.CGConv(WIDTH), ("edges",)),
    "ChebConv": (lambda: nn.ChebConv(WIDTH, OUT, 3), ("edges",)),
    "ClusterGCNConv": (lambda: nn.ClusterGCNConv(WIDTH, OUT), ("edges",)),
    "DirGNNConv": (lambda: nn.DirGNNConv(nn.SAGEConv(WIDTH, OUT)), ("edges",)),
    "EGConv": (lambda: nn.EGConv(WIDTH, OUT, num_heads=4), ("edges",)),
    "EdgeConv": (lambda: nn.EdgeConv(mlp(2 * WIDTH)), ("edges",)),
    "FAConv": (lambda: nn.FAConv(WIDTH), ("x", "edges")),
    "FastRGCNConv": (lambda: nn.FastRGCNConv(WIDTH, OUT, RELATIONS), ("edges", "types")),
    "FeaStConv": (lambda: nn.FeaStConv(WIDTH, OUT), ("edges",)),
    "FiLMConv": (lambda: nn.FiLMConv(WIDTH, OUT), ("edges",)),
    "GATConv": (lambda: nn.GATConv(WIDTH, OUT, 2), ("edges",)),
    "GATv2Conv": (lambda: nn.GATv2Conv(WIDTH, OUT, 2), ("edges",)),
    "GCN2Conv": (lambda: nn.GCN2Conv(WIDTH, 0.1), ("x", "edges")),
    "GCNConv": (lambda: nn.GCNConv(WIDTH, OUT), ("edges",)),
    "GENConv": (lambda: nn.GENConv(WIDTH, OUT), ("edges",)),
    "GINConv": (lambda: nn.GINConv(mlp()), ("edges",)),
    "GINEConv": (lambda: nn.GINEConv(mlp(), edge_dim=ATTRIBUTES), ("edges", "attributes")),
    "GMMConv": (lambda: nn.GMMConv(WIDTH, OUT, ATTRIBUTES, 2), ("edges", "attributes")),
    "GPSConv": (lambda: nn.GPSConv(WIDTH, nn.GINConv(mlp(WIDTH, WIDTH)), heads=2), ("edges",)),
    "GatedGraphConv": (lambda: nn.GatedGraphConv(WIDTH, 2), ("edges",)),
    "GeneralConv": (lambda: nn.GeneralConv(WIDTH, OUT), ("edges",)),
    "GraphConv": (lambda: nn.GraphConv(WIDTH, OUT), ("edges",)),
    "HANConv": (lambda: Heterogeneous(nn.HANConv), ("edges",)),
    "HEATConv": (
        lambda: nn.HEATConv(WIDTH, OUT, RELATIONS, RELATIONS, 4, ATTRIBUTES, 4, heads=2),
        ("edges", "node types", "types", "attributes"),
    ),
    "HGTConv": (lambda: Heterogeneous(nn.HGTConv), ("edges",)),
    "HypergraphConv": (lambda: nn.HypergraphConv(WIDTH, OUT), ("edges",)),
    "LEConv": (lambda: nn.LEConv(WIDTH, OUT), ("edges",)),
    "LGConv": (lambda: nn.LGConv(), ("edges",)),
    "MFConv": (lambda: nn.MFConv(WIDTH, OUT), ("edges",)),
    "MixHopConv": (lambda: nn.MixHopConv(WIDTH, OUT), ("edges",)),
    "NNConv": (lambda: nn.NNConv(WIDTH, OUT, mlp(ATTRIBUTES, WIDTH * OUT)), ("edges", "attributes")),
    "PDNConv": (lambda: nn.PDNConv(WIDTH, OUT, ATTRIBUTES, 8), ("edges", "attributes")),
    "PNAConv": (lambda: nn.PNAConv(WIDTH, OUT, ["mean", "max"], ["identity"], torch.ones(30).long()), ("edges",)),
    "PPFConv": (lambda: nn.PPFConv(mlp(WIDTH + 4)), ("position", "position", "edges")),
    "PointGNNConv": (
        lambda: nn.PointGNNConv(mlp(WIDTH, 3), mlp(3 + WIDTH, WIDTH), mlp(WIDTH, WIDTH)),
        ("position", "edges"),
    ),
    "PointNetConv": (lambda: nn.PointNetConv(mlp(WIDTH + 3)), ("position", "edges")),
    "PointTransformerConv": (lambda: nn.PointTransformerConv(WIDTH, OUT), ("position", "edges")),
    "RGATConv": (lambda: nn.RGATConv(WIDTH, OUT, RELATIONS), ("edges", "types")),
    "RGCNConv": (lambda: nn.RGCNConv(WIDTH, OUT, RELATIONS), ("edges", "types")),
    "ResGatedGraphConv": (lambda: nn.ResGatedGraphConv(WIDTH, OUT), ("edges",)),
    "SAGEConv": (lambda: nn.SAGEConv(WIDTH, OUT), ("edges",)),
    "SGConv": (lambda: nn.SGConv(WIDTH, OUT, 2), ("edges",)),
    "SSGConv": (lambda: nn.SSGConv(WIDTH, OUT, 0.1, 2), ("edges",)),
    "SignedConv": (lambda: nn.SignedConv(WIDTH, OUT, first_aggr=True), ("edges", "edges")),
    "SimpleConv": (lambda: nn.SimpleConv(), ("edges",)),
    "SuperGATConv": (lambda: nn.SuperGATConv(WIDTH, OUT, 2), ("edges",)),
    "TAGConv": (lambda: nn.TAGConv(WIDTH, OUT), ("edges",)),
    "TransformerConv": (lambda: nn.TransformerConv(WIDTH, OUT, 2), ("edges",)),
    "WLConvContinuous": (lambda: nn.WLConvContinuous(), ("edges",)),
}


def inputs(device: torch.device) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    made = {
        "x": torch.randn(NODES, WIDTH, generator=generator, dtype=torch.float64),
        "position": torch.randn(NODES, 3, generator=generator, dtype=torch.float64),
        "edges": torch.randint(0, NODES, (2, EDGES), generator=generator),
        "node types": torch.randint(0, RELATIONS, (NODES,), generator=generator),
        "types": torch.randint(0, RELATIONS, (EDGES,), generator=generator),
        "attributes": torch.rand(EDGES, ATTRIBUTES, generator=generator, dtype=torch.float64),
    }
    return {name: tensor.to(device) for name, tensor in made.items()}


class Step:
    """One training step of a layer: the output, and the gradients of x and of the parameters."""

    def __init__(self, name: str, device: torch.device) -> None:
        make, names = LAYERS[name]
        torch.manual_seed(0)
        given = inputs(device)
        self.layer = make().double().to(device).eval()
        self.x, self.rest = given["x"].requires_grad_(), [given[rest] for rest in names]

    def __call__(self, layer: Callable | None = None) -> list[torch.Tensor]:
        out = (self.layer if layer is None else layer)(self.x, *self.rest)
        out = out[0] if isinstance(out, tuple) else out
        leaves = [self.x, *self.layer.parameters()]
        return [out.detach(), *torch.autograd.grad(out.square().mean(), leaves, allow_unused=True)]


def same(found: list, expected: list, again: list) -> bool:
    """Return whether results are PyG's to rounding, or as close as PyG's own are to each other on another run."""
    for a, b, c in zip(found, expected, again, strict=True):
        noise = 0 if b is None else 10 * (b - c).abs().max().item()
        if a is not None and not torch.allclose(a, b, rtol=1e-8, atol=max(1e-12, noise)):
            return False
    return True


def features_of_edges(step: Step) -> float:
    """Return how many tensors of edges x features a step allocates, by their bytes. Smaller tensors do not count."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if step.x.is_cuda else [])]
    step()
    with profile(activities=activities, profile_memory=True) as profiler:
        step()
    sizes = [e.nbytes() for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    return sum(size for size in sizes if size >= FEATURES_OF_EDGES / 2) / FEATURES_OF_EDGES


def memory(name: str, device: torch.device) -> tuple[float, float]:
    """Return features_of_edges() of PyG's layer and with the plug-in."""
    step = Step(name, device)
    plain = features_of_edges(step)
    with gnna_plugin.enabled("pyg", min_work=0):
        return plain, features_of_edges(step)


@contextlib.contextmanager
def counted() -> Iterator[Counter]:
    """Collect the calls of a block: "fused", "reduced" and "softmax", "made" (gathers made) and "PyG" (left to it)."""
    made: Counter = Counter()
    before = gnna_plugin.status().layers
    yield made
    for name, now in gnna_plugin.status().layers.items():
        then = before.get(name, gnna_plugin.report.LayerCounts())
        made["fused"] += now.fused - then.fused
        made["softmax" if name == "softmax" else "reduced"] += now.reduced - then.reduced
        made["made"] += sum(now.materialised.values()) - sum(then.materialised.values())
        made["PyG"] += sum(now.framework.values()) - sum(then.framework.values())


def text(calls: Counter) -> str:
    words = {"fused": "fused", "softmax": "softmax", "reduced": "reduced", "made": "gathered", "PyG": "PyG's"}
    return ", ".join(f"{calls[key]} {word}" for key, word in words.items() if calls[key]) or "-"


def run(name: str, mode: str, device: torch.device) -> tuple[str, str, str]:
    """Return what one step of the layer does in this mode, the forms of its messages, and what is not fused."""
    step = Step(name, device)
    expected, again = step(), step()
    torch.compiler.reset()
    with gnna_plugin.enabled("pyg", min_work=0):
        layer = torch.compile(step.layer, backend="aot_eager") if mode == "compiled" else None
        aside = torch.cuda.Stream() if mode == "captured" else None
        with torch.cuda.stream(aside) if aside else contextlib.nullcontext():
            for _ in range(3):
                step(layer)
        if mode == "captured":
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph), counted() as calls:
                found = step()
            graph.replay()
        else:
            with counted() as calls:
                found = step(layer)
        status = gnna_plugin.status().layers
    reasons: Counter = Counter()
    forms: Counter = Counter()
    for counts in status.values():
        forms.update(counts.forms)
        reasons.update(counts.materialised)
        reasons.update(counts.framework)
    wrong = "" if same(found, expected, again) else " **WRONG**"
    gnna_plugin.report.reset()
    gnna_plugin.release_captures()
    return text(calls) + wrong, "; ".join(sorted(forms)), ", ".join(sorted(reasons))


def captures_plain(name: str, device: torch.device) -> bool:
    """Return whether a step of PyG's own layer can be captured."""
    torch.cuda.synchronize()  # after a failed capture
    step = Step(name, device)
    try:
        with torch.cuda.stream(torch.cuda.Stream()):
            step()
        torch.cuda.synchronize()
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            step()
    except RuntimeError:
        torch.cuda.synchronize()
        return False
    return True


def page(device: torch.device) -> str:
    modes = ["eager", "compiled", *(["captured"] if device.type == "cuda" else [])]
    heads = ["layer", "messages", "features of edges", *modes, "what is not fused, and why"]
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    free = 0
    for name in LAYERS:
        cells, form, reason = [], "", ""
        plain, ours = memory(name, device)
        free += ours == 0
        for mode in modes:
            try:
                cell, forms, why = run(name, mode, device)
            except Exception as error:
                cell, forms, why = f"fails: {type(error).__name__}", "", ""
                if mode == "captured" and not captures_plain(name, device):
                    cell = "cannot be captured, with PyG alone neither"
            cells.append(cell)
            if mode == "eager":
                form, reason = forms, why
        rows.append(f"| {name} | {form} | {plain:.0f} -> {ours:.0f} | {' | '.join(cells)} | {reason} |")
    others = sorted(
        name
        for name, cls in vars(importlib.import_module("torch_geometric.nn.conv")).items()
        if inspect.isclass(cls) and issubclass(cls, MessagePassing) and cls is not MessagePassing and name not in LAYERS
    )
    where = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU"
    return f"""# Coverage: PyG's convolutions

Written by `python benchmarks/coverage.py` on {where}, with torch {torch.__version__} and PyG
{torch_geometric.__version__}. Every row is one training step, whose output and gradients equal plain PyG's.

{free} of these {len(LAYERS)} layers store nothing of the size of edges x features, in either direction.

"messages": the formula that one kernel computes and reduces. j is a neighbour, i the node itself, e and w belong to the
edge (message-algebra.md). "features of edges": how many tensors of edges x {OUT} features a step allocates, without and
with the plug-in. Inputs and layers with features of edges of their own keep those.

"fused": aggregations, and scores of edges, that ran as one kernel without a tensor of edges x features. "softmax":
softmaxes over the edges of a node in one kernel. "reduced": reductions of existing messages in one kernel. "gathered":
gathers of node features that were made, because the next operation has no fused form. "PyG's": gathers that PyG made.
Compiled layers do not count gathers. `gnna_plugin.status()` shows the same numbers for your own model.

{chr(10).join(rows)}

Not run here, because they need further packages or inputs of their own: {", ".join(others)}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", metavar="FILE", default="docs/coverage.md")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    text = page(torch.device(args.device))
    with open(args.output, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main()
