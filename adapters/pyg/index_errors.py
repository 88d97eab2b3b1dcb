"""Gathers rows, and converts an op's error about an index to the exception type and the wording of PyG."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_index_error(text: str, call: Any, num_nodes: int) -> Exception:
    """Return the exception to raise for an op's error text about the gather of num_nodes rows in a layer's call.

    It also records in the call, if there is one, which side was out of range. For a bad destination PyG's Aggregation
    turns the IndexError into a ValueError.
    """
    side, _, rest = text.partition("[")
    if side not in ("src", "dst"):
        return ValueError(text)
    found = int(rest.partition("= ")[2].split()[0])
    if call is not None:
        call.bad_side = side
    if found < 0:
        return IndexError(f"Found negative indices in 'edge_index' (got {found}). {text}")
    limit = num_nodes - 1
    if side == "src":
        return IndexError(f"Found indices in 'edge_index' that are larger than {limit} (got {found}). {text}")
    return IndexError(f"Found a destination in 'edge_index' that is too large (got {found}). {text}")


def gather(conv: Any, x: Tensor, index: Any, rows: Tensor, call: Any) -> Tensor:
    """Return x[rows] [E, *S] for a gather of the layer. `index` are the rows as the layer passed them.

    Raises:
        IndexError: an index is out of range.
    """
    try:
        return torch.ops.gnna.gather_rows(x, rows)
    except ValueError as error:
        raise as_index_error(str(error), call, x.size(0)) from None
    except (IndexError, RuntimeError):
        conv._index_select_safe(x, index)  # raises PyG's own error
        raise
