"""Writes the comparison of a script as one HTML file that needs nothing else: tables and plots."""

import html
import io

from gnna_plugin.notebook import table
from gnna_plugin.tools.compare.spec import UsageError
from gnna_plugin.tools.script.show import LABELS

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } caption { text-align: left; font-weight: 600; padding: .3em 0 }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; vertical-align: top }
svg { max-width: 100%; height: auto } pre { background: #f6f6f6; padding: .8em; overflow-x: auto }
.figures b { font-size: 1.6em } .figures span { display: inline-block; margin-right: 2.5em }
"""
_COLOURS = {"baseline": "#8a8f98", "allocator": "#c9a227", "accelerated": "#1b6ca8"}


def check():
    """Raise UsageError if the page cannot be drawn, before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(f"--html draws its plots with Matplotlib: pip install matplotlib ({error})") from None


def write(found, script, remarks, status_text, path):
    """Write the page.

    Args:
        found: the stored form of a comparison (see show.result).
        script: the script and its arguments, for the heading.
        remarks: sentences on losses, printed results and noise.
        status_text: status() of the accelerated run.
    """
    about, rows = found["about"], found["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    text = "\n".join([
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{html.escape(script)}: with and without gnna_plugin</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(script)}</h1>",
        "<p>The script ran unchanged, without and with gnna_plugin, each time in a process of its own.</p>",
        _figures(rows),
        _results(rows),
        *(f"<p>{html.escape(text)}</p>" for text in remarks),
        *(f"<figure>{svg}</figure>" for svg in _plots(found)),
        "<h2>What ran on the plug-in</h2>",
        f"<pre>{html.escape(status_text)}</pre>",
        "<h2>How it was measured</h2>",
        f"<pre>{html.escape(about['command'])}</pre>",
        f"<p>{html.escape(about['date'])}, {html.escape(about['device'])}, {about['threads']} CPU threads; "
        f"{html.escape(versions)}.</p>",
        "<p>The time of a step is the time from one optimizer step to the next. Medians and interquartile ranges leave "
        "out the first steps. Peak memory is that of torch's tensors on a GPU, else that of the process above its "
        "memory after the import of the framework.</p>",
        "</body></html>",
        "",
    ])  # fmt: skip
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _figures(rows):
    plain, ours = rows[0], rows[-1]
    parts = []
    if ours["speedup"] is not None:
        parts.append(f"<span><b>{ours['speedup']:.2f}x</b> faster per step</span>")
    if plain["peak_mib"]:
        parts.append(f"<span><b>{ours['peak_mib'] / plain['peak_mib']:.2f}</b> of the peak memory</span>")
    if plain["last_loss"] is not None and ours["last_loss"] is not None:
        parts.append(f"<span>last loss <b>{ours['last_loss']:.5g}</b> (plain: {plain['last_loss']:.5g})</span>")
    return f'<p class="figures">{"".join(parts)}</p>'


def _results(rows):
    cells = [
        (
            LABELS[row["arm"]],
            row["steps"],
            "" if row["step_ms"] is None else f"{row['step_ms']:,.2f} ± {row['spread_ms']:,.2f}",
            f"{row['peak_mib']:,.0f}",
            f"{row['seconds']:,.1f}",
            row["last_line"],
        )
        for row in rows
    ]
    return table("Results", ("", "steps", "ms per step", "peak MiB", "total s", "last printed line"), cells)


def _plots(found):
    """Return the plots as SVG texts: step times, losses and bars of time and memory."""
    from matplotlib.figure import Figure

    arms = [row["arm"] for row in found["rows"]]
    bars = Figure(figsize=(9, 2.2), layout="constrained")
    left, right = bars.subplots(1, 2)
    for axes, key, title in ((left, "step_ms", "median step, ms"), (right, "peak_mib", "peak memory, MiB")):
        values = [row[key] or 0.0 for row in found["rows"]]
        drawn = axes.barh([LABELS[arm] for arm in arms], values, color=[_COLOURS[arm] for arm in arms])
        axes.bar_label(drawn, [f"{value:,.1f}" for value in values], padding=3)
        axes.set_title(title, loc="left", fontsize=11)
        axes.margins(x=0.2)
        axes.invert_yaxis()
    curves = Figure(figsize=(9, 3), layout="constrained")
    left, right = curves.subplots(1, 2)
    for arm in arms:
        left.plot(found["step_ms"][arm][-1], color=_COLOURS[arm], label=LABELS[arm], linewidth=1)
        dashes = "--" if arm == "accelerated" else "-"
        losses = [float("nan") if loss is None else loss for loss in found["losses"][arm][-1]]
        right.plot(losses, dashes, color=_COLOURS[arm], label=LABELS[arm], linewidth=1.5)
    left.set_title("time of each step, ms", loc="left", fontsize=11)
    left.set_ylim(bottom=0)
    right.set_title("loss of each step", loc="left", fontsize=11)
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.legend(frameon=False)
    for figure in (bars, curves):
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
    return [_svg(bars)] + ([_svg(curves)] if any(found["losses"][arm][-1] for arm in arms) else [])


def _svg(figure):
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
