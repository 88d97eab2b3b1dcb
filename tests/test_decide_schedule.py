"""The schedule's rules: what is chosen for which graph, device and width, and when it has repaid itself."""

from __future__ import annotations

import pytest
import torch

H200 = (True, 132, 60 << 20)
EPYC = (False, 2, 1 << 20)


def choose(device, nodes, edges, width, *, max_degree=1000, calls=0, ms_per_call=0.0, itemsize=4):
    seconds = calls * ms_per_call * 1e-3
    found = torch.ops.gnna.choose_schedule(nodes, nodes, edges, max_degree, *device, width * itemsize, calls, seconds)
    return dict(zip(("kind", "gain", "cost", "repays", "reason"), found, strict=True))


@pytest.mark.parametrize(
    ("device", "nodes", "edges", "width", "max_degree", "kind"),
    [
        (H200, 317_080, 2_099_732, 64, 343, "community"),  # com-dblp: 81 MB of features
        (H200, 317_080, 2_099_732, 16, 343, "degree"),  # 20 MB: inside L2
        (H200, 334_925, 1_686_092, 16, 19, "ascending"),  # DD: degrees of one size
        (H200, 63_731, 1_634_180, 128, 1098, "degree"),  # facebook-links
        (H200, 2_708, 10_556, 16, 168, "ascending"),  # cora: less than a wave
        (EPYC, 317_080, 2_099_732, 16, 343, "community"),
        (EPYC, 2_708, 10_556, 16, 168, "ascending"),  # cora: inside the cache
        (EPYC, 63_731, 1_634_180, 8, 1098, "ascending"),  # 2 MB
    ],
)
def test_kinds(device, nodes, edges, width, max_degree, kind):
    found = choose(device, nodes, edges, width, max_degree=max_degree)
    assert found["kind"] == kind and not found["repays"], found
    assert ("by community once that pays" in found["reason"]) == (kind == "community") == (found["gain"] > 1)
    assert "MiB of features" in found["reason"]


@pytest.mark.parametrize(
    ("device", "nodes", "edges", "max_degree", "words"),
    [
        (H200, 63_731, 1_634_180, 1098, "rows by degree, because "),  # facebook-links: all of it is near
        (H200, 317_080, 2_099_732, 343, "rows by degree in windows of 1024, by community once"),  # com-dblp
        (H200, 334_925, 1_686_092, 19, "rows ascend, by community once"),  # DD: degrees of one size
        (H200, 2_708, 10_556, 168, "rows ascend, because "),  # cora: less than a wave
        (EPYC, 317_080, 2_099_732, 343, "rows ascend, by community once"),
    ],
)
def test_rows_are_kept_by_degree_where_degrees_differ(device, nodes, edges, max_degree, words):
    assert choose(device, nodes, edges, 64, max_degree=max_degree)["reason"].startswith(words)


@pytest.mark.parametrize(("device", "ms"), [(EPYC, 10.0), (H200, 0.1)])
def test_it_is_built_when_what_could_have_been_saved_has_paid_for_it(device, ms):
    def at(calls):
        return choose(device, 317_080, 2_099_732, 64, calls=calls, ms_per_call=ms)

    saved = ms * 1e-3 * (1 - 1 / at(0)["gain"])
    even = at(0)["cost"] / saved
    assert 50 < even < 500  # the notes' measurements: 60 to 350 calls
    assert not at(int(even))["repays"] and at(int(even) + 1)["repays"]
    assert f"repaid after {int(even) + 1} calls" in at(10)["reason"]


def test_a_gpu_pays_for_what_stops_its_caller_only():
    big = (1_000_000, 30_000_000, 64)
    assert choose(H200, *big)["cost"] < 0.1 * choose(EPYC, *big)["cost"]


def test_the_device_s_own_cache_is_known():
    assert 1 << 16 <= torch.ops.gnna.device_facts(torch.device("cpu"))[2] <= 1 << 28
    with pytest.raises(NotImplementedError, match="no kernels for device type meta"):
        torch.ops.gnna.device_facts(torch.device("meta"))
