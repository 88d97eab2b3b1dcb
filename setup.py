"""Builds gnna_plugin's shared library: which compilers are there, what they may build, and how.

The metadata is in pyproject.toml; this file owns the compile step. One library, gnna_plugin/libgnna_plugin.so, holds
the C++ part (always) and the CUDA part (when nvcc fits this torch). Every source becomes an object on its own, in
parallel, and is compiled again only when it, a header of ours or its command changed. Only g++ sees torch's headers,
and only for csrc/torch: they would cost nvcc a minute per file. The choice is printed and recorded in _build_info.py.

Environment: CXX, CXXFLAGS, CUDACXX, CUDA_HOME, MAX_JOBS; GNNA_CUDA=0 forbids the CUDA part and 1 demands it;
GNNA_CUDA_ARCHS="80,90" replaces the list of architectures.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import setuptools
from setuptools import Extension, find_packages, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

# The decisions (decide_*, choose_*) are pure functions, so that tests can walk through their tables.
ROOT = Path(__file__).resolve().parent
LIBRARY = "libgnna_plugin"  # not a Python module, so it carries no ABI suffix and none of Python's import names
WANTED_ARCHS = (75, 80, 86, 89, 90, 100, 120)


def decide_cuda(nvcc, torch_cuda, wish, torch_version=""):
    """(build the CUDA part?, why) from nvcc's version, torch.version.cuda and GNNA_CUDA.

    Whether a GPU is present is not asked: build machines often have none. SystemExit where GNNA_CUDA=1 can't be met.
    """
    if wish not in (None, "", "0", "1"):
        raise SystemExit(f"GNNA_CUDA is 0 (never), 1 (must) or unset (when possible), not {wish!r}.")
    if wish == "0":
        return False, "GNNA_CUDA=0"
    if torch_cuda is None:
        reason = f"torch {torch_version} has no CUDA".replace("  ", " ")
    elif nvcc is None:
        reason = f"no nvcc in CUDACXX, CUDA_HOME, PATH or /usr/local/cuda (torch was built for CUDA {torch_cuda})"
    elif nvcc.split(".")[0] != torch_cuda.split(".")[0]:
        reason = f"nvcc is {nvcc}, but torch was built for CUDA {torch_cuda}"
    else:
        return True, f"nvcc {nvcc} fits torch's CUDA {torch_cuda}"
    if wish == "1":
        raise SystemExit(f"GNNA_CUDA=1 asks for the CUDA part, but {reason}.")
    return False, reason


def choose_archs(known, wish=None):
    """Architectures, ascending: the wanted ones this nvcc knows, or those of GNNA_CUDA_ARCHS ("90", "8.0;9.0")."""
    if not wish:
        return tuple(a for a in WANTED_ARCHS if a in known)
    named = [part.replace(".", "") for part in re.split(r"[,;\s]+", wish.strip())]
    bad = [part for part in named if not part.isdigit() or int(part) not in known]
    if bad:
        raise SystemExit(f"GNNA_CUDA_ARCHS names {', '.join(bad)}; this nvcc knows {sorted(known)}.")
    return tuple(sorted({int(part) for part in named}))


def execute(command):
    """(exit status, both output streams as text); (None, "") for a command that is not there."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError:
        return None, ""
    return done.returncode, done.stdout.decode(errors="replace")


def find_cxx():
    """The C++ compiler as a command and as a name with its version."""
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["g++", "c++", "clang++"]:
        command = shlex.split(candidate)
        status, version = execute([*command, "-dumpfullversion", "-dumpversion"])
        if status == 0:
            return command, f"{Path(command[0]).name} {version.split()[-1]}"
    missing = f"the compiler that CXX names ({named}) does not run" if named else "no C++ compiler was found"
    raise SystemExit(f"gnna_plugin: {missing}: apt install g++ (or dnf install gcc-c++, xcode-select --install).")


