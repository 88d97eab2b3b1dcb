"""Checks the structure of the source tree: which folder may depend on which, and how long a file may be.

The tests read the sources instead of importing modules, so that every file is covered. A "room" is a folder of
docs/architecture.md.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
TORCH_HEADER = re.compile(r'^\s*#\s*include\s*[<"]((?:torch|ATen|c10)/[^>"]*)', re.M)
FRAMEWORKS = {"torch_geometric", "dgl", "torch_sparse", "torch_scatter"}

if not (ROOT / "csrc").is_dir():
    pytest.skip("needs the source tree", allow_module_level=True)


def files(*rooms, suffixes):
    found = [path for room in rooms for path in sorted((ROOT / room).rglob("*")) if path.suffix in suffixes]
    return [path for path in found if "__pycache__" not in path.parts]


def imported_modules(source):
    """Yield every module that a Python source imports at any depth, also by importlib.import_module("...")."""
    for node in ast.walk(ast.parse(source)):
        yield from imported_modules_of(node)


def absolute(node, package):
    """The module that an `import from` names; `package` is the one that a relative name starts from."""
    if node.level == 0:
        return node.module
    start = package.split(".")
    start = start[: len(start) - node.level + 1]
    return ".".join([*start, *([node.module] if node.module else [])])


def imported_modules_of(node):
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        yield node.module
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if name in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
            yield node.args[0].value


CPP = {".cpp", ".h", ".cu", ".cuh", ".inl"}


def test_only_csrc_torch_includes_torch():
    offenders = [
        f"{path.relative_to(ROOT)}: {header}"
        for path in files("csrc/include", "csrc/decide", "csrc/cpu", "csrc/cuda", suffixes=CPP)
        for header in TORCH_HEADER.findall(path.read_text())
    ]
    assert not offenders


# The folders that each room of csrc may include from, besides its own. csrc/torch/library.cpp includes no other file.
BELOW = {
    "include": (),
    "decide": ("gnna",),
    "cpu": ("gnna",),
    "cuda": ("gnna",),
    "torch/common": ("gnna",),
    "torch/plan": ("gnna", "common"),
    "torch/ops": ("gnna", "common", "plan"),
    "torch/device": ("gnna", "common", "plan", "ops"),
    "torch/process": ("gnna", "common"),
}


def test_a_file_of_csrc_includes_only_from_the_rooms_below_its_own():
    offenders = []
    for path in files("csrc", suffixes=CPP):
        room = str(path.parent.relative_to(ROOT / "csrc"))
        room = next((name for name in BELOW if room == name or room.startswith(f"{name}/")), None)
        allowed = {*BELOW.get(room, ()), (room or "").rpartition("/")[2], "gnna" if room == "include" else ""}
        for header in re.findall(r'^\s*#\s*include\s*"([^"]*)"', path.read_text(), re.M):
            folder = header.rpartition("/")[0].partition("/")[0]
            if folder not in allowed:
                offenders.append(f"{path.relative_to(ROOT)}: {header}")
    assert not offenders


def test_no_file_includes_torch_extension_h():
    pattern = re.compile(r'^\s*#\s*include\s*[<"]torch/extension\.h', re.M)
    sources = files("csrc", "adapters", "gnna_plugin", suffixes=CPP)
    assert not [str(path.relative_to(ROOT)) for path in sources if pattern.search(path.read_text())]


def test_gnna_plugin_imports_no_framework():
    offenders = [
        f"{path.relative_to(ROOT)}: {module}"
        for path in files("gnna_plugin", suffixes={".py"})
        for module in imported_modules(path.read_text())
        if module.split(".")[0] in FRAMEWORKS
    ]
    assert not offenders


def test_adapters_do_not_import_each_other():
    rooms = [folder.name for folder in (ROOT / "adapters").iterdir() if folder.is_dir()]
    offenders = [
        f"{path.relative_to(ROOT)}: {module}"
        for room in rooms
        for path in files(f"adapters/{room}", suffixes={".py"})
        for module in imported_modules(path.read_text())
        for other in rooms
        if other != room and f"{module}.".startswith((f"adapters.{other}.", f"gnna_plugin.adapters.{other}."))
    ]
    assert not offenders


def test_no_file_exceeds_the_maximal_length():
    rooms = ("csrc", "gnna_plugin", "adapters", "tests", "benchmarks", "examples")
    sources = [*files(*rooms, suffixes=CPP | {".py"}), ROOT / "setup.py"]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_LINES}


def test_packages_are_complete():
    """A folder without __init__.py works in the source tree but is missing from the wheel."""
    folders = {path.parent for path in files("gnna_plugin", "adapters", suffixes={".py"})}
    assert not [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()]


@pytest.mark.parametrize(
    "source",
    [
        "import torch_geometric.nn",
        "def f():\n    from dgl import nn",
        "try:\n    import dgl\nexcept ImportError:\n    pass",
        "import importlib\nimportlib.import_module('dgl.function')",
    ],
)
def test_the_import_finder_sees_every_form_of_import(source):
    assert any(module.split(".")[0] in FRAMEWORKS for module in imported_modules(source))


# ---- imports between the rooms of Python -----------------------------------------------------------------------------


def modules():
    """Return {name as imported: path} of every module of gnna_plugin and the adapters."""
    found = {}
    for path in files("gnna_plugin", "adapters", suffixes={".py"}):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = ("gnna_plugin", *parts) if parts[0] == "adapters" else parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(source, known, package=""):
    """Return the modules among `known` that a source of `package` imports.

    Imports inside functions count, those under `if TYPE_CHECKING` do not. `from package import name` is an import of
    package.name if that is a module, else of the package. The __init__ of a package counts only if it is imported by
    name, although Python runs it before each module of the package.
    """
    tree = ast.parse(source)
    for_types = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    skipped = {id(inner) for node in for_types for statement in node.body for inner in ast.walk(statement)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            module = absolute(node, package)
            named = [f"{module}.{alias.name}" for alias in node.names]
            found.update(name if name in known else module for name in named)
        else:
            found.update(imported_modules_of(node))
    return found & set(known)


def cycle_in(graph):
    """Return the names along one cycle of a {name: names} graph, or None."""
    finished, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return None
        path.append(name)
        found = next(filter(None, map(visit, sorted(graph[name]))), None)
        path.pop()
        finished.add(name)
        return found

    return next(filter(None, map(visit, sorted(graph))), None)


def room_of(module):
    parts = module.split(".")
    if parts[:2] == ["gnna_plugin", "adapters"]:
        return "adapters' tools" if parts[3:4] == ["tools"] else "adapters"
    if parts[1:2] in (["tools"], ["__main__"]):
        return "tools"
    return "data" if parts[1:2] == ["data"] else "runtime"


MAY_IMPORT = {
    "runtime": {"runtime"},
    "data": {"runtime", "data"},
    "adapters": {"runtime", "adapters"},
    "adapters' tools": {"runtime", "data", "adapters", "adapters' tools"},
    "tools": {"runtime", "data", "adapters", "adapters' tools", "tools"},
}


def import_graph():
    known = modules()
    return {
        name: imports(path.read_text(), known, name if path.name == "__init__.py" else name.rpartition(".")[0])
        for name, path in known.items()
    }


def test_no_import_cycle():
    assert cycle_in(import_graph()) is None


def test_imports_run_one_way_between_rooms():
    offenders = [
        f"{name} ({room_of(name)}) imports {imported} ({room_of(imported)})"
        for name, found in import_graph().items()
        for imported in found
        if room_of(imported) not in MAY_IMPORT[room_of(name)]
    ]
    assert not offenders


def test_adapters_are_named_in_one_place():
    """Only the table of frameworks names the adapters' modules, as strings for importlib."""
    offenders = [
        f"{name}: {node.value}"
        for name, path in modules().items()
        if room_of(name) not in ("adapters", "adapters' tools") and name != "gnna_plugin.frameworks"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and re.match(r"gnna_plugin\.adapters\.\w", str(node.value))
    ]
    assert not offenders


def test_the_import_finder_sees_functions_and_skips_types():
    known = {"gnna_plugin", "gnna_plugin.report", "gnna_plugin.switch"}
    assert imports("def f():\n    from gnna_plugin import switch", known) == {"gnna_plugin.switch"}
    assert imports("from gnna_plugin.report import status", known) == {"gnna_plugin.report"}
    assert imports("from gnna_plugin import enable", known) == {"gnna_plugin"}
    assert imports("from . import report\nfrom .switch import enable", known, "gnna_plugin") == known - {"gnna_plugin"}
    assert imports("from ..report import status", known, "gnna_plugin.tools") == {"gnna_plugin.report"}
    assert imports("if TYPE_CHECKING:\n    from gnna_plugin import switch", known) == set()
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle_in({"a": {"b"}, "b": set()}) is None
