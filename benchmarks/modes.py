"""Times training epochs of PyG models in every mode: eager, compiled by torch.compile, and captured as a CUDA graph.

Each mode runs plain and with the plug-in.

    python benchmarks/modes.py --graphs cora DD com-dblp random:200000:1900000 [--models gcn gin sage gat]
                               [--modes eager compiled captured compiled+captured] [--device cuda] [--json FILE]

The models are GCN 2x16, GIN 5x64, GraphSAGE 3x256 and GAT 2x8 with 4 heads, with 96 random features and 22 random
classes, trained by Adam. random:N:E is a graph of N nodes and E edges in arbitrary order. PyG cannot compute the
normalisation of a GCN or the self-loops of a GAT during a capture, so captured models of plain PyG cache the first and
get edges that contain the second. Times are medians over blocks of epochs, in milliseconds. The JSON file also holds
the losses after the last epoch, which different numbers of epochs precede in different modes. Peak memory (CUDA) is
that of one epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table
from torch_geometric.nn import GATConv
from torch_geometric.utils import add_self_loops, remove_self_loops

import gnna_plugin
from gnna_plugin.adapters.pyg.tools.models import make_bench_model
from gnna_plugin.data import load_graph

FEATURES, CLASSES, WARM_UP, BLOCKS = 96, 22, 8, 6
SECONDS_PER_BLOCK = 0.3
SHAPES = {"gcn": (16, 2), "gin": (64, 5), "sage": (256, 3), "gat": (8, 2)}  # hidden width, layers
MODES = ("eager", "compiled", "captured", "compiled+captured")


def edges_of(name: str) -> tuple[torch.Tensor, int]:
    if name.startswith("random:"):
        nodes, edges = map(int, name.split(":")[1:])
        return torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(0)), nodes
    graph = load_graph(name)
    return torch.stack([torch.from_numpy(graph.src), torch.from_numpy(graph.dst)]), graph.num_nodes


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(epoch, device: torch.device) -> float:
    def block(epochs: int) -> float:
        finish(device)
        start = time.perf_counter()
        for _ in range(epochs):
            epoch()
        finish(device)
        return (time.perf_counter() - start) / epochs

    epochs = max(1, min(100, round(SECONDS_PER_BLOCK / block(1))))
    return statistics.median(block(epochs) for _ in range(BLOCKS)) * 1e3


def measure(kind: str, edges: torch.Tensor, nodes: int, mode: str, plain: bool) -> dict:
    """Return ms and loss of an epoch, and its peak MiB on CUDA."""
    device, captured = edges.device, "captured" in mode
    torch.manual_seed(0)
    x = torch.randn(nodes, FEATURES, device=device)
    labels = torch.randint(0, CLASSES, (nodes,), device=device)
    hidden, layers = SHAPES[kind]
    prepared = captured and plain
    model = make_bench_model(kind, FEATURES, hidden, CLASSES, layers, norm=False, cached=prepared).to(device)
    if prepared and kind == "gat":
        edges, _ = add_self_loops(remove_self_loops(edges)[0], num_nodes=nodes)
        for module in model.modules():
            if isinstance(module, GATConv):
                module.add_self_loops = False
    model = torch.compile(model) if "compiled" in mode else model
    optimizer = torch.optim.Adam(model.parameters(), 0.01, capturable=captured)

    def step():
        optimizer.zero_grad(set_to_none=not captured)
        loss = torch.nn.functional.cross_entropy(model(x, edges), labels)
        loss.backward()
        optimizer.step()
        return loss

    if not captured:
        for _ in range(WARM_UP):
            step()
        ms = milliseconds(step, device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        loss = step().item()
    else:
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.reset_peak_memory_stats()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = step()
        ms = milliseconds(graph.replay, device)
        loss = result.item()
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None
    return {"ms": ms, "loss": loss, "peak_mib": peak}


def outcome(kind: str, edges: torch.Tensor, nodes: int, mode: str, plain: bool) -> dict:
    """As `measure`; {"error": its text} if the mode fails."""
    torch.compiler.reset()
    try:
        if plain:
            return measure(kind, edges, nodes, mode, plain)
        # What is captured does not wait for the host, so small graphs gain too.
        with gnna_plugin.enabled("pyg", min_work=0 if "captured" in mode else None):
            return measure(kind, edges, nodes, mode, plain)
    except Exception as error:
        logging.getLogger("gnna_plugin").info("%s, %s failed", kind, mode, exc_info=True)
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}
    finally:
        gnna_plugin.clear_cache()
        gnna_plugin.release_captures()
        if edges.is_cuda:
            torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["community"])
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--modes", nargs="+", choices=MODES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    device = torch.device(args.device)
    modes = args.modes or (MODES if device.type == "cuda" else MODES[:2])
    if device.type != "cuda" and any("captured" in mode for mode in modes):
        raise SystemExit("CUDA graphs need a GPU that torch can use")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    rows = []
    for name in args.graphs:
        edges, nodes = edges_of(name)
        for kind in args.models:
            for mode in modes:
                for plain in (True, False):
                    found = outcome(kind, edges.to(device), nodes, mode, plain)
                    rows.append({"graph": name, "model": kind, "mode": mode, "gnna": not plain, **found})
                    if args.json:
                        with open(args.json, "w", encoding="utf-8") as file:
                            json.dump({"device": where, "torch": torch.__version__, "rows": rows}, file)
    show(rows, modes, where)


def show(rows: list[dict], modes, where: str) -> None:
    table = Table(title=f"ms per training epoch, plain -> with the plug-in, on {where}")
    for heading in ("graph", "model", *modes, "peak MiB"):
        table.add_column(heading, justify="right")
    by_case: dict[tuple, dict] = {}
    for row in rows:
        by_case.setdefault((row["graph"], row["model"]), {})[row["mode"], row["gnna"]] = row
    for (graph, model), found in by_case.items():
        cells, peaks = [], []
        for mode in modes:
            pair = [found[mode, ours] for ours in (False, True)]
            cells.append(" -> ".join(f"{row['ms']:.2f}" if "ms" in row else "fails" for row in pair))
            peaks.append("/".join(f"{row['peak_mib']:.0f}" if row.get("peak_mib") else "-" for row in pair))
        table.add_row(graph, model, *cells, " ".join(peaks))
    console = Console(width=150)
    console.print(table)
    for row in rows:
        if "error" in row:
            console.print(f"{row['graph']}, {row['model']}, {row['mode']}, plug-in {row['gnna']}: {row['error']}")


if __name__ == "__main__":
    main()
