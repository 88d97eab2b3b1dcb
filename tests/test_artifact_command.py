"""`gnna artifact`: each flag of the authors' GNNA_main.py has the effect that their README gives it, or is named."""

import numpy as np
import pytest

from gnna_plugin.tools import artifact, cli
from gnna_plugin.tools.compare.spec import UsageError


def request(*words):
    args = cli.build_parser().parse_args(["artifact", "--device", "cpu", *words])
    return artifact.equivalent(args)


def options(words):
    """The value of each option of a command, "" for a flag."""
    found = {}
    for at, word in enumerate(words):
        if word.startswith("--"):
            after = words[at + 1] if at + 1 < len(words) else "--"
            found[word] = "" if after.startswith("--") else after
    return found


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    monkeypatch.delenv("GNNA_DATA", raising=False)


def test_training():
    found = request(
        "--dataset", "artist", "--dim", "100", "--hidden", "64", "--classes", "12", "--model", "gin",
        "--num_epoches", "30", "--manual_mode", "False",
    )  # fmt: skip
    assert found.words[0] == "compare"
    given = options(found.words)
    assert (given["--dim"], given["--hidden"], given["--classes"], given["--epochs"]) == ("100", "64", "12", "30")
    assert (given["--model"], given["--layers"], given["--graph"]) == ("gin", "5", "standin:artist")
    assert "--synthetic" in given and "--config" not in given and "--renumber" not in given
    assert any("stand-in" in note for note in found.notes)


def test_defaults_are_the_artifacts():
    found = request()
    given = options(found.words)
    assert (given["--graph"], given["--model"], given["--layers"]) == ("standin:amazon0601", "gcn", "2")
    assert (given["--dim"], given["--hidden"], given["--classes"], given["--epochs"]) == ("96", "16", "22", "200")
    assert given["--config"] == "group_size=32,lanes=32,block=256"  # manual mode is on, with 8 warps per block


def test_manual_mode_sets_the_launch():
    words = ["--partSize", "64", "--dimWorker", "16", "--warpPerBlock", "4"]
    found = request(*words)
    assert options(found.words)["--config"] == "group_size=64,lanes=16,block=128"
    assert any("CPU" in note for note in found.notes)
    assert "--config" not in options(request(*words, "--manual_mode", "False").words)


@pytest.mark.parametrize("flag, value", [("dimWorker", "12"), ("dimWorker", "64"), ("warpPerBlock", "6")])
def test_launch_parameters_that_cannot_be_set_are_refused(flag, value):
    with pytest.raises(UsageError, match=f"--{flag} {value} is not accepted; accepted are 1, 2, 4"):
        request(f"--{flag}", value)


def test_renumbering_follows_the_mode():
    assert options(request("--enable_rabbit", "True").words)["--renumber"] == "rabbit"
    words = request("--enable_rabbit", "True", "--manual_mode", "False").words
    assert options(words)["--renumber"] == "rule"
    assert "--renumber" not in request("--enable_rabbit", "False").words


def test_a_single_spmm_has_the_width_of_the_input():
    found = request("--single_spmm", "True", "--dim", "48", "--hidden", "16", "--num_epoches", "10")
    assert found.words[:2] == ["bench", "spmm"] and options(found.words)["--widths"] == "48"
    assert any("--num_epoches" in note for note in found.notes)


def test_the_check_has_the_hidden_width():
    found = request("--verify_spmm", "True", "--dim", "48", "--hidden", "20", "--single_spmm", "True")
    given = options(found.words)
    assert found.words[0] == "verify" and (given["--widths"], given["--reduce"]) == ("20", "sum")
    assert any("--single_spmm" in note for note in found.notes)


@pytest.mark.parametrize("words", [["--sharedMem", "64"], ["--verbose_mode", "False"]])
def test_flags_without_effect_are_named(words):
    plain = {*request().notes}
    (note,) = [note for note in request(*words).notes if note not in plain]
    assert words[0] in note


@pytest.mark.parametrize("flag", ["manual_mode", "enable_rabbit", "loadFromTxt", "single_spmm", "verify_spmm"])
def test_flags_are_true_or_false(flag):
    for value in ("true", "1", "yes"):
        with pytest.raises(SystemExit):
            request(f"--{flag}", value)


def test_graphs_come_from_the_folder_of_the_data(tmp_path, monkeypatch):
    ends = {"src_li": np.array([0, 1]), "dst_li": np.array([1, 2]), "num_nodes": 3}
    np.savez(tmp_path / "cora.npz", **ends)
    (tmp_path / "mine.txt").write_text("0 1\n1 2\n")
    (tmp_path / "bare").write_text("0 1\n")
    folder = ("--dataDir", str(tmp_path))
    assert options(request("--dataset", "cora", *folder).words)["--graph"] == str(tmp_path / "cora.npz")
    for name in ("mine", "mine.txt"):
        words = request("--dataset", name, "--loadFromTxt", "True", *folder).words
        assert options(words)["--graph"] == str(tmp_path / "mine.txt")
    with pytest.raises(UsageError, match="must end in"):
        request("--dataset", "bare", "--loadFromTxt", "True", *folder)
    with pytest.raises(UsageError, match="no text file"):
        request("--dataset", "cora", "--loadFromTxt", "True", *folder)
    monkeypatch.setenv("GNNA_DATA", str(tmp_path))
    found = request("--dataset", "cora")
    assert options(found.words)["--graph"] == "cora" and any("GNNA_DATA" in note for note in found.notes)


def test_the_command_is_printed_and_run(tmp_path, capsys):
    (tmp_path / "g.txt").write_text("\n".join(f"{i} {(i * 7 + 1) % 20}" for i in range(20)))
    words = ["artifact", "--device", "cpu", "--dataset", "g", "--dataDir", str(tmp_path), "--loadFromTxt", "True"]
    assert cli.main([*words, "--verify_spmm", "True", "--hidden", "4", "--sharedMem", "64"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("$ gnna verify --graph") and any("--sharedMem" in line for line in rest[:3])
    assert cli.main(["artifact", "--device", "cpu", "--dataset", "missing"]) == 2
