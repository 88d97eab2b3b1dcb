"""Progress bars, which are shown on a terminal only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def bar_of(console, total: int) -> Iterator[Callable[[str, int], None]]:
    """Show a bar of ``total`` steps, and yield advance(text, steps).

    advance shows a text, unless it is empty, and adds steps that are done. Lines that are printed to the console
    meanwhile appear above the bar.
    """
    with _bar(console) as bar:
        task = bar.add_task("starting", total=total)

        def advance(text: str, steps: int) -> None:
            bar.update(task, advance=steps, **({"description": text} if text else {}))

        yield advance


@contextlib.contextmanager
def progress(console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar for tasks of different lengths, and yield on_progress(text, done, total).

    A ``total`` of 0 stands for an unknown number.
    """
    with _bar(console) as bar:
        task = bar.add_task("starting", total=None)

        def on_progress(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total or None)

        yield on_progress


def _bar(console):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
