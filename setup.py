"""Build the shared library gnna_plugin/libgnna_plugin.so.

The package metadata is in pyproject.toml. The library holds the C++ part (always) and the CUDA part (if nvcc fits the
installed torch). Sources are compiled in parallel. A source is compiled again only if it, a header of this project or
its compile command has changed. Only the host compiler reads torch's headers, and only for csrc/torch, because they
would cost nvcc a minute per file. What was chosen is printed and recorded in _build_info.py.

Environment variables:
    CXX, CXXFLAGS, CUDACXX, CUDA_HOME (or CUDA_PATH), MAX_JOBS: as usual.
    GNNA_CUDA: 0 leaves the CUDA part out, 1 requires it.
    GNNA_CUDA_ARCHS: the architectures to build for, such as "80,90".
    GNNA_LOCAL_VERSION: 1 adds the torch that the library fits to the version of a wheel, such as 0.1.0+torch2.13.
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

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools before 70.1
    from wheel.bdist_wheel import bdist_wheel

# Decisions (decide_*, choose_*) are pure functions, so that tests can call them without a compiler.
ROOT = Path(__file__).resolve().parent
LIBRARY = "libgnna_plugin"  # loaded by torch.ops, not imported: no ABI suffix
WANTED_ARCHS = (75, 80, 86, 89, 90, 100, 120)


def decide_cuda(nvcc, torch_cuda, wish, torch_version=""):
    """Decide whether to build the CUDA part.

    A GPU is not required, because build machines often have none.

    Args:
        nvcc: version of nvcc, such as "13.0"; None if there is none.
        torch_cuda: torch.version.cuda.
        wish: value of GNNA_CUDA; None if it is not set.
        torch_version: torch.__version__, for the reason only.

    Returns:
        (whether to build it, the reason).

    Raises:
        SystemExit: GNNA_CUDA has an unknown value, or is 1 and the CUDA part cannot be built.
    """
    if wish not in (None, "", "0", "1"):
        raise SystemExit(
            f"GNNA_CUDA is {wish!r}; accepted are 0 (no CUDA part), 1 (CUDA part required) and unset (if possible)."
        )
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
        raise SystemExit(f"GNNA_CUDA=1 asks for the CUDA part, but {reason}. Unset it to build the C++ part only.")
    return False, reason


def local_version(torch_version, cuda):
    """Return the local part of a wheel's version, such as "+torch2.13" or "+torch2.13.cu13".

    It names what gnna_plugin/_load.py compares: the minor release of torch, or the whole version of a pre-release, and
    the major version of torch's CUDA.
    """
    release = torch_version.partition("+")[0]
    if re.fullmatch(r"\d+\.\d+\.\d+", release):
        release = release.rpartition(".")[0]
    return f"+torch{release}" + (f".cu{cuda.partition('.')[0]}" if cuda else "")


def choose_archs(known, wish=None):
    """Return the architectures to build for, ascending.

    Args:
        known: the architectures that this nvcc knows, such as {80, 90}.
        wish: value of GNNA_CUDA_ARCHS, such as "90" or "8.0;9.0"; without one, all of WANTED_ARCHS that are known.

    Raises:
        SystemExit: GNNA_CUDA_ARCHS names an architecture that nvcc does not know.
    """
    if not wish:
        return tuple(a for a in WANTED_ARCHS if a in known)
    named = [part.replace(".", "") for part in re.split(r"[,;\s]+", wish.strip())]
    bad = [part for part in named if not part.isdigit() or int(part) not in known]
    if bad:
        raise SystemExit(f"GNNA_CUDA_ARCHS names {', '.join(bad)}; this nvcc knows {sorted(known)}.")
    return tuple(sorted({int(part) for part in named}))


def execute(command):
    """Run a command and return (exit status, stdout and stderr as one text).

    Returns (None, "") if the command cannot be started.
    """
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError:
        return None, ""
    return done.returncode, done.stdout.decode(errors="replace")


def find_cxx():
    """Return the C++ compiler's command, as a list, and its name with the version."""
    named = os.environ.get("CXX")
    for candidate in [named] if named else ["g++", "c++", "clang++"]:
        command = shlex.split(candidate)
        status, version = execute([*command, "-dumpfullversion", "-dumpversion"])
        if status == 0:
            return command, f"{Path(command[0]).name} {version.split()[-1]}"
    missing = f"the compiler that CXX names ({named}) does not run" if named else "no C++ compiler was found"
    raise SystemExit(f"gnna_plugin: {missing}: apt install g++ (or dnf install gcc-c++, xcode-select --install).")


