"""Times training epochs that are replayed as CUDA graphs: of PyG, of PyG under torch.compile, and with the plug-in.

Also times the eager epochs of PyG and with the plug-in. Needs a GPU.

    python benchmarks/captured.py --graphs cora DD com-dblp facebook-links cnr-2000 [--models gcn gin]

The models are GCN 2x16 and GIN 5x64, with 96 random features and 22 random classes, trained by Adam. Captured GCNs of
plain PyG cache their normalisation, because PyG cannot compute it during a capture. Times are medians of five blocks of
ten epochs, in milliseconds. The losses after the last captured epoch are printed, to show that the three train alike.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from rich.console import Console
from rich.table import Table

import gnna_plugin
from gnna_plugin.adapters.pyg.tools.models import make_bench_model
from gnna_plugin.data import load_graph

FEATURES, CLASSES, WARM_UP, BLOCK = 96, 22, 8, 10

SHAPES = {"gcn": (16, 2), "gin": (64, 5)}  # hidden width, layers


def milliseconds(epoch) -> float:
    times = []
    for _ in range(6):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(BLOCK):
            epoch()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / BLOCK * 1e3)
    return statistics.median(times[1:])


def epoch_ms(kind: str, graph, captured: bool, compiled: bool = False, cached: bool = False) -> tuple[float, float]:
    """Return (milliseconds per epoch, last loss)."""
    torch.manual_seed(0)
    edges = torch.stack([torch.from_numpy(graph.src), torch.from_numpy(graph.dst)]).cuda()
    x = torch.randn(graph.num_nodes, FEATURES, device="cuda")
    labels = torch.randint(0, CLASSES, (graph.num_nodes,), device="cuda")
    hidden, layers = SHAPES[kind]
    model = make_bench_model(kind, FEATURES, hidden, CLASSES, layers, norm=False, cached=cached).cuda()
    model = torch.compile(model) if compiled else model
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
        return milliseconds(step), float(step())
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    cuda_graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(cuda_graph):
        loss = step()
    return milliseconds(cuda_graph.replay), float(loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=["community"])
    parser.add_argument("--models", nargs="+", choices=["gcn", "gin"], default=["gcn", "gin"])
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("CUDA graphs need a GPU that torch can use")
    table = Table(title=f"ms per training epoch on {torch.cuda.get_device_name()}")
    headings = "graph|model|PyG eager|gnna eager|PyG captured|compiled, captured|gnna captured|losses, captured"
    for heading in headings.split("|"):
        table.add_column(heading, justify="right")
    for name in args.graphs:
        graph = load_graph(name)
        for kind in args.models:
            plain = epoch_ms(kind, graph, captured=False)
            captured = epoch_ms(kind, graph, captured=True, cached=True)
            compiled = epoch_ms(kind, graph, captured=True, compiled=True, cached=True)
            with gnna_plugin.enabled("pyg"):
                ours = epoch_ms(kind, graph, captured=False)
            with gnna_plugin.enabled("pyg", min_work=0):
                ours_captured = epoch_ms(kind, graph, captured=True)
            gnna_plugin.clear_cache()
            torch.cuda.empty_cache()
            times = [f"{ms:.2f}" for ms, _ in (plain, ours, captured, compiled, ours_captured)]
            losses = " ".join(f"{loss:.5f}" for _, loss in (captured, compiled, ours_captured))
            table.add_row(graph.name, kind, *times, losses)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
