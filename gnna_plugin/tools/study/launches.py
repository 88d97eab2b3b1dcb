"""Sweeps a launch parameter of kernel `group` on a GPU: figures 11a (group size) and 11b (dimension workers).

The aggregation is an unweighted float32 sum of one width. The decider's rules complete each configuration, and its own
choice, usually of kernel `row`, is timed beside the sweep. tune/launches.py times and checks the launches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

import gnna_plugin
from gnna_plugin.decider import Facts
from gnna_plugin.tools.bench.timing import Rounds
from gnna_plugin.tools.study.graphs import Source
from gnna_plugin.tools.tune import launches

DECIDER = "decider"
SWEEPS: dict[str, tuple[int, ...]] = {
    "group_size": (2, 4, 8, 16, 32, 64, 128, 256, 512),
    "lanes": (1, 2, 4, 8, 16, 32),
}


def sweep(parameter: str, decided: Callable[[dict], dict], time_of: Callable[[dict], float | None]) -> list[dict]:
    """Time kernel `group` with each value of a parameter, then the decider's own choice.

    Args:
        parameter: a key of SWEEPS.
        decided: completes a partial configuration by the decider's rules.
        time_of: returns the time of a configuration in ms, or None if it cannot be launched.

    Returns:
        A dict per launch: value (the parameter's, or "decider"), us (None if it cannot be launched) and the
        configuration's parameters.
    """
    found = []
    for value in SWEEPS[parameter]:
        config = decided({"kernel": "group", parameter: value})
        found.append({"value": value, **_timed(config, time_of)})
    return [*found, {"value": DECIDER, **_timed(decided({}), time_of)}]


def _timed(config: dict, time_of: Callable[[dict], float | None]) -> dict:
    ms = time_of(config)
    return {"us": None if ms is None else ms * 1e3, **config}


def launch_of(graph, width: int, device: torch.device) -> launches.Launch:
    """Return the unweighted float32 sum of rows of ``width`` over a graph's edges, as a Launch."""
    src, dst = torch.from_numpy(graph.src).to(device), torch.from_numpy(graph.dst).to(device)
    nodes = graph.num_nodes
    facts = Facts(
        rows=nodes,
        cols=nodes,
        edges=graph.num_edges,
        max_degree=torch.ops.gnna.max_degree(src, dst, nodes, nodes),
        width=width,
        head_dim=width,
    )
    return launches.Launch(facts, dst, src, (width,), None, torch.float32)


def sweeps(sources: list[Source], parameter: str, device: torch.device, args, advance) -> Iterator[list[dict]]:
    """Yield the rows of every graph and width. args: the arguments widths, rounds and seed."""
    rounds = Rounds(args.rounds, 0.01, args.rounds)
    for source in sources:
        advance(f"loading {source.name}", 0)
        graph = source.load(args.seed)
        for width in args.widths:
            advance(f"{source.name}, width {width}", 0)
            with launches.timed(launch_of(graph, width, device), rounds) as (decided, time_of):
                found = sweep(parameter, decided, time_of)
            facts = {**source.facts(graph), "width": width, "parameter": parameter}
            yield [{**facts, **row} for row in found]
            gnna_plugin.clear_cache()
            advance("", 1)
