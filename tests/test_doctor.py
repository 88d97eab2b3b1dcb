"""`gnna doctor`: what it says of this installation, and that a broken part becomes a sentence and an exit status."""

from __future__ import annotations

import json

import pytest
import torch

from gnna_plugin.tools import doctor
from gnna_plugin.tools.cli import main


@pytest.fixture
def no_frameworks(monkeypatch):
    """Spare the processes that try the frameworks."""
    monkeypatch.setattr(doctor, "_framework", lambda name, framework: (doctor.OK, "9.9, active", ""))


def test_a_working_installation(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert torch.__version__ in out and "agree with float64" in out
    assert out.strip().splitlines()[-1].startswith("Works for")


def test_json(no_frameworks, tmp_path, capsys):
    file = tmp_path / "checks.json"
    assert main(["doctor", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert found["works"] and {c["name"] for c in found["checks"]} >= {"CPU kernels", "GPU kernels", "PyG", "DGL"}
    capsys.readouterr()
    assert main(["doctor", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", str(tmp_path / "no" / "folder")])
    assert ended.value.code == 2


def test_wrong_kernels_are_found(no_frameworks, monkeypatch, capsys):
    right = torch.ops.gnna.spmm
    monkeypatch.setattr(torch.ops.gnna, "spmm", lambda *arguments: right(*arguments) * 1.01)
    assert main(["doctor"]) == 1
    assert "failed  CPU kernels" in capsys.readouterr().out


def test_a_check_that_raises_is_reported(no_frameworks, monkeypatch, capsys):
    def broken(device):
        raise RuntimeError("no such luck")

    monkeypatch.setattr(doctor, "_self_check", broken)
    assert main(["doctor"]) == 1
    assert "RuntimeError: no such luck" in capsys.readouterr().out


def test_a_gpu_that_stays_idle_is_named(no_frameworks, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(doctor, "_nvidia_smi", lambda: "NVIDIA H100")
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "NVIDIA H100 is there" in out and "only the CPU part is active" in out
