"""enable, disable and their scoped forms: what they change, that they restore everything, and what they refuse."""

from __future__ import annotations

import inspect
import platform
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch

pytest.importorskip("torch_geometric")

import pyg_layers as layers
import torch_geometric.nn.conv.gcn_conv as gcn_conv
from torch_geometric.nn import Aggregation, MessagePassing, SAGEConv

import gnna_plugin
from gnna_plugin import allocator, settings, switch
from gnna_plugin.frameworks import FRAMEWORKS


def patched_places():
    return {
        "index_select": vars(MessagePassing)["_index_select"],
        "reduce": vars(Aggregation)["reduce"],
        "script function": vars(torch.jit.ScriptFunction)["__call__"],
        "script method": vars(torch._C.ScriptMethod)["__call__"],
        "function": torch._functorch.utils.unwrap_dead_wrappers,
        **{
            name: vars(module)["gcn_norm"]
            for name, module in sys.modules.items()
            if name.startswith("torch_geometric.") and inspect.isfunction(vars(module).get("gcn_norm"))
        },
    }


@pytest.fixture
def call():
    x, edge_index, _ = layers.graph(dtype=torch.float32)
    layer = SAGEConv(layers.WIDTH, 8)

    def run():
        before = gnna_plugin.status().fused_calls
        layer(x, edge_index)
        return gnna_plugin.status().fused_calls - before

    return run


def test_disable_restores_the_original_functions():
    originals = patched_places()
    gnna_plugin.enable()
    ours = patched_places()
    assert all(ours[name] is not originals[name] for name in originals)
    gnna_plugin.disable()
    restored = patched_places()
    assert all(restored[name] is originals[name] for name in originals)
    gnna_plugin.disable()  # a second call does nothing
    assert patched_places() == originals


def test_enabling_twice_is_the_same_as_once(call):
    originals = patched_places()
    gnna_plugin.enable(min_work=0)
    gnna_plugin.enable(min_work=0)
    assert call() == 1
    gnna_plugin.disable()
    assert patched_places() == originals and call() == 0


def test_disable_keeps_a_later_patch_of_another_package_and_warns():
    gnna_plugin.enable()
    ours = MessagePassing._index_select

    def theirs(self, src, index):
        return ours(self, src, index)

    MessagePassing._index_select = theirs
    try:
        with pytest.warns(UserWarning, match="did not restore MessagePassing._index_select"):
            gnna_plugin.disable()
        assert MessagePassing._index_select is theirs
    finally:
        MessagePassing._index_select = ours.__wrapped__


def test_disable_restores_functions_in_modules_imported_while_enabled():
    original = gcn_conv.gcn_norm
    gnna_plugin.enable()
    late = type(sys)("torch_geometric.late_import")
    late.gcn_norm = gcn_conv.gcn_norm
    sys.modules[late.__name__] = late
    try:
        gnna_plugin.disable()
        assert late.gcn_norm is original
    finally:
        del sys.modules[late.__name__]


def test_a_framework_that_does_not_fit_is_left_alone(monkeypatch, call):
    monkeypatch.setattr(MessagePassing, "_index_select", lambda self, src: src)
    before = patched_places()
    with pytest.warns(UserWarning, match="stays off for PyG .*_index_select takes"):
        gnna_plugin.enable("pyg")
    assert patched_places() == before and not switch.frameworks() and not allocator.kept()


def test_enabled_and_disabled_can_be_nested(call):
    with gnna_plugin.enabled(min_work=0):
        assert call() == 1
        with gnna_plugin.disabled():
            assert call() == 0
            with gnna_plugin.enabled(min_work=0):
                assert call() == 1
            assert call() == 0
        assert call() == 1
    assert call() == 0 and not switch.frameworks()
    gnna_plugin.enable(min_work=0, skip=["SAGEConv"])
    with gnna_plugin.enabled(min_work=0, max_plan_bytes=0):
        assert call() == 1
    assert call() == 0 and settings.current.skip == {"SAGEConv"}
    assert torch.ops.gnna.cache_info()[4] == settings.Settings().max_plan_bytes


def test_disabled_is_for_this_thread_only(call):
    gnna_plugin.enable(min_work=0)
    found = []
    with gnna_plugin.disabled():
        thread = threading.Thread(target=lambda: found.append(call()))
        thread.start()
        thread.join()
        assert call() == 0
    assert found == [1]


