"""The subcommand `explain`: shows the decisions for one of compare's models on a graph, as text or JSON."""

import argparse
import json

from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.arguments import output_file, positive
from gnna_plugin.tools.compare.spec import Case
from gnna_plugin.tools.inputs import add_config

HELP = "show how a model's aggregations run on a graph, and why"

_EPILOG = """examples:
  gnna explain --model gin --graph community
  GNNA_DATA=/data/graphs gnna explain --model gcn --graph pubmed --json why.json"""


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("--graph", required=True, metavar="G",
                        help="a graph file or a graph's name; `gnna compare --help` lists the forms")
    parser.add_argument("--framework", choices=sorted(FRAMEWORKS), default="pyg",
                        help="framework of the model (default: %(default)s)")
    parser.add_argument("--model", choices=("gcn", "gin"), default="gcn",
                        help="model to explain (default: %(default)s)")
    parser.add_argument("--dim", type=positive, default=96,
                        help="random features per node if the graph has none (default: %(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto",
                        help="where to run (default: cuda if it can be used, else cpu)")
    add_config(parser)
    parser.add_argument("--json", type=output_file, metavar="FILE", help="also write the explanation to FILE, as JSON")


def run(args):
    """Print the explanation and return the exit status 0.

    Raises:
        UsageError: see gnna_plugin.tools.compare.spec.
    """
    from types import SimpleNamespace

    import torch

    import gnna_plugin
    from gnna_plugin.tools.compare import runner
    from gnna_plugin.tools.compare.data import build_model, training_data
    from gnna_plugin.tools.inputs import load_graphs

    runner.check_framework(args.framework)
    device, _ = runner.choose_device(args.device)
    (graph,) = load_graphs([args.graph], 0)
    case = Case(graph=args.graph, model=args.model, framework=args.framework, dim=args.dim).resolved()
    data = training_data(graph, case)
    models = FRAMEWORKS[args.framework].load("tools.models")
    structure = models.make_graph(data.src, data.dst, data.num_nodes, device)
    model = build_model(models, case, data, structure, device)
    ends = torch.stack([torch.from_numpy(data.src), torch.from_numpy(data.dst)]).to(device)
    x = torch.from_numpy(data.x).to(device)
    with gnna_plugin.enabled(args.framework, config=args.config):
        found = gnna_plugin.explain(model, SimpleNamespace(x=x, edge_index=ends), x, structure)
    print(found)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(found.as_dict(), file, indent=1)
    return 0