def find_nvcc():
    """nvcc's path or None: CUDACXX, CUDA_HOME/bin, PATH, then the place NVIDIA's own installers use."""
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    named = [os.environ.get("CUDACXX"), *(home and f"{home}/bin/nvcc" for home in homes)]
    named += ["nvcc", "/usr/local/cuda/bin/nvcc"]
    return next((found for found in map(shutil.which, filter(None, named)) if found), None)


def nvcc_version(nvcc):
    found = re.search(r"release (\d+\.\d+)", execute([nvcc, "--version"])[1])
    return found and found[1]


def cuda_paths(nvcc):
    """(include folders, how to link the runtime). nvcc is asked for its root: the one on PATH may be a wrapper."""
    top = re.search(r"^#\$ TOP=(.*)$", execute([nvcc, "--dryrun", "-x", "cu", os.devnull])[1], re.M)
    root = Path(top[1].strip() if top else Path(nvcc).resolve().parent.parent).resolve()
    folders = [root / "include", *sorted(root.glob("targets/*/include"))]
    libraries = [file for place in ("lib64", "targets/*/lib", "lib") for file in root.glob(f"{place}/libcudart.so")]
    spec = find_spec("nvidia")  # torch's own CUDA wheels, for a toolkit without the headers of cuBLAS and cuSPARSE
    for wheels in spec.submodule_search_locations if spec else []:
        folders += sorted(Path(wheels).glob("*/include"))
        libraries += sorted(Path(wheels).glob("*/lib/libcudart.so*"))
    return [str(f) for f in folders if f.is_dir()], [str(file) for file in libraries[:1]] or ["-lcudart"]


