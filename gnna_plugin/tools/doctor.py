"""The subcommand `doctor`: what is installed and built here, whether it works, and what to do next."""

import argparse
import json
import platform
import subprocess
import sys

from gnna_plugin.tools.arguments import output_file

HELP = "check the installation: what is built, what is active, and what to do next"

_EPILOG = """examples:
  gnna doctor                  a table of checks and a verdict
  gnna doctor --json -         the same as JSON, for a bug report

The exit status is 0 if the plug-in works here, and 1 if a check failed."""

# States of a check, with their marks in the table.
OK, NOTE, FAILED = "ok", "note", "failed"
# Relative error of float32 sums of a few dozen values, against float64.
_TOLERANCE = 1e-5
# Runs in a process of its own, because a framework that is built for another torch may end the process.
_TRY_FRAMEWORK = """
import importlib, sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    version = importlib.import_module(sys.argv[2]).__version__
import gnna_plugin
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    gnna_plugin.enable(sys.argv[1])
said = [str(w.message) for w in caught if "gnna_plugin" in str(w.message)]
print("\\n" + repr((version, sys.argv[1] in gnna_plugin.status().frameworks, "; ".join(said))))
"""


def add_arguments(parser):
    """Add the arguments to an argparse parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "--json", type=_file_or_stdout, metavar="FILE", help="write the checks to FILE as JSON; - for standard output"
    )


def _file_or_stdout(text):
    return text if text == "-" else output_file(text)


def run(args):
    """Print the checks and the verdict, and return the exit status."""
    checks = [_safely(name, check) for name, check in _checks()]
    failed = [c for c in checks if c["state"] == FAILED]
    verdict = _verdict(checks, failed)
    if args.json:
        text = json.dumps({"works": not failed, "verdict": verdict, "checks": checks}, indent=2)
        if args.json == "-":
            print(text)
            return int(bool(failed))
        with open(args.json, "w", encoding="utf-8") as file:
            file.write(text + "\n")
    for c in checks:
        print(f"{c['state']:6}  {c['name']:15}  {c['found']}")
        if c["next"]:
            print(f"{'':25}next: {c['next']}")
    print(f"\n{verdict}")
    return int(bool(failed))


def _verdict(checks, failed):
    if failed:
        return f"Something is wrong: {', '.join(c['name'] for c in failed)}."
    by_name = {c["name"]: c for c in checks}
    frameworks = [label for label in ("PyG", "DGL") if by_name[label]["state"] == OK]
    if not frameworks:
        return "The kernels work, but neither PyG nor DGL is installed in working order."
    devices = "CPU and GPU" if by_name["GPU kernels"]["state"] == OK else "CPU"
    return f"Works for {' and '.join(frameworks)} on the {devices}. Try it: gnna run --report your_script.py"


def _checks():
    """Return (name, function) of every check. A function returns (state, what was found, the next step or "")."""
    from gnna_plugin import _load
    from gnna_plugin.frameworks import FRAMEWORKS

    if _load.failure is not None:  # nothing else can be tried
        return [("gnna_plugin", _not_loaded), ("Python, torch", _torch)]
    return [
        ("gnna_plugin", _library),
        ("Python, torch", _torch),
        ("CPU kernels", lambda: _self_check("cpu")),
        ("GPU kernels", _gpu),
        *((framework.label, lambda n=name, f=framework: _framework(n, f)) for name, framework in FRAMEWORKS.items()),
    ]


def _safely(name, check):
    try:
        state, found, following = check()
    except Exception as error:  # a diagnosis must not fail
        state, found, following = FAILED, f"{type(error).__name__}: {error}", ""
    return {"name": name, "state": state, "found": found, "next": following}


def _not_loaded():
    from gnna_plugin import _load

    found, _, following = _load.failure_message().rpartition(": ")
    return FAILED, f"{found} (in {_load.HERE})", following


def _library():
    import gnna_plugin
    from gnna_plugin import _load

    info = _load.build_info()
    cuda = f"CUDA {info['cuda']} for sm_{', sm_'.join(map(str, info['archs']))}" if info["cuda"] else "no CUDA"
    openmp = "OpenMP" if info["openmp"] else "no OpenMP"
    return OK, f"{gnna_plugin.__version__} in {_load.HERE}, built by {info['compiler']}: {openmp}, {cuda}", ""


def _torch():
    try:
        import torch
    except ImportError as error:
        return FAILED, f"Python {platform.python_version()}, torch cannot be imported: {error}", ""
    return OK, f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads", ""


def _gpu():
    import torch

    from gnna_plugin import _load

    info = _load.build_info()
    if not torch.cuda.is_available():
        nvidia = _nvidia_smi()
        if nvidia and torch.version.cuda is None:
            return NOTE, f"{nvidia} is there, but this torch has no CUDA: only the CPU part is active", (
                "install a torch built for CUDA, then install gnna_plugin again"
            )
        return NOTE, "torch sees no GPU: only the CPU part is active", ""
    device = torch.cuda.get_device_name()
    if info["cuda"] is None:
        return NOTE, f"{device} is there, but the library was built without CUDA ({info['reason']})", (
            f"install the CUDA toolkit {torch.version.cuda} with nvcc, then install gnna_plugin again"
        )
    major, minor = torch.cuda.get_device_capability()
    if all(arch > major * 10 + minor for arch in info["archs"]):
        return NOTE, f"the library was built for newer GPUs than {device} (sm_{major}{minor})", (
            f"GNNA_CUDA_ARCHS={major}{minor} pip install --no-build-isolation ."
        )
    state, found, following = _self_check("cuda")
    return state, f"{device}, sm_{major}{minor}: {found}", following


def _nvidia_smi():
    """Return the name of the first GPU that the driver knows, or None."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else None


def _self_check(device):
    """Compare sums, means and maxima and their gradients with float64 on a random graph."""
    import torch

    nodes, edges, width = 500, 6000, 48
    generator = torch.Generator().manual_seed(0)
    src, dst = torch.randint(0, nodes, (2, edges), generator=generator)
    x = torch.randn(nodes, width, generator=generator)
    worst = 0.0
    for reduce, name in (("sum", "sum"), ("mean", "mean"), ("max", "amax")):
        exact = x.double().requires_grad_()
        rows = dst.view(-1, 1).expand(edges, width)
        expected = exact.new_zeros(nodes, width).scatter_reduce(0, rows, exact[src], name, include_self=False)
        expected.square().sum().backward()
        given = x.clone().to(device).requires_grad_()
        out = torch.ops.gnna.spmm(given, None, src.to(device), dst.to(device), nodes, reduce)
        out.square().sum().backward()
        for found, wanted in ((out.detach(), expected.detach()), (given.grad, exact.grad)):
            worst = max(worst, float((found.cpu().double() - wanted).abs().max() / wanted.abs().max()))
    if worst > _TOLERANCE:
        return FAILED, f"results differ from float64 by {worst:.0e}", "please report this with `gnna doctor --json -`"
    return OK, f"sum, mean and max and their gradients agree with float64 to {worst:.0e}", ""


def _framework(name, framework):
    import ast

    if not framework.is_installed():
        return NOTE, "not installed", f"pip install {framework.distribution}, if you use it"
    command = [sys.executable, "-c", _TRY_FRAMEWORK, name, framework.package]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode or not last.startswith("("):
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return NOTE, f"installed, but cannot be imported: {reason}", f"install a {framework.label} that fits this torch"
    version, active, why = ast.literal_eval(last)
    if not active:
        return NOTE, f"{version}, stays off: {why}", ""
    return OK, f"{version}{f' ({why})' if why else ''}, active", ""
