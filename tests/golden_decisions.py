"""The decisions that a change of rules or tuning data is compared with.

    python tests/golden_decisions.py    rewrites golden/decisions.json; its diff shows what a change of the rules does
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gnna_plugin import decider
from gnna_plugin.decider import Facts

FILE = Path(__file__).parent / "golden" / "decisions.json"

# is CUDA, multiprocessors, bytes of L2, bytes per second of memory
DEVICES = {"H100": (1, 132, 50 << 20), "H200": (1, 132, 60 << 20)}

# rows, edges, longest row
GRAPHS = {
    "cora": (2_708, 10_556, 168),
    "pubmed": (19_717, 88_651, 171),
    "PROTEINS": (43_471, 162_088, 25),
    "musae-github": (37_700, 578_006, 9_458),
    "BlogCatalog3": (10_312, 667_966, 3_992),
    "PP-Pathways": (21_557, 680_989, 2_131),
    "facebook-links": (63_731, 1_634_180, 1_098),
    "DD": (334_925, 1_686_092, 19),
    "com-dblp": (317_080, 2_099_732, 343),
    "NCI-HIV-H": (1_890_931, 3_946_402, 11),
    "reddit": (232_965, 114_615_892, 21_657),
}
WIDTHS = (7, 16, 41, 64, 128, 256, 512)
LAYERS = {
    "float32": {},
    "float32, weights": {"weighted": True},
    "float32, 4 heads": {"weighted": True, "heads": 4},
    "bfloat16": {"itemsize": 2},
    "float64": {"itemsize": 8},
}


def facts_of(graph: str, width: int, layer: dict) -> Facts:
    rows, edges, longest = GRAPHS[graph]
    given = dict(layer)
    heads = given.pop("heads", 1)
    return Facts(rows, rows, edges, longest, width, width // heads if width % heads == 0 else width, **given)


def decisions() -> dict[str, str]:
    """One line per case, short enough to be read in a diff."""
    found = {}
    for device, numbers in DEVICES.items():
        for layer, given in LAYERS.items():
            for graph in GRAPHS:
                for width in WIDTHS:
                    p = decider.decide_on(numbers, facts_of(graph, width, given)).parameters()
                    found[f"{device}, {layer}, {graph}, {width}"] = (
                        f"{p['lanes']} lanes x {p['vectors']} loads of {p['vector_width']}, {p['groups']} groups, "
                        f"block {p['block']}, split {p['split_above']}/{p['chunk_edges']}"
                    )
    return found


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(decisions(), indent=0) + "\n", encoding="utf-8")
    print(f"{len(decisions())} decisions in {FILE}", file=sys.stderr)