class Plan:
    """Everything a build needs to know, gathered before the first file is compiled."""

    def __init__(self):
        import torch  # here, so that the decisions above can be imported without it

        self.version = runpy.run_path(str(ROOT / "gnna_plugin" / "_version.py"))["__version__"]
        self.torch, self.torch_cuda = torch.__version__, torch.version.cuda
        self.torch_root = Path(torch.__file__).parent
        self.abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
        self.cxx, self.compiler = find_cxx()
        nvcc, wish = find_nvcc(), os.environ.get("GNNA_CUDA")
        self.nvcc, self.nvcc_version = nvcc, nvcc and nvcc_version(nvcc)
        self.cuda, self.reason = decide_cuda(self.nvcc_version, self.torch_cuda, wish, self.torch)
        self.archs, self.cuda_includes, self.cudart = (), [], []
        if self.cuda:
            known = {int(arch) for arch in re.findall(r"compute_(\d+)\b", execute([nvcc, "--list-gpu-arch"])[1])}
            self.archs = choose_archs(known, os.environ.get("GNNA_CUDA_ARCHS"))
            self.cuda_includes, self.cudart = cuda_paths(nvcc)
        # The language standard that torch's own extension builder names: C++17 in older releases, C++20 now.
        builder = (self.torch_root / "utils" / "cpp_extension.py").read_text()
        self.torch_std = "-std=c++" + max(re.findall(r"-std=c\+\+(17|20|23)", builder), default="17")
        if not self.accepts(self.torch_std):
            need = f"{self.torch_std[5:]}, which torch {self.torch} needs"
            raise SystemExit(f"gnna_plugin: {self.compiler} does not compile {need}: name a newer one in CXX (g++ 11).")
        self.openmp = ["-fopenmp"] if self.accepts("-fopenmp") else []

    def accepts(self, flag):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text("int main() { return 0; }\n")
            return execute([*self.cxx, flag, str(source), "-o", f"{folder}/probe"])[0] == 0

    def lines(self):
        """What was chosen and why, for the log."""
        archs = f" (sm {', '.join(map(str, self.archs))} and PTX of the last)" if self.cuda else ""
        yield f"gnna_plugin {self.version} build for torch {self.torch}"
        yield f"  C++: yes ({self.compiler}, {'OpenMP' if self.openmp else 'one thread: the compiler has no OpenMP'})"
        yield f"  CUDA: {'yes' if self.cuda else 'no'}: {self.reason}{archs}"

    def info(self):
        """The same for _build_info.py, where import and doctor read it."""
        return {
            "version": self.version,
            "torch": str(self.torch),  # a str subclass in torch
            "torch_cuda": self.torch_cuda,
            "cuda": self.nvcc_version if self.cuda else None,
            "archs": self.archs,
            "reason": self.reason,
            "compiler": self.compiler,
            "openmp": bool(self.openmp),
        }

    def sources(self):
        """nvcc's files first: they take longest, so nothing waits for them at the end."""
        cuda = sorted(ROOT.glob("csrc/cuda/*.cu")) if self.cuda else []
        binding = [f for f in sorted(ROOT.glob("csrc/torch/**/*.cpp")) if self.cuda or not f.name.startswith("cuda_")]
        return [*cuda, *binding, *sorted(ROOT.glob("csrc/cpu/*.cpp")), *sorted(ROOT.glob("csrc/decide/*.cpp"))]

    def command(self, source):
        """The compile command of one source, without its output and dependency files."""
        include = ["-I", str(ROOT / "csrc" / "include"), "-I", str(ROOT / "csrc")]
        if source.suffix == ".cu":
            codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in self.archs]
            codes.append(f"-gencode=arch=compute_{self.archs[-1]},code=compute_{self.archs[-1]}")
            host = ["-ccbin", self.cxx[-1]] if os.environ.get("CXX") else []
            flags = ["-O3", "-std=c++17", "-Xcompiler=-fPIC,-fvisibility=hidden", self.abi]
            return [self.nvcc, *flags, *codes, *host, *include]
        flags = ["-O3", "-fPIC", "-fvisibility=hidden", *(["-Wall", *self.openmp] if self.openmp else []), self.abi]
        flags += [*shlex.split(os.environ.get("CXXFLAGS", "")), *include]
        if ROOT / "csrc" / "torch" not in source.parents:
            return [*self.cxx, "-std=c++17", *flags]
        flags += ["-I", str(ROOT / "csrc" / "torch")]
        torch = [self.torch_root / "include", self.torch_root / "include" / "torch" / "csrc" / "api" / "include"]
        system = [word for folder in [*map(str, torch), *self.cuda_includes] for word in ("-isystem", folder)]
        return [*self.cxx, self.torch_std, *flags, *(["-DGNNA_WITH_CUDA"] if self.cuda else []), *system]

    def link(self, objects, library):
        """The link command. No run path is needed, since torch is always loaded first.

        Where torch ships its OpenMP runtime, that one is linked: torch.set_num_threads would not reach a second one.
        """
        lib = self.torch_root / "lib"
        names = ["c10", "torch_cpu", "torch", *(["c10_cuda", "torch_cuda"] if self.cuda else [])]
        bundled = [p for d in (lib, self.torch_root.parent / "torch.libs") for p in sorted(d.glob("libgomp*.so*"))]
        openmp = [str(bundled[0])] if bundled and self.openmp else self.openmp
        # A compiler may be set up to link its C++ runtime statically. Exported, half of those symbols would be replaced
        # by the process's own runtime, and the first formatted number would crash.
        elf = [] if sys.platform == "darwin" else ["-Wl,-z,defs", "-Wl,--exclude-libs,libstdc++.a"]
        shared = ["-shared", *elf, "-o", str(library)]
        return [*self.cxx, *shared, *map(str, objects), f"-L{lib}", *(f"-l{n}" for n in names), *self.cudart, *openmp]


def run(command, what):
    print(f"  {what}", flush=True)
    status, text = execute(command)
    if text.strip():
        print(text, flush=True)
    if status != 0:
        raise SystemExit(f"gnna_plugin: {what} failed, see above. The command was: {shlex.join(command)}")


