"""Times a single SpMM on the paper's graphs against every installed library, in place of the paper's Gunrock."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

import gnna_plugin
from gnna_plugin import allocator
from gnna_plugin.data.problem import Problem
from gnna_plugin.tools.bench import kernels, peers
from gnna_plugin.tools.bench.timing import Rounds
from gnna_plugin.tools.study.graphs import Source

ABOUT_GUNROCK = (
    "The paper compares with Gunrock, whose SpMM has no Python package. cuSPARSE (torch.sparse.mm on a GPU) stands in "
    "for it here, and benchmarks/research.py times the research kernels GE-SpMM and RoDe."
)


def tables(sources: list[Source], device: torch.device, args, advance) -> Iterator[tuple[list[dict], dict]]:
    """Yield (rows, {peer: reason}) of every graph and width.

    args: the arguments widths, peers, rounds, seed and cpu_time.
    """
    allocator.keep_freed_memory()  # for all peers, so that page faults are in no one's time
    rounds = Rounds(args.rounds, spare=args.rounds, cpu_time=args.cpu_time)
    for source in sources:
        advance(f"loading {source.name}", 0)
        graph = source.load(args.seed)
        src, dst = torch.from_numpy(graph.src).to(device), torch.from_numpy(graph.dst).to(device)
        for width in args.widths:
            advance(f"{source.name}, width {width}", 0)
            rows, left_out = kernels.measure(
                Problem("spmm", src, dst, graph.num_nodes, width), "forward", args.peers, rounds
            )
            yield [{**source.facts(graph), "width": width, **row} for row in rows], left_out
            gnna_plugin.clear_cache()
            advance("", 1)


def means(rows: list[dict]) -> dict[str, tuple[float, int]]:
    """Return {peer: (geometric mean of its time / the plug-in's, number of cases)}, without the plug-in."""
    ratios: dict[str, list[float]] = {}
    for row in rows:
        if row["peer"] != peers.OURS:
            ratios.setdefault(row["peer"], []).append(row["times_of_ours"])
    return {peer: (math.exp(sum(map(math.log, found)) / len(found)), len(found)) for peer, found in ratios.items()}
