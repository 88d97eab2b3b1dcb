"""Compile the CUDA kernels for the CPU and run cases through them.

tests/simt takes the place of CUDA. The kernels run in a separate program (tests/simt/driver.cpp), so that
AddressSanitizer and UndefinedBehaviorSanitizer can check them. Objects are kept in build/simt and compiled again only
if they are out of date.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
FLAGS = "-std=c++17 -O1 -g1 -fno-strict-aliasing -ffp-contract=off -Wall -Wextra -Wno-unknown-pragmas".split()
# The checks for mistakes that a kernel can make. All of "undefined" would double the build time.
CHECKS = "-fsanitize=address,alignment,shift,signed-integer-overflow,integer-divide-by-zero -fno-sanitize-recover=all"
ENVIRONMENT = {"ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


@cache
def build() -> Path:
    """Compile the driver program, if it is not current, and return its path."""
    if not sys.platform.startswith("linux") or not (ROOT / "csrc").is_dir():
        pytest.skip("needs the source tree, on Linux")
    spec = importlib.util.spec_from_file_location("gnna_setup_for_simt", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    cxx, _ = setup.find_cxx()
    folder = ROOT / "build" / "simt"
    folder.mkdir(parents=True, exist_ok=True)
    # Not every compiler has the sanitizers' libraries. -fno-extern-tls-init says that no extern thread_local variable
    # needs dynamic initialisation. Without it, GCC 12 under AddressSanitizer calls an initialiser that does not exist.
    checks = [flag for group in (CHECKS, "-fno-extern-tls-init") if _links(setup, cxx, group) for flag in group.split()]
    command = [*cxx, *FLAGS, *checks, "-I", str(ROOT / "tests" / "simt"), "-I", str(ROOT / "csrc" / "include")]
    sources = [*ROOT.glob("csrc/cuda/*.cu"), *ROOT.glob("csrc/decide/*.cpp"), *ROOT.glob("tests/simt/*.cpp")]
    sources.sort(key=lambda path: -len(path.name))  # slow ones first, such as spmm_float_max.cu

    def compile_one(source: Path) -> str:
        result = folder / f"{source.name}.o"
        depends = result.with_suffix(".d")
        fast = ["-O2"] if source.parent.name == "simt" else []  # the scheduler takes most of the run time
        words = [*command, *fast, "-x", "c++", "-c", str(source), "-o", str(result), "-MMD", "-MF", str(depends)]
        if not setup.is_current(result, depends, words):
            result.with_suffix(".cmd").unlink(missing_ok=True)
            subprocess.run(words, check=True)
            result.with_suffix(".cmd").write_text(shlex.join(words))
        return str(result)

    with open(folder / "lock", "w") as lock, ThreadPoolExecutor(min(setup.jobs(), 2)) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        objects = list(pool.map(compile_one, sources))
        subprocess.run([*cxx, *checks, *objects, "-pthread", "-o", str(folder / "driver")], check=True)
    return folder / "driver"


def _links(setup, cxx, flags: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("int main() { return 0; }\n")
        return setup.execute([*cxx, *flags.split(), str(source), "-o", f"{folder}/probe"])[0] == 0


class Case:
    """One operation for the driver, with its arguments.

    Args:
        operation: its name in tests/simt/driver.cpp.
        numbers: integers by name.
        arrays: arrays by name, each alone or as (array, bytes by which to shift its start). None is left out.
        schedules: how many schedules to run it under.
        seed: of the random schedules.
    """

    def __init__(self, operation: str, numbers: dict, arrays: dict, schedules: int = 4, seed: int = 0):
        self.operation = operation
        self.numbers = {"schedules": schedules, "seed": seed, **{k: int(v) for k, v in numbers.items()}}
        self.arrays = {k: v if isinstance(v, tuple) else (v, 0) for k, v in arrays.items() if v is not None}

    def write(self, file) -> None:
        file.write(f"case {self.operation} {len(self.numbers)} {len(self.arrays)}\n".encode())
        file.writelines(f"{name} {value}\n".encode() for name, value in self.numbers.items())
        for name, (array, shift) in self.arrays.items():
            file.write(f"{name} {array.nbytes} {shift}\n".encode() + np.ascontiguousarray(array).tobytes())


def start(cases: list[Case], folder: Path) -> tuple[subprocess.CompletedProcess, Path]:
    """Run the driver on the cases and return its process and its results' path."""
    requests, results = folder / "cases", folder / "results"
    with open(requests, "wb") as file:
        for case in cases:
            case.write(file)
    command = [str(build()), str(requests), str(results)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env={**os.environ, **ENVIRONMENT})
    return done, results


def run(cases: list[Case], folder: Path) -> list[dict[str, bytes]]:
    """Run the cases and return the results of each, as bytes by name.

    If the driver ends with an error, the test fails with the driver's message and the case that it was running.
    """
    done, results = start(cases, folder)
    found = list(_read(results))
    if done.returncode != 0 or len(found) != len(cases):
        numbers = cases[len(found)].numbers if len(found) < len(cases) else None
        pytest.fail(f"case {len(found)}: {numbers}\n{done.stderr[:6000]}", pytrace=False)
    return found


def _read(path: Path):
    with open(path, "rb") as file:
        while header := file.readline():
            result = {}
            for _ in range(int(header.split()[1])):
                name, size = file.readline().split()
                result[name.decode()] = file.read(int(size))
                file.read(1)
            yield result
