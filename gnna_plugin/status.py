"""The snapshot of the counters that users see: as text, as a table in a notebook, and as a dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from gnna_plugin import allocator, notebook, report, settings
from gnna_plugin.report import Comparison, LayerCounts, calls
from gnna_plugin.schedules import Schedule, schedules


@dataclass(frozen=True)
class Status:
    """A snapshot of the counters, as status() returns it. str() is a summary for people, as_dict() for programs."""

    frameworks: list[str]
    layers: dict[str, LayerCounts]
    decisions: list[dict]
    plans: int
    plan_bytes: int
    plan_hits: int
    plan_misses: int
    capture_bytes: int  # held for captured CUDA graphs, see release_captures()
    keeps_freed_memory: bool
    schedules: list[Schedule]
    comparisons: dict[str, Comparison] = field(default_factory=dict)  # by layer class, of verify mode

    @property
    def fused_calls(self) -> int:
        return sum(counts.fused for counts in self.layers.values())

    @property
    def fallback_calls(self) -> int:
        return sum(c.materialised.total() + c.framework.total() for c in self.layers.values())

    @property
    def fused_share(self) -> float | None:
        """The share of the work (edges x width) that ran in fused calls and reductions; None if all or none is known.

        A layer may have many small calls that were not fused, and little of the work.
        """
        fused = sum(counts.fused_work for counts in self.layers.values())
        left = sum(counts.left_work for counts in self.layers.values())
        return fused / (fused + left) if fused and left else None

    def as_dict(self) -> dict:
        return {
            "frameworks": self.frameworks,
            "fused_calls": self.fused_calls,
            "fallback_calls": self.fallback_calls,
            "layers": {name: _plain(counts) for name, counts in self.layers.items()},
            "comparisons": {name: _plain(comparison) for name, comparison in self.comparisons.items()},
            "decisions": self.decisions,
            "plans": self.plans,
            "plan_bytes": self.plan_bytes,
            "plan_hits": self.plan_hits,
            "plan_misses": self.plan_misses,
            "capture_bytes": self.capture_bytes,
            "keeps_freed_memory": self.keeps_freed_memory,
            "schedules": [s.as_dict() for s in self.schedules],
        }

    def _headline(self) -> str:
        on = ", ".join(self.frameworks) if self.frameworks else "off"
        share = "" if self.fused_share is None else f" ({_percent(self.fused_share)} of the work fused)"
        return (
            f"gnna_plugin: {on}; {calls(self.fused_calls)} fused, {self.fallback_calls} not{share}; "
            f"{self.plans} plans, {self.plan_bytes / 2**20:.1f} MiB"
        )

    def __str__(self) -> str:
        lines = [self._headline()]
        if self.frameworks and not self.layers:
            lines.append("  no layer has reached the plug-in yet")
        if self.capture_bytes:
            lines.append(f"  held for captured CUDA graphs: {self.capture_bytes / 2**20:.1f} MiB")
        for name, counts in sorted(self.layers.items()):
            lines.append(f"  {name}: {_done(counts)}")
            if counts.moved:
                lines.append(f"    message moved to nodes: {', '.join(sorted(counts.moved))}")
            if forms := counts.notable_forms():
                lines.append(f"    messages: {'; '.join(forms)}")
            lines += [f"    {text}" for text in counts.not_fused()]
        if self.layers and self.keeps_freed_memory and not any(c.fused or c.reduced for c in self.layers.values()):
            lines.append("  nothing ran on the plug-in's kernels; only its allocator setting (keep_memory) acts here")
        lines += [f"  {name}: {comparison}" for name, comparison in sorted(self.comparisons.items())]
        for d in self.decisions:
            call = f"{d['edges']:,} edges x {d['width']} {d['dtype']}, {d['reduce']} on {d['device']}"
            lines.append(f"  {d['layer']}: {call}: {d['reason']}")
        lines += [f"  schedule of {s}" for s in self.schedules if s.state != "watching"]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        rows = [
            (
                name,
                c.fused,
                c.reduced,
                [*sorted(c.forms), *(f"{f} moved to nodes" for f in sorted(c.moved))],
                c.not_fused(),
            )
            for name, c in sorted(self.layers.items())
        ]
        return notebook.table(self._headline(), ("layer", "fused", "reduced", "messages", "not fused"), rows)


def _plain(counts: LayerCounts | Comparison) -> dict:
    return {name: dict(value) if isinstance(value, dict) else value for name, value in vars(counts).items()}


def _done(counts: LayerCounts) -> str:
    parts = [f"{calls(counts.fused)} fused"] if counts.fused or not counts.reduced else []
    if counts.reduced:
        parts.append(f"{counts.reduced:,} reduction{'' if counts.reduced == 1 else 's'} in one kernel")
    return ", ".join(parts)


def _percent(share: float) -> str:
    """Return a share in percent, never rounded to 0 or 100."""
    return f"{min(max(100 * share, 1), 99):.0f} %"


def status() -> Status:
    """Return a snapshot of what the plug-in has done in this process so far, as a gnna_plugin.Status.

    `gnna_plugin.reset_status()` counts from zero again.
    """
    plans, plan_bytes, hits, misses, _ = torch.ops.gnna.cache_info()
    layers, comparisons, decisions = report.snapshot()
    return Status(
        list(settings.enabled_frameworks),
        layers,
        decisions,
        plans,
        plan_bytes,
        hits,
        misses,
        torch.ops.gnna.captures()[1],
        allocator.kept(),
        schedules(),
        comparisons,
    )
