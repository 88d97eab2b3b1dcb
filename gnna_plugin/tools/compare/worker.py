"""Runs one arm of a comparison in its own process: trains the given cases and writes the measurements.

runner.py starts it as ``python -m gnna_plugin.tools.compare.worker SPEC.json``. For each case, the data is loaded
first, then training is measured from a cold start, as in a user's script. The correctness checks come last, because
they would warm up caches.
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
from gnna_plugin.tools.exact import double_fits, outputs_and_gradients
from gnna_plugin.tuned import processor

MIN_EPOCHS = 3


def main(path):
    """Run the spec that the runner wrote to ``path``, and write the result file."""
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    torch.set_num_threads(spec["threads"])
    framework = FRAMEWORKS[spec["framework"]]
    arm = Arm(spec, framework.load("tools.models"), framework.hooked)
    result = {"cases": [arm.run(number, case) for number, case in enumerate(spec["cases"])], "versions": arm.versions()}
    with open(spec["result"], "w", encoding="utf-8") as file:
        json.dump(result, file, default=str)


class Arm:
    """The state of the worker: its arm, its device, and the models of its framework."""

    def __init__(self, spec, models, packages):
        self.name, self.device, self.framework = spec["arm"], spec["device"], spec["framework"]
        self.models, self.packages = models, packages
        self.has_setting = self.name == ALLOCATOR and gnna_plugin.allocator.keep_freed_memory()

    def run(self, number, case):
        """Measure one case and return a dict for JSON, which the runner makes a row of."""
        data = training_data(read_graph(case["folder"]), case)
        tensors = self._tensors(data)
        before = None
        if self.name == ACCELERATED:
            self._model(data, case, tensors)  # PyG adds methods to a layer class at its first use
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
        """Return the versions of what ran, as a dict of strings."""
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
        """Train, and return (milliseconds, losses) of the epochs.

        Training ends after the epochs or the time that the case allows. The time of an epoch covers forward, backward
        and optimizer step.
        """
        optimizer = torch.optim.Adam(model.parameters(), lr=case["lr"])
        torch.manual_seed(case["seed"])  # the same dropout in every arm
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
            del loss  # otherwise the autograd graph would live through the next forward pass
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
        """Save outputs and gradients of the untrained model, also in float64 if asked.

        Returns:
            Whether two runs give the same bits.
        """
        first = self._outputs_and_gradients(case, data, tensors)
        second = self._outputs_and_gradients(case, data, tensors)
        same = all(np.array_equal(_bits(first[key]), _bits(second[key])) for key in first)
        np.savez(case["proof"], **first)
        if case.get("reference_proof") and self._double_fits(data, case):
            tensors = {**tensors, "x": tensors["x"].double()}
            np.savez(case["reference_proof"], **self._outputs_and_gradients(case, data, tensors))
        return same

    def _reordered_losses(self, case, data, tensors, number, epochs):
        """Return the losses of the same training with the edges in another order.

        They show how far rounding alone moves the loss curve.
        """
        order = np.random.default_rng(case["seed"]).permutation(len(data.src))
        graph = self.models.make_graph(data.src[order], data.dst[order], data.num_nodes, self.device)
        tensors = {**tensors, "graph": graph}
        case = {**case, "epochs": epochs, "budget_s": None}
        return self._train(self._model(data, case, tensors), tensors, case, number)[1]

    def _outputs_and_gradients(self, case, data, tensors):
        """Return outputs and parameter gradients of the initial weights as {name: NumPy array}."""
        model = self._model(data, case, tensors).to(tensors["x"].dtype)
        return outputs_and_gradients(
            model, lambda: model(tensors["x"], tensors["graph"]), lambda logits: _loss(logits, tensors)
        )

    def _double_fits(self, data, case):
        width = max(data.x.shape[1], case["hidden"], data.classes)
        return double_fits(len(data.src), data.num_nodes, width, self.device)

    # ---- readings ----------------------------------------------------------------------------------------------------

    def _clock(self):
        """Return the time in ms after all work queued on the device is done."""
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
    """Return the bytes of an array.

    Unlike with ==, the bytes of 0.0 and -0.0 differ, and those of equal NaNs are equal.
    """
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


if __name__ == "__main__":
    main(sys.argv[1])