def test_invalid_arguments_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="unknown framework 'jraph'; known are 'pyg', 'dgl'"):
        gnna_plugin.enable("jraph")
    with pytest.raises(ValueError, match="skip is 'GCNConv'"):
        gnna_plugin.enable(skip="GCNConv")
    for wrong in (
        {"only": [dict]},
        {"only": 1},
        {"skip": None},
        {"max_plan_bytes": 1.5},
        {"max_plan_bytes": 1 << 63},
        {"max_plan_bytes": "4"},
        {"config": "lanes=16"},
        {"strict": "yes"},
        {"min_work": "many"},
        {"min_work": 1.5},
        {"min_work": True},
        {"min_work": 1 << 63},
        {"max_plan_bytes": True},
        {"rewrite": 0},
        {"keep_memory": 3},
        {"schedule": "x"},
    ):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"^{name} "):
            gnna_plugin.enable(**wrong)
    with pytest.raises(ValueError, match="unknown framework"):
        gnna_plugin.enable(["pyg", "dgl"])
    with pytest.raises(ValueError, match="min_work is -1"):
        gnna_plugin.enable(min_work=-1)
    with pytest.raises(ValueError, match="max_plan_bytes is -5"):
        gnna_plugin.enable(max_plan_bytes=-5)
    for text in ("much", "-3", "1e6"):
        monkeypatch.setenv("GNNA_MIN_WORK", text)
        with pytest.raises(ValueError, match=f"GNNA_MIN_WORK is '{text}'"):
            gnna_plugin.enable()
    absent = replace(FRAMEWORKS["pyg"], package="no_such_framework")
    monkeypatch.setitem(FRAMEWORKS, "pyg", absent)
    monkeypatch.delenv("GNNA_MIN_WORK")
    with pytest.raises(ImportError, match="no_such_framework is not installed"):
        gnna_plugin.enable("pyg")
    monkeypatch.delitem(FRAMEWORKS, "dgl")
    with pytest.raises(ImportError, match="no supported framework is installed"):
        gnna_plugin.enable()
    assert not switch.frameworks()


def test_a_framework_that_cannot_be_imported(monkeypatch):
    """An example is a DGL without libraries for this torch.

    enable("dgl") raises its error. enable() warns and enables the other framework.
    """
    broken = replace(FRAMEWORKS["dgl"], package="torch", adapter="gnna_plugin.no_such_adapter")
    monkeypatch.setitem(FRAMEWORKS, "dgl", broken)
    with pytest.raises(ImportError, match="torch is installed but cannot be imported"):
        gnna_plugin.enable("dgl")
    with pytest.warns(UserWarning, match="so gnna_plugin stays off for it"):
        gnna_plugin.enable()
    assert switch.frameworks() == ["pyg"]


def test_public_names_exist_and_enabled_has_the_signature_of_enable():
    assert all(hasattr(gnna_plugin, name) for name in gnna_plugin.__all__)
    assert isinstance(gnna_plugin.status(), gnna_plugin.Status)
    assert gnna_plugin.Fallback is settings.Fallback and "allocator" not in gnna_plugin.__all__
    parameters = [inspect.signature(function).parameters for function in (gnna_plugin.enable, gnna_plugin.enabled)]
    assert parameters[0] == parameters[1]


def test_environment_variables_set_what_enable_leaves_open(monkeypatch):
    monkeypatch.setenv("GNNA_MIN_WORK", "77")
    monkeypatch.setenv("GNNA_STRICT", "1")
    gnna_plugin.enable()
    assert settings.current.min_work == 77 and settings.current.strict
    gnna_plugin.enable(min_work=5, strict=False)
    assert settings.current.min_work == 5 and not settings.current.strict


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_kept_while_enabled():
    """Runs in its own process: freed buffers stay resident if they are kept, and are returned if not."""
    program = """
import torch, gnna_plugin
def resident():
    return int(open('/proc/self/statm').read().split()[1]) * 4096 >> 20
def growth():
    before = resident()
    for _ in range(10):
        torch.ones(100 << 18)
    return resident() - before
plain = growth()
gnna_plugin.enable(keep_memory=False)
unkept = growth()
gnna_plugin.enable()
kept = growth()
gnna_plugin.disable()
print(plain, unkept, kept, growth(), gnna_plugin.allocator.kept())
"""
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    plain, unkept, kept, after, flag = out.split()
    assert int(plain) < 50 and int(unkept) < 50, out  # MiB: every buffer was returned
    assert int(after) <= 110, out  # disable() returned the memory; one buffer may still come from the heap
    assert 90 <= int(kept) <= 350, out  # ten buffers of 100 MiB reuse the memory of a few
    assert flag == "False"


def test_import_creates_no_cuda_context_and_imports_no_framework():
    program = """
import gnna_plugin, sys, torch
assert 'torch_geometric' not in sys.modules and not torch.cuda.is_initialized()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_status_before_the_first_call():
    assert "off; 0 calls fused" in str(gnna_plugin.status())
    assert gnna_plugin.status().as_dict()["layers"] == {}


def test_saved_tensor_hooks_are_detected():
    """Both torch's own query, if this release has one, and our op for the others must detect them."""
    from gnna_plugin import surroundings

    for seen in (surroundings.saved_tensor_hooks, torch.ops.gnna.saved_tensor_hooks):
        assert not seen()
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            assert seen()
        assert not seen()
