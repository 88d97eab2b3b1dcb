"""Explains how each aggregation of a model runs: its decision, the graph's facts and the paper's formulas."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from gnna_plugin import decider, notebook, report, settings, switch
from gnna_plugin.decider import PARAMETERS
from gnna_plugin.extractor import THREADS_PER_WARP, GraphSummary, PaperModel, graph_summary, paper_model
from gnna_plugin.schedules import Schedule
from gnna_plugin.status import status as take_status

_PASSES = 10  # more than the uses of a small edge list after which it is accelerated


@dataclass(frozen=True)
class Explanation:
    """The result of explain(). str() is a text for people, as_dict() is for JSON."""

    graph: GraphSummary
    decisions: list[dict]
    paper: list[PaperModel]
    layers: dict[str, report.LayerCounts]
    min_work: int
    schedules: list[Schedule]

    def as_dict(self) -> dict:
        return {
            "graph": self.graph.as_dict(),
            "decisions": [
                {**decision, "paper": paper.as_dict()}
                for decision, paper in zip(self.decisions, self.paper, strict=True)
            ],
            "left_to_framework": {
                name: {"materialised": dict(c.materialised), "framework": dict(c.framework)}
                for name, c in self.layers.items()
                if c.materialised or c.framework
            },
            "min_work": self.min_work,
            "schedules": [s.as_dict() for s in self.schedules],
        }

    def __str__(self) -> str:
        lines = _graph_lines(self.graph)
        for decision, paper in zip(self.decisions, self.paper, strict=True):
            lines += _decision_lines(decision, self.graph.edges, paper, self.min_work)
        for name, counts in self.layers.items():
            if counts.reduced:
                lines.append(f"{name}: {counts.reduced} reductions of existing messages in one kernel")
            if forms := counts.notable_forms():
                lines.append(f"{name}: messages {'; '.join(forms)}")
            lines += [f"{name}: {text}" for text in counts.not_fused()]
        lines += [f"schedule of {s}" for s in self.schedules]
        if not self.decisions:
            lines.append("no aggregation was fused")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (d["layer"], f"{d['reduce']} of {d['width']} x {d['dtype']}", _parameters(d), d["reason"])
            for d in self.decisions
        ]
        rows += [(name, "not fused", "", c.not_fused()) for name, c in self.layers.items() if c.not_fused()]
        caption = f"graph: {self.graph.nodes:,} nodes, {self.graph.edges:,} edges"
        return notebook.table(caption, ("layer", "aggregation", "chosen", "because"), rows)


def _graph_lines(g: GraphSummary) -> list[str]:
    return [
        f"graph: {g.nodes:,} nodes, {g.edges:,} edges; in-degree {g.degree_mean:.1f} +- {g.degree_deviation:.1f}, "
        f"at most {g.degree_max:,}; {g.isolated:,} nodes have no in-edges",
        f"ids: average edge span (mean of |source - destination|) {g.average_edge_span:,.0f}; "
        f"{100 * g.local_edges:.0f} % of the edges connect ids within 1/64 of all ids; "
        f"the edge list is {'' if g.sorted_by_destination else 'not '}sorted by destination",
    ]


def _decision_lines(d: dict, graph_edges: int, paper: PaperModel, min_work: int) -> list[str]:
    added = d["edges"] - graph_edges
    loops = f" ({added:,} more than the graph has, which are self-loops)" if added > 0 else ""
    weights = f", {d['heads']} weights per edge" if d["heads"] > 1 else ", weighted" if d["weighted"] else ""
    fits = "" if paper.shared_memory_fits else " (does not fit)"
    return [
        f"{d['layer']}: {d['reduce']} of {d['width']} x {d['dtype']} over {d['edges']:,} edges{loops}{weights}",
        f"  chosen: {_parameters(d)}",
        f"  because {d['reason']}",
        *([f"  runner-up: {d['runner_up']}"] if "runner_up" in d else []),
        f"  size: {d['edges'] * d['width']:,} edges x width; below {min_work:,} (min_work) the framework's code runs",
        f"  schedule: {d['schedule']['reason']}",
        f"  for comparison, the paper's model for a GPU: ngs {paper.ngs}, dw {paper.dw}, "
        f"{paper.threads_per_block // THREADS_PER_WARP} warps per block; {paper.workload_per_thread:.0f} of 1024 "
        f"elements per thread, shared memory {paper.shared_memory:,} bytes{fits}",
        f"  for comparison, the paper's renumbering rule: {'renumber' if paper.renumber else 'leave the ids'}, because "
        f"{paper.renumber_rule}",
    ]


def _parameters(decision: dict) -> str:
    applying = [f"{name} {decision[name]}" for name in PARAMETERS if name in decision]
    return ", ".join([f"kernel {decision['kernel']}", *applying])


def explain(model: torch.nn.Module, data: Any, *inputs: Any) -> Explanation:
    """Run a model without gradients and explain how each of its aggregations is computed.

    A small graph is passed through the model a few times, because the first uses of one are left to the framework.

    Args:
        model: a framework's model; its modules are put into eval mode for the pass and back.
        data: an object with edge_index [2, E], and x [N, F] (or num_nodes), such as PyG's Data; or a homogeneous
            DGLGraph.
        inputs: what the model takes; none: data.x, data.edge_index. For a DGLGraph, what the model takes after the
            graph, or everything if the graph is among it; none: the graph's node data "feat" or "x".

    Raises:
        TypeError: model is no module.
        ValueError: data has no edge_index, or a DGLGraph is not homogeneous or has no features.

    >>> import torch, gnna_plugin
    >>> from torch_geometric.data import Data
    >>> from torch_geometric.nn import GCNConv
    >>> data = Data(x=torch.randn(2000, 16), edge_index=torch.randint(0, 2000, (2, 20000)))
    >>> print(gnna_plugin.explain(GCNConv(16, 8), data).decisions[0]["width"])
    8
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is of type {type(model).__name__}; explain takes a torch.nn.Module, and then its data")
    edges, num_nodes, arguments = _graph_and_arguments(data, inputs)
    training = [module for module in model.modules() if module.training]
    model.eval()
    for part in (edges, *edges):  # what happens in the long run, not in the first passes over a small graph
        torch.ops.gnna.set_repeated(part)
    try:
        with switch.enabled(*switch.frameworks(), **_settings_in_force()), torch.no_grad():
            for _ in range(_PASSES):
                with report.fresh():
                    model(*arguments)
                    status = take_status()
                if not status.fallback_calls:
                    break
            min_work = settings.current.least_work(edges.device.type)
    finally:
        for module in training:
            module.training = True
    facts = graph_summary(edges, num_nodes)
    paper = [paper_model(facts, decision["width"]) for decision in status.decisions]
    decisions = [{**decision, "schedule": _schedule(decision)} for decision in status.decisions]
    return Explanation(facts, decisions, paper, status.layers, min_work, _living(status.schedules, decisions))


