"""One arm of a comparison, in a process of its own: trains the cases it is given and writes what it measured.

Started by runner.py as ``python -m gnna_plugin.tools.compare.worker SPEC.json``. This file owns the order of the
readings: data first, then training from cold with the clock and the memory meter running, and the proof last, so
that nothing is warm that a user's first epoch would find cold.
"""

import json
import platform
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

import gnna_plugin
from gnna_plugin.frameworks import FRAMEWORKS
from gnna_plugin.tools.compare import measure
from gnna_plugin.tools.compare.data import build_model, read_graph, training_data
from gnna_plugin.tools.compare.spec import ACCELERATED, ALLOCATOR
from gnna_plugin.tuned import processor

MIN_EPOCHS = 3


def main(path):
    """Read the spec (a JSON object written by the runner) at ``path`` and write its result file."""
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    torch.set_num_threads(spec["threads"])
    framework = FRAMEWORKS[spec["framework"]]
    arm = Arm(spec, framework.load("tools.models"), framework.hooked)
    result = {"cases": [arm.run(number, case) for number, case in enumerate(spec["cases"])], "versions": arm.versions()}
    with open(spec["result"], "w", encoding="utf-8") as file:
        json.dump(result, file, default=str)


class Arm:
    """The worker's state: which arm it is, on which device, and with which framework's models."""

    def __init__(self, spec, models, packages):
        self.name, self.device, self.framework = spec["arm"], spec["device"], spec["framework"]
        self.models, self.packages = models, packages
        self.has_setting = self.name == ALLOCATOR and gnna_plugin.allocator.keep_freed_memory()

    def run(self, number, case):
        """Measure one case; returns the JSON-ready dict that the runner builds its row from."""
        data = training_data(read_graph(case["folder"]), case)
        tensors = self._tensors(data)
        before = None
        if self.name == ACCELERATED:
            self._model(data, case, tensors)  # PyG writes methods into a class when it is first used
            before = measure.snapshot(self.packages)
            gnna_plugin.enable(self.framework, config=case["config"])
        calls = self._calls()

        meter = measure.PeakMemory(self.device)
        model = self._model(data, case, tensors)
        others = measure.OtherWork()
        times, losses = self._train(model, tensors, case, number)
        missing, peak = others.missing_cores(torch.get_num_threads()), meter.mib()
        accuracy = self._accuracy(model, tensors)
        del model

        warm_up = min(5, max(1, len(times) // 4)) if len(times) > 1 else 0
        median, spread = measure.median_and_spread(times[warm_up:])
        result = dict(
            epochs=len(times), median_ms=median, spread_ms=spread, first_call_ms=times[0] - median, peak_mib=peak,
            missing_cores=missing, losses=losses, accuracy=accuracy, has_setting=self.has_setting,
            fused_calls=0, fallback_calls=0, decisions=[], layers={},
        )
        if self.name == ACCELERATED:
            result.update(self._status(calls))
        if self.name != ALLOCATOR:
            self._report(number, "checking", 0, 0)
            result["same_bits"] = self._prove(case, data, tensors)
        if case["reorder"]:
            result["reordered_losses"] = self._reordered_losses(case, data, tensors, number, len(times))
        if self.name == ACCELERATED:
            gnna_plugin.disable()
            gnna_plugin.clear_cache()
            result["hooks_checked"] = len(before)
            result["not_restored"] = measure.differences(before, measure.snapshot(self.packages))
        return result

    def versions(self):
        """What ran: a dict of strings."""
        found = {"gnna_plugin": gnna_plugin.__version__, "torch": torch.__version__, **self.models.versions()}
        found.update(numpy=np.__version__, python=platform.python_version(), processor=processor())
        if self.device == "cuda":
            found.update(gpu=torch.cuda.get_device_name(), cuda=str(torch.version.cuda))
        return found

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _tensors(self, data):
        x, y, train, test = (
            None if array is None else torch.from_numpy(array).to(self.device)
            for array in (data.x, data.y, data.train, data.test)
        )
        graph = self.models.make_graph(data.src, data.dst, data.num_nodes, self.device)
        return dict(x=x, y=y, train=train, test=test, graph=graph)

    def _model(self, data, case, tensors):
        torch.manual_seed(case["seed"])
        return build_model(self.models, case, data, tensors["graph"], self.device)

    def _train(self, model, tensors, case, number):
        """Epoch times in ms (forward, backward, step) and losses, ending after the epochs or the time allowed."""
        optimizer = torch.optim.Adam(model.parameters(), lr=case["lr"])
        torch.manual_seed(case["seed"])  # dropout draws alike in every arm
        model.train()
        times, losses = [], []
        begin = time.perf_counter()
        for epoch in range(case["epochs"]):
            start = self._clock()
            optimizer.zero_grad()
            loss = _loss(model(tensors["x"], tensors["graph"]), tensors)
            loss.backward()
            optimizer.step()
            times.append(self._clock() - start)
            losses.append(float(loss.detach()))
            del loss  # holds the graph of its epoch through the next one's forward pass
            self._report(number, "training", epoch + 1, case["epochs"])
            spent = time.perf_counter() - begin
            if case["budget_s"] and epoch + 1 >= MIN_EPOCHS and spent > case["budget_s"]:
                break
        return times, losses

    @torch.no_grad()
    def _accuracy(self, model, tensors):
        if tensors["test"] is None:
            return None
        model.eval()
        found = model(tensors["x"], tensors["graph"])[tensors["test"]].argmax(1)
        return float((found == tensors["y"][tensors["test"]]).double().mean())

    def _prove(self, case, data, tensors):
        """Save the untrained model's outputs and gradients, and the float64 ones; True if a rerun gives equal bits."""
        first = self._outputs_and_gradients(case, data, tensors)
        second = self._outputs_and_gradients(case, data, tensors)
        same = all(np.array_equal(_bits(first[key]), _bits(second[key])) for key in first)
        np.savez(case["proof"], **first)
        if case.get("reference_proof") and self._double_fits(data, case):
            tensors = {**tensors, "x": tensors["x"].double()}
            np.savez(case["reference_proof"], **self._outputs_and_gradients(case, data, tensors))
        return same

    def _reordered_losses(self, case, data, tensors, number, epochs):
        """Losses of the same training with the edges in another order: how far rounding alone moves this curve."""
        order = np.random.default_rng(case["seed"]).permutation(len(data.src))
        graph = self.models.make_graph(data.src[order], data.dst[order], data.num_nodes, self.device)
        tensors = {**tensors, "graph": graph}
        case = {**case, "epochs": epochs, "budget_s": None}
        return self._train(self._model(data, case, tensors), tensors, case, number)[1]

    def _outputs_and_gradients(self, case, data, tensors):
        """Outputs and parameter gradients of the initial weights with dropout off, as {name: NumPy array}."""
        model = self._model(data, case, tensors).to(tensors["x"].dtype).eval()
        logits = model(tensors["x"], tensors["graph"])
        _loss(logits, tensors).backward()
        found = {"outputs": logits.detach()}
        found.update((f"gradient of {name}", p.grad) for name, p in model.named_parameters() if p.grad is not None)
        return {name: value.cpu().numpy() for name, value in found.items()}

    def _double_fits(self, data, case):
        """Whether the plain framework's float64 run, with a message per edge held several times, fits the memory."""
        free = measure.available_bytes(self.device)
        width = max(data.x.shape[1], case["hidden"], data.classes)
        return free is None or (len(data.src) + 4 * data.num_nodes) * width * 8 * 4 < free

    # ---- readings ----------------------------------------------------------------------------------------------------

    def _clock(self):
        """Now, in ms, with all work queued on the device done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() * 1e3

    def _calls(self):
        if self.name != ACCELERATED:
            return 0, 0
        status = gnna_plugin.status()
        return status.fused_calls, status.fallback_calls

    def _status(self, calls):
        status = gnna_plugin.status()
        layers = {
            name: dict(fused=layer.fused, materialised=dict(layer.materialised), framework=dict(layer.framework))
            for name, layer in status.layers.items()
        }
        return dict(fused_calls=status.fused_calls - calls[0], fallback_calls=status.fallback_calls - calls[1],
                    decisions=list(status.decisions), layers=layers)

    def _report(self, number, phase, done, total):
        print(json.dumps(dict(case=number, phase=phase, done=done, total=total)), flush=True)


def _loss(logits, tensors):
    if tensors["train"] is None:
        return F.cross_entropy(logits, tensors["y"])
    return F.cross_entropy(logits[tensors["train"]], tensors["y"][tensors["train"]])


def _bits(array):
    """The bytes of an array: unlike ==, they tell 0.0 from -0.0 and call a NaN equal to itself."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


if __name__ == "__main__":
    main(sys.argv[1])
