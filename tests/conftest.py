"""What all tests share: the devices to run on, edge lists that are awkward on purpose, and a plug-in that is off
between tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import gnna_plugin
from gnna_plugin import _load, report

os.environ["GNNA_TUNED"] = "0"  # what somebody measured on this machine must not decide a test

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.cuda,
        pytest.mark.skipif(
            not (torch.cuda.is_available() and _load.built_with_cuda()), reason="needs a GPU and a build with CUDA"
        ),
    ],
)


@pytest.fixture(params=["cpu", CUDA])
def device(request) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _clean_slate():
    torch.manual_seed(0)
    report.reset()
    gnna_plugin.clear_cache()
    yield
    gnna_plugin.disable()


@pytest.fixture
def data_folder() -> Path:
    """The folder of real graphs, GNNA_DATA; tests that need it are skipped without it."""
    folder = os.environ.get("GNNA_DATA")
    if not folder:
        pytest.skip("GNNA_DATA is not set")
    return Path(folder)