def is_current(result, depends, command):
    """Whether an object is newer than all it was made from, by the same command."""
    record = result.with_suffix(".cmd")
    if not (result.exists() and depends.exists() and record.exists() and record.read_text() == shlex.join(command)):
        return False
    words = re.split(r"(?<!\\)\s+", depends.read_text().replace("\\\n", " ").split(":", 1)[1].strip())
    files = [Path(word.replace("\\ ", " ")) for word in words]
    return all(file.exists() and file.stat().st_mtime_ns < result.stat().st_mtime_ns for file in files)


def compile_one(plan, source, folder):
    """One source to one object, whose path is returned."""
    result = folder / source.parent.name / f"{source.name}.o"
    result.parent.mkdir(parents=True, exist_ok=True)
    depends = result.with_suffix(".d")
    command = [*plan.command(source), "-c", str(source), "-o", str(result), "-MMD", "-MF", str(depends)]
    if not is_current(result, depends, command):
        result.with_suffix(".cmd").unlink(missing_ok=True)
        run(command, f"compiling {source.relative_to(ROOT)}")
        result.with_suffix(".cmd").write_text(shlex.join(command))
    return result


def jobs():
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores, int(os.environ.get("MAX_JOBS") or cores)))


class BuildLibrary(build_ext):
    """Replaces the compile step of setuptools, which knows neither nvcc nor rebuilding only what changed."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext):
        plan = Plan()
        print(*plan.lines(), sep="\n", flush=True)
        # Under build/ of the checkout, not in pip's temporary folder, so that the next install finds its objects. One
        # folder per torch: its headers are system headers, whose changes dependency files do not see.
        folder = ROOT / "build" / f"objects-{plan.torch}{'-cuda' if plan.cuda else ''}"
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(jobs()) as pool:
            tasks = [pool.submit(compile_one, plan, source, folder) for source in plan.sources()]
            try:
                objects = [task.result() for task in tasks]
            finally:
                pool.shutdown(cancel_futures=True)
        run(plan.link(objects, library), "linking")
        text = '"""Written by setup.py: what this build was made for and with."""\n\n'
        library.with_name("_build_info.py").write_text(f"{text}INFO = {plan.info()!r}\n")

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        shutil.copyfile(Path(self.build_lib, "gnna_plugin", "_build_info.py"), ROOT / "gnna_plugin" / "_build_info.py")

    def get_outputs(self):
        return [file for path in super().get_outputs() for file in (path, str(Path(path).with_name("_build_info.py")))]


class FreshBuild(build):
    """Starts from an empty package folder: setuptools would pack modules that a former build left there."""

    def run(self):
        shutil.rmtree(Path(self.build_lib, "gnna_plugin"), ignore_errors=True)
        super().run()


def check_environment(arguments):
    """Ends with one sentence where a build cannot work. A source distribution needs none of this."""
    if not {"build", "build_ext", "bdist_wheel", "dist_info", "editable_wheel", "install"}.intersection(arguments):
        return
    wheel = find_spec("wheel") or find_spec("setuptools.command.bdist_wheel")
    if int(setuptools.__version__.split(".")[0]) < 68 or not wheel:
        raise SystemExit("gnna_plugin needs setuptools 68 or newer and wheel to build: pip install -U setuptools wheel")
    if find_spec("torch") is None:
        raise SystemExit("gnna_plugin builds for the torch you run: install torch first and use --no-build-isolation.")


if __name__ == "__main__":
    check_environment(sys.argv)
    rooms = {"gnna_plugin": "gnna_plugin", "gnna_plugin.adapters": "adapters"}
    setup(
        package_dir=rooms,
        packages=[p for room, path in rooms.items() for p in (room, *(f"{room}.{q}" for q in find_packages(path)))],
        ext_modules=[Extension(f"gnna_plugin.{LIBRARY}", sources=[])],
        cmdclass={"build": FreshBuild, "build_ext": BuildLibrary},
    )
