"""Tables for notebooks, as which status() and explain() show there."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table. Cells are text; a list becomes lines of one cell."""

    def cell(value: Any, tag: str = "td") -> str:
        lines = value if isinstance(value, list) else [value]
        return f'<{tag} style="text-align:left">{"<br>".join(html.escape(str(line)) for line in lines)}</{tag}>'

    head = "".join(cell(heading, "th") for heading in headings)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )
