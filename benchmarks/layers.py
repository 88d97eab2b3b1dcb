"""Times and weighs a training step of single PyG layers without the plug-in, compiled, and with it, in one process.

    python benchmarks/layers.py --graphs com-dblp facebook-links [--layers PNAConv EdgeConv] [--compiled]

A step is forward and backward; the loss is the mean of squares. Times are medians of --rounds steps that alternate
between the two, in milliseconds. "MiB" is the most memory that a step allocates beyond its inputs. "error" is the
largest relative difference of the output and the gradient of the features. A graph is a name that load_graph() knows,
a file, or NODES:EDGES for a random one.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from coverage import Heterogeneous
from rich.console import Console
from rich.table import Table
from torch import nn as torch_nn
from torch.profiler import ProfilerActivity, profile
from torch_geometric import nn

import gnna_plugin
from gnna_plugin.data import load_graph
from gnna_plugin.data.problem import error_of

ATTRIBUTES, RELATIONS, HEADS = 16, 4, 8


def mlp(inputs: int, width: int) -> torch_nn.Module:
    return torch_nn.Sequential(torch_nn.Linear(inputs, width), torch_nn.ReLU(), torch_nn.Linear(width, width))


def pna(width: int) -> torch_nn.Module:
    scalers, degrees = ["identity", "amplification"], torch.ones(40, dtype=torch.long)
    return nn.PNAConv(width, width, ["mean", "max", "min"], scalers, degrees)


# Layer -> (function of the width that makes it, the inputs of its forward after x and the edges).
LAYERS: dict[str, tuple[Callable[[int], torch_nn.Module], tuple[str, ...]]] = {
    "GATConv": (lambda w: nn.GATConv(w, w // HEADS, HEADS), ()),
    "GATv2Conv": (lambda w: nn.GATv2Conv(w, w // HEADS, HEADS), ()),
    "TransformerConv": (lambda w: nn.TransformerConv(w, w // HEADS, HEADS), ()),
    "PNAConv": (pna, ()),
    "GINEConv": (lambda w: nn.GINEConv(mlp(w, w), edge_dim=ATTRIBUTES), ("attributes",)),
    "EdgeConv": (lambda w: nn.EdgeConv(mlp(2 * w, w)), ()),
    "EdgeConv, one linear": (
        lambda w: nn.EdgeConv(torch_nn.Sequential(torch_nn.Linear(2 * w, w), torch_nn.ReLU())),
        (),
    ),
    "ResGatedGraphConv": (lambda w: nn.ResGatedGraphConv(w, w), ()),
    "GENConv": (lambda w: nn.GENConv(w, w), ()),
    "CGConv": (lambda w: nn.CGConv(w), ()),
    "GeneralConv": (lambda w: nn.GeneralConv(w, w), ()),
    "LEConv": (lambda w: nn.LEConv(w, w), ()),
    "FiLMConv": (lambda w: nn.FiLMConv(w, w), ()),
    "RGCNConv": (lambda w: nn.RGCNConv(w, w, RELATIONS), ("types",)),
    "HGTConv": (lambda w: Heterogeneous(nn.HGTConv, w, w), ()),
}


class Step:
    """A training step of one layer on one graph."""

    def __init__(self, name: str, width: int, nodes: int, edges: torch.Tensor) -> None:
        make, names = LAYERS[name]
        torch.manual_seed(0)
        device, count = edges.device, edges.size(1)
        given = {
            "attributes": torch.randn(count, ATTRIBUTES, device=device),
            "types": torch.randint(0, RELATIONS, (count,), device=device),
        }
        self.layer = make(width).to(device)
        self.x = torch.randn(nodes, width, device=device, requires_grad=True)
        self.rest = [edges, *(given[name] for name in names)]

    def __call__(self, layer: Callable | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        self.x.grad = None
        self.layer.zero_grad()
        out = (self.layer if layer is None else layer)(self.x, *self.rest)
        out = out[0] if isinstance(out, tuple) else out
        out.square().mean().backward()
        return out.detach(), self.x.grad

    def milliseconds(self, layer: Callable | None = None) -> float:
        finish = torch.cuda.synchronize if self.x.is_cuda else lambda: None
        finish()
        start = time.perf_counter()
        self(layer)
        finish()
        return (time.perf_counter() - start) * 1e3

    def mebibytes(self) -> float:
        """Return the most memory in use during a step beyond that before it."""
        if self.x.is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            self()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            self()
        now = most = 0
        for event in profiler.profiler.kineto_results.events():
            if event.name() == "[memory]":
                now += event.nbytes()
                most = max(most, now)
        return most / 2**20


def compare(step: Step, rounds: int, compiled: bool) -> tuple:
    """Return the times of PyG, of compiled PyG (or None) and with the plug-in, both memories, and the error."""
    times: tuple[list[float], list[float]] = [], []
    for i in range(rounds + 3):
        with gnna_plugin.disabled():
            plain = step.milliseconds()
        ours = step.milliseconds()
        if i >= 3:
            times[0].append(plain)
            times[1].append(ours)
    found, ours_mib = step(), step.mebibytes()
    with gnna_plugin.disabled():
        expected, plain_mib = step(), step.mebibytes()
        of_compiled = None
        if compiled:
            torch.compiler.reset()
            layer = torch.compile(step.layer)
            of_compiled = statistics.median([step.milliseconds(layer) for _ in range(rounds + 3)][3:])
    error = error_of(found, expected, by_norm=False)
    return statistics.median(times[0]), of_compiled, statistics.median(times[1]), plain_mib, ours_mib, error


def edges_of(name: str, device: torch.device) -> tuple[int, torch.Tensor]:
    numbers = name.split(":")
    if len(numbers) == 2 and all(n.isdigit() for n in numbers):
        nodes, edges = map(int, numbers)
        return nodes, torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(0)).to(device)
    graph = load_graph(name)
    return graph.num_nodes, torch.stack([torch.from_numpy(graph.src), torch.from_numpy(graph.dst)]).to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["community"])
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS), metavar="LAYER")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="also time PyG's layer under torch.compile")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    device = torch.device(args.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    gnna_plugin.enable("pyg")
    for name in args.graphs:
        nodes, edges = edges_of(name, device)
        table = Table(title=f"{name}: {nodes:,} nodes, {edges.size(1):,} edges; width {args.width}, float32; {where}")
        for heading in ("layer", "PyG ms", "compiled ms", "gnna ms", "x", "PyG MiB", "gnna MiB", "part", "error"):
            table.add_column(heading, justify="right")
        for kind in args.layers:
            plain, compiled, ours, plain_mib, ours_mib, error = compare(
                Step(kind, args.width, nodes, edges), args.rounds, args.compiled
            )
            table.add_row(
                kind, f"{plain:.2f}", "-" if compiled is None else f"{compiled:.2f}", f"{ours:.2f}",
                f"{plain / ours:.2f}", f"{plain_mib:,.0f}", f"{ours_mib:,.0f}", f"{ours_mib / plain_mib:.2f}",
                f"{error:.0e}",
            )  # fmt: skip
            gnna_plugin.clear_cache()
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
