"""What a comparison is: the case that is measured, the arms it is measured in, and what can go wrong before it starts.

This file owns the values that travel from the command line to the runner and, as JSON, to its worker processes.
"""

from dataclasses import asdict, dataclass

from gnna_plugin.frameworks import FRAMEWORKS

# One process each. "allocator" is the plain framework with the plug-in's setting of the C allocator, so that what the
# allocator gains is never taken for what the kernels gain.
BASELINE, ALLOCATOR, ACCELERATED = "baseline", "allocator", "accelerated"

# What --framework takes, and what people read in tables.
CHOICES = {**{name: (name,) for name in FRAMEWORKS}, "both": tuple(FRAMEWORKS)}
LABELS = {name: framework.label for name, framework in FRAMEWORKS.items()}

# (layers, hidden): the two models of the GNNAdvisor evaluation, and the demo's layer of a user's own.
MODEL_DEFAULTS = {"gcn": (2, 16), "gin": (5, 64), "weighted": (2, 32)}


class UsageError(Exception):
    """The request cannot be met as given; the text is one sentence for the user (exit status 2)."""


class WorkerError(Exception):
    """A measuring process failed; the text holds what it wrote (exit status 1)."""


@dataclass(frozen=True)
class Case:
    """One model trained on one graph.

    ``graph`` is what load_graph takes. ``dim`` and ``classes`` are used where the graph has no features or labels of
    its own, or ``synthetic`` asks to ignore them. ``budget_s`` (seconds, or None) ends training early, after no fewer
    than three epochs. ``reference`` asks for the float64 run that errors are measured against, ``reorder`` for a
    plain run with the edges in another order: training can amplify rounding without bound (a deep sum of unnormalised
    features does), and only that run tells how far two equally right loss curves of this case are apart. ``config``
    is enable()'s, for the accelerated arm.
    """

    graph: str
    model: str = "gcn"
    framework: str = "pyg"
    layers: int | None = None
    hidden: int | None = None
    dim: int = 96
    classes: int = 22
    epochs: int = 50
    seed: int = 0
    lr: float = 0.01
    synthetic: bool = False
    budget_s: float | None = None
    reference: bool = True
    reorder: bool = True
    config: dict | None = None

    def resolved(self):
        """The fields as a dict, with the model's own default for ``layers`` and ``hidden`` filled in."""
        layers, hidden = MODEL_DEFAULTS[self.model]
        return {**asdict(self), "layers": self.layers or layers, "hidden": self.hidden or hidden}
