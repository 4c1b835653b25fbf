"""The operators as bars: the share of what a copy moves that each of them moves, its baselines as ticks.

A kernel that reads and writes logits is bound by bytes, so this is how near it comes to what the machine can do.
Operators bound by matrix products, or with next to no bytes, are not drawn.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from math import nan
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ..results import Line, is_baseline, is_own
from .machines import groups_of, machine_name
from .tables import bytes_per_second, copy_rate, measured
from .text import time_text

_COLOURS = {"bfloat16": "#9ec5e8", "float32": "#5b8fc9"}
_TICKS = {"PyTorch": "#111827", "torch.compile": "#c2410c", "other kernels": "#15803d"}
_ROW_INCHES, _PAD_INCHES = 0.27, 0.12  # fonts differ in width from one viewer to another
_FEWEST_BYTES = 2**20
_NOT_IN_A_LABEL = re.compile(
    r"(?<=rows) of \d[\d,]*\d|, forward \+ backward|, near:distant \d:\d|^masked |, statistics, policy and reveal"
    r"|, \d+ positions in blocks of \d+"
)

Row = tuple[str, Line, list[Line], float]  # its label, tad_ext's line, its baselines, the copy's bytes per second


def draw_bars(documents: Mapping[str, dict[str, Any]], path: Path) -> None:
    """One panel per machine, in order; the file's suffix decides the format. ValueError if there is nothing to draw."""
    panels = [(document, rows) for document in documents.values() if (rows := list(_rows(document)))]
    if not panels:
        raise ValueError("no line with a copy beside it in the results, expected at least one to draw")
    heights = [len(rows) + 2.5 for _, rows in panels]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tad_ext", "font.size": 10, "font.family": "sans-serif"}):
        figure = Figure(figsize=(9.4, _ROW_INCHES * sum(heights)), layout=ConstrainedLayoutEngine(w_pad=_PAD_INCHES))
        every_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (document, rows) in zip(every_axes, panels, strict=True):
            _draw(axes, document, rows)
        figure.savefig(path, dpi=100, metadata={"Date": None} if path.suffix == ".svg" else None)


def _draw(axes: Axes, document: dict[str, Any], rows: list[Row]) -> None:
    for dtype, colour in _COLOURS.items():  # one broken line each: a tenth of the bytes that rectangles take in an SVG
        bars = [
            ((0.0, bytes_per_second(own) / copy, nan), (place,) * 3)
            for place, (label, own, _, copy) in enumerate(rows)
            if f", {dtype}" in label
        ]
        if bars:
            shares, places = (list(chain.from_iterable(values)) for values in zip(*bars, strict=True))
            axes.plot(shares, places, color=colour, linewidth=14, solid_capstyle="butt", label=f"tad_ext, {dtype}")
    for kind, colour in _TICKS.items():
        ticks = [
            (bytes_per_second(line) / copy, place)
            for place, (_, _, baselines, copy) in enumerate(rows)
            for line in baselines
            if _kind(line) == kind
        ]
        if ticks:
            axes.plot(*zip(*ticks, strict=True), "|", color=colour, markersize=14, markeredgewidth=1.6, label=kind)
    right = max(1.2, max(bytes_per_second(own) / copy for _, own, _, copy in rows) + 0.16)
    for place, (_, own, _, _) in enumerate(rows):
        axes.text(right, place, time_text(own["median_ms"]), ha="right", va="center")
    axes.axvline(1, color="#6b7280", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "a copy"])
    axes.set_xlim(0, right)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{machine_name(document)}: bytes per second, as a share of what a copy moves", loc="right")
    axes.legend(frameon=False, ncols=5, loc="upper right", bbox_to_anchor=(1, -0.06), columnspacing=1.4)


def _rows(document: dict[str, Any]) -> Iterator[Row]:
    """Every main line of tad_ext that is bound by bytes."""
    groups = groups_of(document)
    copy = copy_rate(groups)
    for title, lines in groups.items() if copy else ():
        for own in filter(is_own, measured(lines)):
            if own["main"] and "flops" not in own and own["bytes"] >= _FEWEST_BYTES:
                label = _NOT_IN_A_LABEL.sub("", title) + own["path"].removeprefix("tad_ext")
                yield label, own, list(filter(is_baseline, measured(lines))), copy


def _kind(line: Line) -> str:
    if "compile" in line["path"]:
        return "torch.compile"
    return "other kernels" if line["path"].startswith(("Liger", "QuACK")) else "PyTorch"
