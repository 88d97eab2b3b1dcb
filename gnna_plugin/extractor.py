"""The extractor: facts of a graph that decisions rest on (the input analysis of GNNAdvisor, OSDI 2021), as values.

Everything here is for people and for the paper's own formulas; a launch takes only the few facts that a plan knows.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GraphFacts:
    """A directed graph as the decider sees it.

    Degrees are in-degrees of the nodes that receive messages. average_edge_span is the mean of |src - dst| (the paper's
    AES): how far apart the ids of neighbours are. local_edges is the share of edges whose ends lie within 1/64 of all
    ids of each other: near 1/32 for ids without order, near 1 where ids follow communities.
    degree_histogram[k] counts nodes with degree in [2^(k-1), 2^k), the first those without edges.
    """

    nodes: int
    edges: int
    degree_mean: float
    degree_deviation: float
    degree_max: int
    degree_histogram: tuple[int, ...]
    isolated: int
    average_edge_span: float
    local_edges: float
    sorted_by_destination: bool

    def as_dict(self) -> dict:
        return asdict(self)


def graph_facts(edge_index: Tensor, num_nodes: int) -> GraphFacts:
    """The facts of edge_index, [2, E] int32 or int64 (row 0 sources, row 1 destinations), over num_nodes nodes.

    Costs a few passes over the edges on their device. Raises ValueError for an index out of range.
    """
    src, dst = edge_index[0], edge_index[1]
    edges = src.numel()
    if edges and (int(edge_index.min()) < 0 or int(edge_index.max()) >= num_nodes):
        raise ValueError(
            f"edge_index holds ids from {int(edge_index.min())} to {int(edge_index.max())}; nodes: {num_nodes}"
        )
    degree = torch.bincount(dst, minlength=num_nodes) if edges else dst.new_zeros(num_nodes, dtype=torch.int64)
    # frexp gives the k of [2^(k-1), 2^k); degree 0 has 0.
    classes = torch.frexp(degree.double()).exponent.long()
    span = (src - dst).abs()
    return GraphFacts(
        nodes=num_nodes,
        edges=edges,
        degree_mean=edges / num_nodes if num_nodes else 0.0,
        degree_deviation=degree.double().std(correction=0).item() if num_nodes else 0.0,
        degree_max=int(degree.max()) if num_nodes else 0,
        degree_histogram=tuple(torch.bincount(classes).tolist()) if num_nodes else (),
        isolated=int((degree == 0).sum()),
        average_edge_span=span.double().mean().item() if edges else 0.0,
        local_edges=(span <= num_nodes / 64).double().mean().item() if edges else 0.0,
        sorted_by_destination=bool((dst[1:] >= dst[:-1]).all()),
    )


def modularity(edge_index: Tensor, community: Tensor) -> float:
    """Newman's modularity of a division into communities: the share of edges inside them, less what the degrees alone
    would give. Directions are ignored, loops left out; 0 for no edges.

    Args:
        edge_index: [2, E], int32 or int64. community: [N] int64, numbered from 0, on the same device.
    """
    ends = community[edge_index[:, edge_index[0] != edge_index[1]].long()]
    if ends.size(1) == 0:
        return 0.0
    share = torch.bincount(ends.flatten()).double() / ends.numel()
    return ((ends[0] == ends[1]).double().mean() - share.square().sum()).item()


@dataclass(frozen=True)
class PaperModel:
    """What the paper's analytical model and its renumbering rule say for one layer.

    workload_per_thread = ngs * width / dw, aimed at 1024; shared_memory in bytes per block. The kernels that ship are
    configured by rules measured on current hardware instead (see Config.reason); these values stand beside them.
    """

    ngs: int
    dw: int
    threads_per_block: int
    workload_per_thread: float
    shared_memory: int
    shared_memory_fits: bool
    renumber: bool
    renumber_rule: str

    def as_dict(self) -> dict:
        return asdict(self)


THREADS_PER_WARP = 32
_TARGET_WORKLOAD = 1024
_MAX_THREADS = 1024


def paper_model(facts: GraphFacts, width: int, shared_memory_limit: int = 48 << 10, itemsize: int = 4) -> PaperModel:
    """The paper's parameters for aggregating `width` elements per node.

    dw = threads per warp where width reaches it, else half of that; ngs makes ngs * width / dw about 1024, at least 1
    and at most the largest degree; shared memory = threads per block / threads per warp * width * itemsize, with as
    many threads per block (up to 1024) as fit shared_memory_limit bytes. Renumber when
    sqrt(AES) > floor(sqrt(nodes) / 100).
    """
    dw = THREADS_PER_WARP if width >= THREADS_PER_WARP else THREADS_PER_WARP // 2
    ngs = max(1, min(round(_TARGET_WORKLOAD * dw / max(width, 1)), max(facts.degree_max, 1)))
    threads = _MAX_THREADS

    def needed(threads: int) -> int:
        return threads // THREADS_PER_WARP * width * itemsize

    while threads > THREADS_PER_WARP and needed(threads) > shared_memory_limit:
        threads //= 2
    span, bound = math.sqrt(facts.average_edge_span), math.floor(math.sqrt(facts.nodes) / 100)
    renumber = span > bound
    return PaperModel(
        ngs=ngs,
        dw=dw,
        threads_per_block=threads,
        workload_per_thread=ngs * width / dw,
        shared_memory=needed(threads),
        shared_memory_fits=needed(threads) <= shared_memory_limit,
        renumber=renumber,
        renumber_rule=f"sqrt(AES) = {span:.1f} {'>' if renumber else '<='} floor(sqrt(nodes) / 100) = {bound}",
    )
