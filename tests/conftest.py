"""Fixtures that all tests share: the devices to run on, a plug-in that is off between tests, and the folder of real
graphs.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import gnna_plugin
from gnna_plugin import _load, report

os.environ["GNNA_TUNED"] = "0"  # ignore tuning results stored on this machine, so that tests are reproducible

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
def nothing_compiled():
    """Start and end without code compiled by torch.compile."""
    torch.compiler.reset()
    yield
    gnna_plugin.disable()
    torch.compiler.reset()


@pytest.fixture
def data_folder() -> Path:
    """Return the folder of real graphs, which GNNA_DATA names. Tests that need it are skipped if it is not set."""
    folder = os.environ.get("GNNA_DATA")
    if not folder:
        pytest.skip("GNNA_DATA is not set")
    return Path(folder)
