"""A progress bar over steps of known number, which is shown on a terminal only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar_of(console, total: int) -> Iterator[Callable[[str, int], None]]:
    """Show a bar of ``total`` steps, and yield advance(text, steps).

    advance shows a text, unless it is empty, and adds steps that are done. Lines that are printed to the console
    meanwhile appear above the bar.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=total)

        def advance(text: str, steps: int) -> None:
            bar.update(task, advance=steps, **({"description": text} if text else {}))

        yield advance
