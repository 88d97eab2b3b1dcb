"""The schedules of the cached plans as Python values: what was decided, what it cost and what it gained.

Schedules are found and applied in csrc/torch/plan/schedule.cpp, by the rules in csrc/decide/schedule.cpp.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from gnna_plugin.extractor import paper_renumbers


@dataclass(frozen=True)
class Schedule:
    """The order in which the rows of one plan are processed.

    Attributes:
        state: "watching" (an order by community is not expected to repay its cost yet), "ordering" (it is being found
            in the background), "on trial" (its calls are compared with those before), "kept", "dropped" (it was no
            faster), "unchanged" (the rows stay as they are) or "pinned" (a captured CUDA graph reads the plan).
        kind: "ascending", "degree" (on a GPU, from a plan's sixth call on), "community" or "by hand".
        found_in: seconds that finding the order took on the background thread.
        stored_in: seconds that reordering took on the threads of callers.
        gain_expected: time before / time after that was expected of the order.
        before, after: mean seconds per call without and with the order; 0 if they were not compared.
        cold_before, cold_after: shares of gathers that are expected to miss the cache.
        edge_span: the paper's average edge span (AES). None if it is unknown, or if rows and columns are different sets
            of nodes.
    """

    device: str
    state: str
    kind: str
    reason: str
    rows: int
    cols: int
    edges: int
    calls: int
    found_in: float
    stored_in: float
    gain_expected: float
    before: float
    after: float
    cold_before: float
    cold_after: float
    edge_span: float | None

    @property
    def gain_measured(self) -> float:
        """Return time before / time after, or 0 if nothing was compared."""
        return self.before / self.after if self.after else 0.0

    @property
    def paper_renumbers(self) -> bool:
        """Return whether the paper's rule says to renumber the nodes; False if the edge span is not known."""
        return self.edge_span is not None and paper_renumbers(self.edge_span, self.rows)

    def as_dict(self) -> dict:
        return {**asdict(self), "paper_renumbers": self.paper_renumbers, "gain_measured": self.gain_measured}

    def __str__(self) -> str:
        text = f"{self.rows:,} rows, {self.edges:,} edges on {self.device}: {self.state}, {self.reason}"
        if self.found_in:
            text += (
                f"; order found in {self.found_in * 1e3:.0f} ms in the background, stored in "
                f"{self.stored_in * 1e3:.1f} ms on the calling thread"
            )
        if self.edge_span is not None:
            says = "renumber" if self.paper_renumbers else "leave the ids"
            ours = "reorder" if self.kind == "community" else "leave the rows"
            agree = "as" if (says == "renumber") == (ours == "reorder") else "while"
            text += (
                f"; average edge span {self.edge_span:,.0f}: the decider says '{ours}', "
                f"{agree} the paper's rule says '{says}'"
            )
        return text


def schedules() -> list[Schedule]:
    """Return the schedule of every cached plan, the most recently used plan first."""
    words, numbers = torch.ops.gnna.schedules()
    found = []
    for at in range(len(words) // 4):
        row = numbers[at * 12 : at * 12 + 12]
        span = row[11] if row[11] >= 0 else None
        fields = [*words[at * 4 : at * 4 + 4], *map(int, row[:4]), *row[4:11], span]
        found.append(Schedule(*fields))
    return found
