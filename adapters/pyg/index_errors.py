"""Converts an op's error about an index to the exception type and the wording of PyG."""

from __future__ import annotations

from typing import Any


def as_index_error(text: str, value: Any) -> Exception:
    """Return the exception to raise for an op's error text about `value`.

    It also records in the layer's call which side was out of range. For a bad destination PyG's Aggregation turns the
    IndexError into a ValueError.
    """
    side, _, rest = text.partition("[")
    if side not in ("src", "dst"):
        return ValueError(text)
    found = int(rest.partition("= ")[2].split()[0])
    if value.call is not None:
        value.call.bad_side = side
    if found < 0:
        return IndexError(f"Found negative indices in 'edge_index' (got {found}). {text}")
    limit = value.x.size(0) - 1
    if side == "src":
        return IndexError(f"Found indices in 'edge_index' that are larger than {limit} (got {found}). {text}")
    return IndexError(f"Found a destination in 'edge_index' that is too large (got {found}). {text}")
