"""`gnna compare --graph G --against ...`: the built-in models on the best paths that the frameworks themselves offer.

This file owns the names of these paths and the split of the gain over PyG into its parts. gnna_plugin.tools.bench.epoch
measures them.
"""

import argparse

from gnna_plugin.tools.compare.spec import MODEL_DEFAULTS, UsageError

# The words of --against and the names that tables show. dgl is DGL's own training, and the plug-in's in DGL.
PATHS = {
    "default": "PyG",
    "cached": "PyG cached",
    "sparse": "PyG torch.sparse",
    "edgeindex": "PyG EdgeIndex",
    "compiled": "PyG compiled",
    "dgl": "DGL",
}
_ROUNDS = 5


def paths(text):
    """Return the words of --against, a list such as "cached,sparse"."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in PATHS:
            raise argparse.ArgumentTypeError(f"{word!r} is no path to compare with; known are {', '.join(PATHS)}")
    return words


def run(args, console):
    """Measure every graph, print a table with the parts of the gain for each, and store the rows. Returns 0.

    Raises:
        UsageError: an option is given that has no effect here, or a graph or the device cannot be used.
    """
    import torch

    from gnna_plugin.tools.bench import epoch, show
    from gnna_plugin.tools.inputs import command_line, load_graphs, prepare_device

    if args.config or args.framework != "pyg":
        raise UsageError("--config and --framework have no effect with --against")
    device = prepare_device(args, console)
    graphs = load_graphs(args.graph, args.seed, args.renumber)
    layers, hidden = MODEL_DEFAULTS[args.model]
    shape = epoch.Shape(args.layers or layers, args.hidden or hidden, norm=False)
    frameworks = ("pyg", "dgl") if "dgl" in args.against else ("pyg",)
    names = (*(PATHS[word] for word in args.against), epoch.MEMO, epoch.FUSED)
    found = {"kind": "epoch", "about": show.about(device, command_line()), "rows": [], "left_out": {}}
    for graph in graphs:
        case = epoch.Case(graph, args.model, shape, args.dim, args.classes, device, torch.get_num_threads(), _ROUNDS,
                          args.seed, True, names, frameworks=frameworks)  # fmt: skip
        rows, left_out = epoch.in_own_process(case)
        console.print(show.case_table([row for row in rows if row["peer"] not in (epoch.MEMO, epoch.FUSED)]))
        console.print(_parts_in_words(rows), highlight=False)
        for name, why in left_out.items():
            console.print(f"  {name}: {why}", style="dim", highlight=False)
        console.print()
        found["rows"] += rows
        found["left_out"].update({f"{show.title(rows[0])}: {name}": why for name, why in left_out.items()})
        show.store(found, args.json, args.csv)
    return 0


def _parts_in_words(rows):
    from gnna_plugin.tools.bench import epoch

    parts = epoch.parts_of_gain({row["peer"]: row["ms"] for row in rows})
    words = [f"{name} {factor:.2f}x" for name, factor in parts.items() if name != "whole"]
    return f"gain over PyG {parts['whole']:.2f}x = {' · '.join(words)}"
