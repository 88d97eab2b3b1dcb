"""Bad values of command-line options end in one sentence and status 2, before anything is measured."""

from __future__ import annotations

import pytest

from gnna_plugin.tools.cli import main

GRAPH = ("--graph", "community:100x400")
FILES = (
    ("compare", *GRAPH, "--json"),
    ("compare", *GRAPH, "--csv"),
    ("explain", *GRAPH, "--json"),
    ("bench", "spmm", *GRAPH, "--json"),
    ("bench", "spmm", *GRAPH, "--csv"),
    ("bench", "page", "rows.json", "--output"),
    ("doctor", "--json"),
    ("study", "fig10", *GRAPH, "--json"),
    ("study", "spmm", *GRAPH, "--csv"),
    ("verify", *GRAPH, "--json"),
)
COUNTS = (
    ("compare", *GRAPH, "--epochs"),
    ("compare", *GRAPH, "--dim"),
    ("compare", *GRAPH, "--threads"),
    ("explain", *GRAPH, "--dim"),
    ("bench", "spmm", *GRAPH, "--widths"),
    ("bench", "epoch", *GRAPH, "--dim"),
    ("bench", "spmm", *GRAPH, "--rounds"),
    ("tune", *GRAPH, "--hidden"),
    ("demo", "--threads"),
    ("study", "hidden-width", *GRAPH, "--hidden"),
    ("verify", *GRAPH, "--widths"),
    ("artifact", "--partSize"),
)


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as ended:
        main(list(argv))
    assert ended.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("argv", FILES, ids=" ".join)
def test_files_that_cannot_be_written(capsys, tmp_path, argv):
    assert "the folder does not exist" in refused(capsys, *argv, str(tmp_path / "none" / "rows.json"))
    assert "is a folder" in refused(capsys, *argv, str(tmp_path))


@pytest.mark.parametrize("argv", COUNTS, ids=" ".join)
def test_counts(capsys, argv):
    assert "is no whole number" in refused(capsys, *argv, "abc")
    assert "is too small; it must be 1 or more" in refused(capsys, *argv, "0")
    assert "is too large" in refused(capsys, *argv, "99999999999")


def test_unknown_libraries(capsys):
    argv = ["bench", "spmm", "--graph", "community:100x400", "--widths", "4", "--rounds", "1", "--peers", "nope"]
    assert main([*argv, "--device", "cpu"]) == 2
    assert "no library 'nope'" in capsys.readouterr().err
