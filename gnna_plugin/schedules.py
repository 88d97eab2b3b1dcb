"""The schedules of the cached plans, as people and programs ask for them: what was decided, at what cost and gain.

How they come about is csrc/torch/plan/schedule.h; the rules are csrc/decide/schedule.cpp.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch


@dataclass(frozen=True)
class Schedule:
    """The order in which one plan's rows are processed.

    state: "watching" (communities are not worth their cost yet), "ordering" (in the background), "on trial", "kept",
    "dropped" (it was no faster), "unchanged" (found not to be worth it) or "pinned" (a captured CUDA graph reads the
    plan). kind: "ascending", "degree" (on a GPU, from a plan's sixth call on), "community" or "by hand". Times in
    seconds: found_in on the background thread, stored_in on the callers', before and after per call. cold_before and
    cold_after: shares of gathers expected to miss the cache. edge_span: the paper's average edge span (AES), None where
    it is unknown or rows and columns are two sets of nodes; paper_renumbers: what its rule says.
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
    paper_renumbers: bool

    @property
    def gain_measured(self) -> float:
        """Time before / time after, 0 where nothing was compared."""
        return self.before / self.after if self.after else 0.0

    def as_dict(self) -> dict:
        return {**asdict(self), "gain_measured": self.gain_measured}

    def __str__(self) -> str:
        text = f"{self.rows:,} rows, {self.edges:,} edges on {self.device}: {self.state}, {self.reason}"
        if self.found_in:
            text += f"; found in {self.found_in * 1e3:.0f} ms beside the calls, {self.stored_in * 1e3:.1f} ms of theirs"
        if self.edge_span is not None:
            says = "renumber" if self.paper_renumbers else "leave the ids"
            ours = "reorder" if self.kind == "community" else "leave the rows"
            agree = "as" if (says == "renumber") == (ours == "reorder") else "while"
            text += f"; average edge span {self.edge_span:,.0f}: {ours}, {agree} the paper's rule says {says}"
        return text


def schedules() -> list[Schedule]:
    """Of every cached plan, the most recently used first."""
    words, numbers = torch.ops.gnna.schedules()
    found = []
    for at in range(len(words) // 4):
        row = numbers[at * 13 : at * 13 + 13]
        span = row[11] if row[11] >= 0 else None
        fields = [*words[at * 4 : at * 4 + 4], *map(int, row[:4]), *row[4:11], span, bool(row[12])]
        found.append(Schedule(*fields))
    return found
