"""What `gnna tune` measured on this machine, and the file that keeps it from one run to the next.

The file is JSON: {device: {"min_work": ..., "launches": [{"facts", "config", ...}]}}, where a device is a GPU's name or
the CPU's with its threads. enable() reads it; an aggregation whose facts are exactly those of an entry is launched with
its configuration, unless the user fixed one. The environment variable GNNA_TUNED names another file, 0 none.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
from pathlib import Path

import torch

from gnna_plugin.decider import Facts, overrides_of

logger = logging.getLogger("gnna_plugin")

def path() -> Path | None:
    """The file; None where GNNA_TUNED is 0 or empty."""
    text = os.environ.get("GNNA_TUNED")
    if text is not None:
        return None if text in ("", "0") else Path(text)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "gnna_plugin" / "tuned.json"


def device_name(device_type: str) -> str:
    """What entries are kept under."""
    if device_type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def processor() -> str:
    """The name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read() -> dict:
    """All that the file holds; {} where there is none. A damaged file is told once in the log and left alone."""
    file = path()
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s is not read: %s", file, error)
        return {}
    return found if isinstance(found, dict) else {}


def write(device: str, entry: dict) -> Path:
    """Keeps what was measured on ``device``: launches replace those of the same facts, other keys their like.

    Raises ValueError where GNNA_TUNED forbids it, OSError where the file cannot be written.
    """
    file = path()
    if file is None:
        raise ValueError("GNNA_TUNED is 0: what was measured is not kept")
    whole = read()
    before = whole.setdefault(device, {})
    launches = {json.dumps(item["facts"]): item for item in before.get("launches", []) + entry.get("launches", [])}
    before.update(entry)
    if launches:
        before["launches"] = list(launches.values())
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as fresh:
        json.dump(whole, fresh, indent=1)
    os.replace(fresh.name, file)  # at once: another process may be reading
    return file


def load() -> dict[str, int]:
    """Puts the kept launches of this machine's GPU in force, and returns the measured min_work by kind of device."""
    unload()
    whole = read()
    if not whole:
        return {}
    if torch.cuda.is_available():
        for item in whole.get(device_name("cuda"), {}).get("launches", []):
            try:
                torch.ops.gnna.set_tuned(Facts(**item["facts"]).numbers(), overrides_of(item["config"]))
            except (TypeError, ValueError, KeyError) as error:
                logger.warning("an entry of %s is not used: %s", path(), error)
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    found = {kind: whole.get(device_name(kind), {}).get("min_work") for kind in kinds}
    return {kind: least for kind, least in found.items() if isinstance(least, int) and least >= 0}


def unload() -> None:
    """Forget the launches that load() put in force."""
    torch.ops.gnna.clear_tuned()