def find_nvcc():
    """Return nvcc's path, or None if there is none.

    Tries CUDACXX, CUDA_HOME, CUDA_PATH, PATH, and last the folder that NVIDIA's installers use.
    """
    homes = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    named = [os.environ.get("CUDACXX"), *(home and f"{home}/bin/nvcc" for home in homes)]
    named += ["nvcc", "/usr/local/cuda/bin/nvcc"]
    return next((found for found in map(shutil.which, filter(None, named)) if found), None)


def nvcc_version(nvcc):
    found = re.search(r"release (\d+\.\d+)", execute([nvcc, "--version"])[1])
    return found and found[1]


def cuda_paths(nvcc):
    """Return (include folders, linker arguments for the CUDA runtime).

    The toolkit's root is taken from a dry run of nvcc, because the nvcc on PATH may be a wrapper.
    """
    top = re.search(r"^#\$ TOP=(.*)$", execute([nvcc, "--dryrun", "-x", "cu", os.devnull])[1], re.M)
    root = Path(top[1].strip() if top else Path(nvcc).resolve().parent.parent).resolve()
    folders = [root / "include", *sorted(root.glob("targets/*/include"))]
    libraries = [file for place in ("lib64", "targets/*/lib", "lib") for file in root.glob(f"{place}/libcudart.so")]
    spec = find_spec("nvidia")  # torch's CUDA wheels have the cuBLAS and cuSPARSE headers if the toolkit does not
    for wheels in spec.submodule_search_locations if spec else []:
        folders += sorted(Path(wheels).glob("*/include"))
        libraries += sorted(Path(wheels).glob("*/lib/libcudart.so*"))
    return [str(f) for f in folders if f.is_dir()], [str(file) for file in libraries[:1]] or ["-lcudart"]


class Plan:
    """The settings of one build, complete before the first file is compiled."""

    def __init__(self):
        import torch  # not at the top, so that the functions above need no torch

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
        # The language standard that torch's extension builder uses: C++17 in older releases, C++20 in recent ones.
        builder = (self.torch_root / "utils" / "cpp_extension.py").read_text()
        self.torch_std = "-std=c++" + max(re.findall(r"-std=c\+\+(17|20|23)", builder), default="17")
        if not self.accepts(self.torch_std):
            need = f"{self.torch_std[5:]}, which torch {self.torch} needs"
            raise SystemExit(f"gnna_plugin: {self.compiler} does not compile {need}; set CXX to a newer one (g++ 11).")
        self.openmp = ["-fopenmp"] if self.accepts("-fopenmp") else []

    def accepts(self, flag):
        """Return whether the C++ compiler compiles and links a program with this flag."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.cpp")
            source.write_text("int main() { return 0; }\n")
            return execute([*self.cxx, flag, str(source), "-o", f"{folder}/probe"])[0] == 0

    def lines(self):
        """Yield the log lines that say what is built and why."""
        archs = f" (sm {', '.join(map(str, self.archs))} and PTX of the last)" if self.cuda else ""
        yield f"gnna_plugin {self.version} build for torch {self.torch}"
        yield f"  C++: yes ({self.compiler}, {'OpenMP' if self.openmp else 'one thread: the compiler has no OpenMP'})"
        yield f"  CUDA: {'yes' if self.cuda else 'no'}: {self.reason}{archs}"

    def info(self):
        """Return the INFO of _build_info.py, which gnna_plugin/_load.py reads."""
        return {
            "version": self.version,
            "torch": str(self.torch),  # torch's is a subclass of str
            "torch_cuda": self.torch_cuda,
            "cuda": self.nvcc_version if self.cuda else None,
            "archs": self.archs,
            "reason": self.reason,
            "compiler": self.compiler,
            "openmp": bool(self.openmp),
        }

    def sources(self):
        """Return all source files, nvcc's first because they take longest."""
        cuda = sorted(ROOT.glob("csrc/cuda/*.cu")) if self.cuda else []
        binding = [f for f in sorted(ROOT.glob("csrc/torch/**/*.cpp")) if self.cuda or not f.name.startswith("cuda_")]
        return [*cuda, *binding, *sorted(ROOT.glob("csrc/cpu/*.cpp")), *sorted(ROOT.glob("csrc/decide/*.cpp"))]

    def command(self, source):
        """Return the compile command of one source, without its output files."""
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
        """Return the link command.

        It sets no run path, because torch is always loaded first. If torch ships its own OpenMP runtime, the library is
        linked to that one, because torch.set_num_threads would have no effect on a second runtime.
        """
        lib = self.torch_root / "lib"
        names = ["c10", "torch_cpu", "torch", *(["c10_cuda", "torch_cuda"] if self.cuda else [])]
        bundled = [p for d in (lib, self.torch_root.parent / "torch.libs") for p in sorted(d.glob("libgomp*.so*"))]
        openmp = [str(bundled[0])] if bundled and self.openmp else self.openmp
        # Some compilers link their C++ runtime statically. If its symbols were exported, the loader would replace some
        # of them by those of the process's own runtime, and the mixture would crash when it formats a number.
        elf = [] if sys.platform == "darwin" else ["-Wl,-z,defs", "-Wl,--exclude-libs,libstdc++.a"]
        shared = ["-shared", *elf, "-o", str(library)]
        return [*self.cxx, *shared, *map(str, objects), f"-L{lib}", *(f"-l{n}" for n in names), *self.cudart, *openmp]


