"""The operators as bars: the share of what a copy moves that each of them moves, its baselines as ticks.

A kernel that reads and writes logits is bound by bytes, so this is how near it comes to what the machine can do.
Operators bound by matrix products, or with next to no bytes, are not drawn.
"""

import re
from collections.abc import Mapping
from math import nan
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..results import Line
from .machines import Document
from .tables import bytes_per_second, main_lines, measured, time_text

_COLOURS = {"bfloat16": "#9ec5e8", "float32": "#5b8fc9"}
_TICKS = {"PyTorch": "#111827", "torch.compile": "#c2410c", "other kernels": "#15803d"}
_ROW_INCHES, _PAD_INCHES = 0.27, 0.12  # fonts differ in width from one viewer to another
_FEWEST_BYTES = 2**20
_NOT_IN_A_LABEL = re.compile(
    r"(?<=rows) of \d[\d,]*\d|, forward \+ backward|, near:distant \d:\d|^masked |, statistics, policy and reveal"
    r"|, \d+ positions in blocks of \d+"
)


def draw_bars(contents: Mapping[str, dict[str, Any]], path: Path) -> None:
    """One panel per machine, in order; the file's suffix decides the format. ValueError if there is nothing to draw."""
    panels = [(one.name, lines) for one in map(Document, contents.values()) if (lines := _lines(one))]
    if not panels:
        raise ValueError("no line with a copy beside it in the results, expected at least one to draw")
    heights = [len(lines) + 2.5 for _, lines in panels]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tad_ext", "font.size": 10, "font.family": "sans-serif"}):
        figure = Figure(figsize=(9.4, _ROW_INCHES * sum(heights)), layout=ConstrainedLayoutEngine(w_pad=_PAD_INCHES))
        every_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (machine, lines) in zip(every_axes, panels, strict=True):
            _draw(axes, machine, lines)
        figure.savefig(path, dpi=100, metadata={"Date": None} if path.suffix == ".svg" else None)


def _lines(document: Document) -> list[Line]:
    """tad_ext's main lines that are bound by bytes, and their baselines, with their "share" of the copy."""

    def with_share(line: Line) -> Line:
        return line | {"share": bytes_per_second(line) / document.copy}

    return [
        with_share(own) | {"baselines": list(map(with_share, measured(own["baselines"])))}
        for own in measured(main_lines(document.groups) if document.copy else [])
        if "flops" not in own and own["bytes"] >= _FEWEST_BYTES
    ]


def _draw(axes: Axes, machine: str, lines: list[Line]) -> None:
    for dtype, colour in _COLOURS.items():  # one broken line each: a tenth of the bytes that rectangles take in an SVG
        bars = [(line["share"], place) for place, line in enumerate(lines) if f", {dtype}" in line["path"]]
        if bars:
            shares = [end for share, _ in bars for end in (0.0, share, nan)]
            places = [place for _, place in bars for _ in range(3)]
            axes.plot(shares, places, color=colour, linewidth=14, solid_capstyle="butt", label=f"tad_ext, {dtype}")
    for kind, colour in _TICKS.items():
        baselines = [(line, place) for place, own in enumerate(lines) for line in own["baselines"]]
        ticks = [(line["share"], place) for line, place in baselines if _kind(line["path"]) == kind]
        if ticks:
            axes.plot(*zip(*ticks), "|", color=colour, markersize=14, markeredgewidth=1.6, label=kind)
    right = max(1.2, max(line["share"] for line in lines) + 0.16)
    for place, line in enumerate(lines):
        axes.text(right, place, time_text(line["median_ms"]), ha="right", va="center")
    axes.axvline(1, color="#6b7280", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(lines)), [_NOT_IN_A_LABEL.sub("", line["path"]) for line in lines])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "a copy"])
    axes.set_xlim(0, right)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{machine}: bytes per second, as a share of what a copy moves", loc="right")
    axes.legend(frameon=False, ncols=5, loc="upper right", bbox_to_anchor=(1, -0.06), columnspacing=1.4)


def _kind(path: str) -> str:
    if "compile" in path:
        return "torch.compile"
    return "other kernels" if path.startswith(("Liger", "QuACK")) else "PyTorch"
