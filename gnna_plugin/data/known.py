"""Public benchmark graphs by the names that papers use, and the sources that load_graph() accepts for them."""

from gnna_plugin.data.standin import STANDINS

# Name: the source of the graph itself.
_SOURCES = {
    "cora": "planetoid:Cora",
    "citeseer": "planetoid:CiteSeer",
    "pubmed": "planetoid:PubMed",
    "reddit": "reddit",
    "ogbn-arxiv": "ogb:ogbn-arxiv",
    "ogbn-products": "ogb:ogbn-products",
    "com-dblp": "suitesparse:SNAP/com-DBLP",
    "com-amazon": "suitesparse:SNAP/com-Amazon",
    "com-orkut": "suitesparse:SNAP/com-Orkut",
    "LiveJournal": "suitesparse:SNAP/soc-LiveJournal1",
    "soc-LiveJournal1": "suitesparse:SNAP/soc-LiveJournal1",
    "amazon0505": "suitesparse:SNAP/amazon0505",
    "amazon0601": "suitesparse:SNAP/amazon0601",
    "cnr-2000": "suitesparse:LAW/cnr-2000",
    **{name: f"tu:{name}" for name in ("DD", "PROTEINS", "PROTEINS_full", "Yeast", "OVCAR-8H", "SW-620H",
                                       "TWITTER-Real-Graph-Partial")},
}  # fmt: skip
# Public graphs that no prefix loads.
_FILES_ONLY = (
    "facebook-links", "amazon-computers", "amazon-photo", "musae-github", "gemsec-new_sites", "BlogCatalog3",
    "PP-Pathways",
)  # fmt: skip


def advice(name):
    """Return how to get the benchmark graph ``name``, in upper or lower case, or None if it is unknown here."""
    ways = []
    if source := _find(name, _SOURCES):
        ways.append(f"'{_SOURCES[source]}' downloads it")
    if standin := _find(name, STANDINS):
        ways.append(f"'standin:{standin}' generates a graph of its size")
    if not ways and _find(name, _FILES_ONLY):
        ways.append("it is a public graph that no prefix loads: pass the path of its edge list (.csv, .tsv or .txt)")
    return ", ".join(ways) or None


def _find(name, names):
    return next((known for known in names if known.lower() == name.lower()), None)
