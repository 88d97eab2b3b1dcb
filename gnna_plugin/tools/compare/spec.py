"""Defines a comparison: the case that is measured, the arms that measure it, and the errors that end it.

These values pass from the command line to the runner and, as JSON, to its worker processes.
"""

from dataclasses import asdict, dataclass

from gnna_plugin.frameworks import FRAMEWORKS

# The arms, one process each. "allocator" is the plain framework with the plug-in's setting of the C allocator. It
# separates the gain of the allocator from the gain of the kernels.
BASELINE, ALLOCATOR, ACCELERATED = "baseline", "allocator", "accelerated"

# The values of --framework with the frameworks that they stand for, and the names that tables show.
CHOICES = {**{name: (name,) for name in FRAMEWORKS}, "both": tuple(FRAMEWORKS)}
LABELS = {name: framework.label for name, framework in FRAMEWORKS.items()}

# Model: (layers, hidden). gcn and gin are from the GNNAdvisor evaluation, weighted is the demo's user-written layer.
MODEL_DEFAULTS = {"gcn": (2, 16), "gin": (5, 64), "weighted": (2, 32)}


class UsageError(Exception):
    """Raised if a request cannot be met as given (exit status 2).

    The text is one sentence.
    """


class WorkerError(Exception):
    """Raised if a measuring process failed (exit status 1).

    The text holds what the process wrote.
    """


@dataclass(frozen=True)
class Case:
    """One model that is trained on one graph.

    Attributes:
        graph: a source that load_graph() accepts.
        layers, hidden: shape of the model; None for the model's default.
        dim, classes: number of random features and classes. Used if the graph has none, or if ``synthetic`` is set.
        synthetic: ignore the graph's own features and labels.
        budget_s: seconds after which training ends early, but after three epochs at least; None for no limit.
        reference: also run the model in float64, which errors are measured against.
        reorder: also train the plain framework with the edges in another order. Training can amplify rounding without
            bound, as a deep sum of unnormalised features does. Only this run shows how far two correct loss curves of
            the case differ.
        config: the argument of enable() in the accelerated arm.
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
        """Return the fields as a dict, with defaults for ``layers`` and ``hidden``."""
        layers, hidden = MODEL_DEFAULTS[self.model]
        return {**asdict(self), "layers": self.layers or layers, "hidden": self.hidden or hidden}
