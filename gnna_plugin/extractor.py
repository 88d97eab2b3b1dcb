"""The extractor: computes facts about a graph (the input analysis of GNNAdvisor, OSDI 2021) and the paper's formulas.

The results are for explanations and reports. Launches are decided from the few facts that a plan holds.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GraphSummary:
    """Facts of a directed graph. Degrees are in-degrees.

    Attributes:
        degree_histogram: entry 0 counts the nodes of degree 0, entry k those with a degree in [2^(k-1), 2^k).
        isolated: number of nodes of degree 0.
        average_edge_span: mean of |src - dst| (the paper's AES), which says how far apart the ids of neighbours are.
        local_edges: share of edges with |src - dst| <= nodes / 64. It is near 1/32 for random ids, and near 1 if the
            ids follow communities.
        sorted_by_destination: whether dst ascends along the edge list.
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


def graph_summary(edge_index: Tensor, num_nodes: int) -> GraphSummary:
    """Compute the facts of a graph in a few passes over its edges, on their device.

    Args:
        edge_index: [2, E], int32 or int64; row 0 holds the sources, row 1 the destinations.
        num_nodes: number of nodes.

    Raises:
        ValueError: an id is negative or not below num_nodes.
    """
    src, dst = edge_index[0], edge_index[1]
    edges = src.numel()
    if edges and (int(edge_index.min()) < 0 or int(edge_index.max()) >= num_nodes):
        raise ValueError(
            f"edge_index holds ids from {int(edge_index.min())} to {int(edge_index.max())}, but num_nodes is "
            f"{num_nodes}; ids must be at least 0 and below num_nodes"
        )
    degree = torch.bincount(dst, minlength=num_nodes) if edges else dst.new_zeros(num_nodes, dtype=torch.int64)
    # The exponent that frexp gives is the k with 2^(k-1) <= degree < 2^k, and 0 for degree 0.
    classes = torch.frexp(degree.double()).exponent.long()
    span = (src - dst).abs()
    return GraphSummary(
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
    """Compute Newman's modularity of a division into communities.

    It is the share of edges inside communities, minus the share that the degrees alone would give. Edge directions and
    self-loops are ignored.

    Args:
        edge_index: [2, E], int32 or int64.
        community: [N] int64 on the same device, the community of each node, numbered from 0.

    Returns:
        The modularity, or 0.0 for a graph without edges.
    """
    ends = community[edge_index[:, edge_index[0] != edge_index[1]].long()]
    if ends.size(1) == 0:
        return 0.0
    share = torch.bincount(ends.flatten()).double() / ends.numel()
    return ((ends[0] == ends[1]).double().mean() - share.square().sum()).item()


@dataclass(frozen=True)
class PaperModel:
    """Result of the paper's analytical model and renumbering rule for one layer.

    The plug-in does not launch kernels with these values. Its rules were measured on current hardware (see
    Config.reason).

    Attributes:
        ngs: the paper's group size, edges per neighbour group.
        dw: the paper's dimension workers, threads per neighbour.
        workload_per_thread: ngs * width / dw, which the model aims to bring to about 1024.
        shared_memory: bytes per block.
        shared_memory_fits: whether shared_memory is within the limit.
        renumber: whether the paper's rule says to renumber the nodes.
        renumber_rule: the rule with its numbers.
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


def paper_renumbers(average_edge_span: float, nodes: int) -> bool:
    """Return whether the paper's rule says to renumber: sqrt(AES) > floor(sqrt(nodes) / 100)."""
    return math.sqrt(average_edge_span) > math.floor(math.sqrt(nodes) / 100)


def paper_model(facts: GraphSummary, width: int, shared_memory_limit: int = 48 << 10, itemsize: int = 4) -> PaperModel:
    """Compute the paper's parameters for aggregating `width` elements per node.

    dw is the threads per warp if width is at least that, else half of it. ngs brings ngs * width / dw to about 1024 and
    is between 1 and the largest degree. Shared memory is threads per block / threads per warp * width * itemsize. The
    block has as many threads, up to 1024, as fit shared_memory_limit bytes. The rule says to renumber if
    sqrt(AES) > floor(sqrt(nodes) / 100).

    Args:
        facts: facts of the graph.
        width: elements per node.
        shared_memory_limit: bytes of shared memory that a block may use.
        itemsize: bytes per element.
    """
    dw = THREADS_PER_WARP if width >= THREADS_PER_WARP else THREADS_PER_WARP // 2
    ngs = max(1, min(round(_TARGET_WORKLOAD * dw / max(width, 1)), max(facts.degree_max, 1)))
    threads = _MAX_THREADS

    def needed(threads: int) -> int:
        return threads // THREADS_PER_WARP * width * itemsize

    while threads > THREADS_PER_WARP and needed(threads) > shared_memory_limit:
        threads //= 2
    span, bound = math.sqrt(facts.average_edge_span), math.floor(math.sqrt(facts.nodes) / 100)
    renumber = paper_renumbers(facts.average_edge_span, facts.nodes)
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