def _graph_and_arguments(data: Any, inputs: tuple[Any, ...]) -> tuple[torch.Tensor, int, tuple[Any, ...]]:
    """Return (edge_index [2, E], the number of nodes, the arguments of the model) of what explain() was given."""
    if hasattr(data, "ndata") and callable(getattr(data, "edges", None)):
        return _of_dgl_graph(data, inputs)
    edge_index = getattr(data, "edge_index", None)
    if not isinstance(edge_index, torch.Tensor) or edge_index.dim() != 2:
        raise ValueError(
            f"data is {type(data).__name__} without an edge_index [2, E]; explain reads the graph from it, or from a "
            "DGLGraph"
        )
    x = getattr(data, "x", None)
    num_nodes = x.size(0) if isinstance(x, torch.Tensor) else int(data.num_nodes)
    edges = edge_index.as_tensor() if hasattr(edge_index, "as_tensor") else edge_index  # PyG's EdgeIndex
    return edges, num_nodes, inputs or (data.x, edge_index)


def _of_dgl_graph(graph: Any, inputs: tuple[Any, ...]) -> tuple[torch.Tensor, int, tuple[Any, ...]]:
    if graph.is_block or len(graph.ntypes) > 1 or len(graph.etypes) > 1:
        kind = "a block" if graph.is_block else "heterogeneous"
        raise ValueError(f"the DGLGraph is {kind}; explain takes a homogeneous one: pass dgl.to_homogeneous(graph)")
    if not inputs:
        names = [name for name in ("feat", "x") if name in graph.ndata]
        if not names:
            raise ValueError("the DGLGraph has no node data 'feat' or 'x'; pass the features: explain(model, graph, x)")
        inputs = (graph.ndata[names[0]],)
    arguments = inputs if any(value is graph for value in inputs) else (graph, *inputs)
    return torch.stack(graph.edges()), graph.num_nodes(), arguments


def _schedule(decision: dict) -> dict:
    """Return the schedule that the decider expects before there are calls to judge by."""
    itemsize = getattr(torch, decision["dtype"]).itemsize
    choice = decider.choose_schedule(
        decision["rows"],
        decision["cols"],
        decision["edges"],
        decision["width"] * itemsize,
        max_degree=decision["max_degree"],
        device=torch.device(decision["device"]),
    )
    return asdict(choice)


def _living(schedules: list[Schedule], decisions: list[dict]) -> list[Schedule]:
    """Return the schedules of these decisions' plans that are past watching."""
    sizes = {tuple(sorted((d["rows"], d["cols"]))) + (d["edges"],) for d in decisions}
    return [s for s in schedules if s.state != "watching" and tuple(sorted((s.rows, s.cols))) + (s.edges,) in sizes]


def _settings_in_force() -> dict:
    """Return the keywords with which enable() keeps its settings."""
    now = settings.current
    return {
        "only": now.only,
        "skip": now.skip,
        "strict": False,
        "verify": False,
        "rewrite": now.rewrite,
        "min_work": now.min_work,
        "max_plan_bytes": now.max_plan_bytes,
        "schedule": now.schedule,
        "keep_memory": now.keep_memory and bool(switch.frameworks()),
        "config": dict(now.config),
    }
