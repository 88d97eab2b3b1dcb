"""The file of what `gnna tune` measured on this machine.

The file is JSON: {device: {"min_work": ..., "launches": [{"facts", "config", ...}]}}, where a device is a GPU's name or
the CPU's with its threads. enable() reads it; an aggregation with exactly the facts of an entry is launched with
its configuration, unless the user sets one by hand. The environment variable GNNA_TUNED names another file, 0 none.
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
    """Return the file, or None if GNNA_TUNED is 0 or empty."""
    text = os.environ.get("GNNA_TUNED")
    if text is not None:
        return None if text in ("", "0") else Path(text)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "gnna_plugin" / "tuned.json"


def device_name(device_type: str) -> str:
    """Return the name under which entries of a device are kept."""
    if device_type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def read() -> dict:
    """Return the content of the file, or {} if there is none. A damaged file is logged and not changed."""
    file = path()
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file is not None else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s is not read: %s", file, error)
        return {}
    if not isinstance(found, dict):
        return {}
    return {device: entry for device, entry in found.items() if isinstance(entry, dict)}


def write(device: str, entry: dict) -> Path:
    """Store what was measured on ``device``. Launches replace those of the same facts, other keys replace their like.

    Raises:
        ValueError: GNNA_TUNED is 0.
        OSError: the file cannot be written.
    """
    file = path()
    if file is None:
        raise ValueError("GNNA_TUNED is 0, so measurements are not kept; unset it or name a file")
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
    """Apply the kept launches of this machine's GPU, and return the measured min_work by kind of device."""
    unload()
    whole = read()
    if not whole:
        return {}
    if torch.cuda.is_available():
        launches = whole.get(device_name("cuda"), {}).get("launches", [])
        for item in launches if isinstance(launches, list) else []:
            try:
                torch.ops.gnna.set_tuned(Facts(**item["facts"]).numbers(), overrides_of(item["config"]))
            except (TypeError, ValueError, KeyError, RuntimeError) as error:
                logger.warning("an entry of %s is not used: %s", path(), error)
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    found = {kind: whole.get(device_name(kind), {}).get("min_work") for kind in kinds}
    return {kind: least for kind, least in found.items() if type(least) is int and least >= 0}


def unload() -> None:
    """Forget the launches that load() put in force."""
    torch.ops.gnna.clear_tuned()
