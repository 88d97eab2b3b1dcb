"""Checks README.md and docs/: marked tables are those of the stored measurements, and links lead somewhere."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "docs" / "results").is_dir():
    pytest.skip("needs the source tree", allow_module_level=True)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.M | re.S)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\|", re.M)


def module(name):
    """Import a file of benchmarks/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def tool():
    """Return benchmarks/figures.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return module("figures")


def tables(text):
    """Return the numbers of rows of the Markdown tables in a text, without heading and rule."""
    counts, count = [], 0
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            count += 1
        elif count:
            counts.append(count - 2)
            count = 0
    return counts


def anchors(page):
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
        found.add(name.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_generator_changes_nothing(page, tool):
    assert tool.rewritten(page) == page.read_text(), "run `make figures`"


def test_the_front_page_has_the_figures():
    marks = re.findall(r"<!-- figures: ([\w-]+) -->\n(.*?)<!-- end -->", (ROOT / "README.md").read_text(), re.S)
    assert {"headline", "chart", "h200-epochs", "cpu-epochs"} <= {name for name, _ in marks}
    assert all(text.strip() for _, text in marks)


def test_the_front_page_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    assert max(tables(text)) <= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert not broken


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    assert named == {page.name for page in PAGES if page.parent.name == "docs"}


def test_every_command_has_a_section():
    from gnna_plugin.tools.cli import COMMANDS

    headings = anchors(ROOT / "docs" / "tools.md")
    assert not set(COMMANDS) - headings


def test_a_run_that_did_not_finish_is_stored_only_on_request_and_without_its_open_graphs(tmp_path, monkeypatch):
    tool = module("measurements")
    monkeypatch.setattr(tool, "RESULTS", tmp_path)
    row = {"graph": "cora", "model": "gcn 2x16", "decisions": [1]}
    command = "python -m gnna_plugin bench epoch --graph cora DD --models gcn --json /x/y.json"
    about = {"command": command, "versions": {}}
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"about": about, "rows": [row]}))
    with pytest.raises(SystemExit, match="lacks cases of DD"):
        tool.store(path, "out")
    tool.store(path, "out", partial=True)
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["about"]["command"] == "gnna bench epoch --graph cora --models gcn"
    assert stored["rows"] == [{"graph": "cora", "model": "gcn 2x16"}]
    path.write_text(json.dumps({"about": about, "rows": [row, {**row, "graph": "DD"}]}))
    tool.store(path, "out")
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["about"]["command"] == "gnna bench epoch --graph cora DD --models gcn"


def test_stored_results_say_what_they_are():
    files = sorted((ROOT / "docs" / "results").glob("*.json"))
    assert files
    for file in files:
        result = json.loads(file.read_text())
        assert {"command", "date", "versions"} <= set(result["about"]), file.name
        assert all(not isinstance(value, (dict, list)) for row in result["rows"] for value in row.values()), file.name


def test_a_study_that_did_not_finish_says_what_it_lacks(tmp_path, monkeypatch):
    tool = module("measurements")
    monkeypatch.setattr(tool, "RESULTS", tmp_path)
    rows = [{"graph": g, "model": m, "hidden": 16} for g, m in (("a", "gcn"), ("a", "gin"), ("b", "gcn"))]
    about = {"command": "gnna study fig10 --graph a b c --rounds 3", "versions": {}}
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"kind": "fig10", "about": about, "rows": rows}))
    with pytest.raises(SystemExit, match="lacks b: gin 16, c"):
        tool.store(path, "out")
    tool.store(path, "out", partial=True)
    stored = json.loads((tmp_path / "out.json").read_text())
    assert stored["rows"] == rows
    assert stored["about"]["lacks"] == ["b: gin 16", "c"] and stored["about"]["command"] == about["command"]


def test_the_papers_graphs_are_those_of_the_studies():
    from gnna_plugin.tools.study import graphs

    found = {kind: [name for name, graph in graphs.PAPER.items() if graph.type == kind] for kind in graphs.TYPES}
    assert found == module("measurements").PAPER