def run(command, what):
    """Run a command of the build, and print what it does and its output.

    Raises:
        SystemExit: the command failed.
    """
    print(f"  {what}", flush=True)
    status, text = execute(command)
    if text.strip():
        print(text, flush=True)
    if status != 0:
        raise SystemExit(f"gnna_plugin: {what} failed; the errors are above. The command was: {shlex.join(command)}")


def is_current(result, depends, command):
    """Return whether an object file need not be compiled again.

    It must have been made by this command and be newer than every file that it was made from.
    """
    record = result.with_suffix(".cmd")
    if not (result.exists() and depends.exists() and record.exists() and record.read_text() == shlex.join(command)):
        return False
    words = re.split(r"(?<!\\)\s+", depends.read_text().replace("\\\n", " ").split(":", 1)[1].strip())
    files = [Path(word.replace("\\ ", " ")) for word in words]
    return all(file.exists() and file.stat().st_mtime_ns < result.stat().st_mtime_ns for file in files)


def compile_one(plan, source, folder):
    """Compile one source, if its object is out of date, and return the object."""
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
    """Return how many compilers may run at once: one per core, at most MAX_JOBS."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(cores, int(os.environ.get("MAX_JOBS") or cores)))


class BuildLibrary(build_ext):
    """Replace setuptools' compile step, which has no nvcc and no incremental builds."""

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext):
        plan = Plan()
        print(*plan.lines(), sep="\n", flush=True)
        # In the checkout's build/, not in pip's temporary folder, so that the next installation can reuse the objects.
        # Each version of torch has its own folder, because dependency files do not list system headers such as torch's.
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
        text = '"""Written by setup.py: the torch, compilers and options of this build."""\n\n'
        library.with_name("_build_info.py").write_text(f"{text}INFO = {plan.info()!r}\n")

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        shutil.copyfile(Path(self.build_lib, "gnna_plugin", "_build_info.py"), ROOT / "gnna_plugin" / "_build_info.py")

    def get_outputs(self):
        return [file for path in super().get_outputs() for file in (path, str(Path(path).with_name("_build_info.py")))]


class Wheel(bdist_wheel):
    """Tag the wheel for any Python 3, because the library is linked to torch only, not to Python."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class FreshBuild(build):
    """Empty the package folder before a build.

    setuptools would otherwise package modules that an earlier build left there.
    """

    def run(self):
        shutil.rmtree(Path(self.build_lib, "gnna_plugin"), ignore_errors=True)
        super().run()


def version():
    """Return the version of the package, with its local part if GNNA_LOCAL_VERSION is 1."""
    number = runpy.run_path(str(ROOT / "gnna_plugin" / "_version.py"))["__version__"]
    if os.environ.get("GNNA_LOCAL_VERSION") != "1":
        return number
    import torch

    return number + local_version(torch.__version__, torch.version.cuda)


def check_environment(arguments):
    """Raise SystemExit with the remedy if a build cannot work.

    Commands that compile nothing, such as sdist, are not checked.
    """
    if not {"build", "build_ext", "bdist_wheel", "dist_info", "editable_wheel", "install"}.intersection(arguments):
        return
    wheel = find_spec("wheel") or find_spec("setuptools.command.bdist_wheel")
    if int(setuptools.__version__.split(".")[0]) < 68 or not wheel:
        raise SystemExit("gnna_plugin needs setuptools 68 or newer and wheel to build: pip install -U setuptools wheel")
    if find_spec("torch") is None:
        raise SystemExit("gnna_plugin is built for your torch: install torch first and use --no-build-isolation.")


if __name__ == "__main__":
    check_environment(sys.argv)
    rooms = {"gnna_plugin": "gnna_plugin", "gnna_plugin.adapters": "adapters", "gnna_plugin.examples": "examples"}
    setup(
        version=version(),
        package_dir=rooms,
        packages=[p for room, path in rooms.items() for p in (room, *(f"{room}.{q}" for q in find_packages(path)))],
        ext_modules=[Extension(f"gnna_plugin.{LIBRARY}", sources=[])],
        cmdclass={"build": FreshBuild, "build_ext": BuildLibrary, "bdist_wheel": Wheel},
    )
