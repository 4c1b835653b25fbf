"""The roofline of the operators: logits per second against logits per byte, under each machine's copy bandwidth.

A kernel that reads and writes logits is bound by bytes: with b bytes of least traffic per logit it can handle
bandwidth / b logits per second. Operators bound by matrix products are not drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from results import Line, copy_bytes_per_second, is_own, main_groups_of

_COLOURS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#6b7280")
_STYLES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"))  # of a machine: its markers and its roof
_INK = "#111827"

Point = tuple[str, Line, float, float]  # operator, line, logits per byte, logits per second


def plot_roofline(documents: Mapping[str, dict[str, Any]], path: Path) -> None:
    """Filled markers: tad_ext; hollow ones: its baselines. ValueError if the documents hold nothing to draw."""
    figure = Figure(figsize=(9.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    colours: dict[str, str] = {}
    drawn: list[Point] = []
    for document, (marker, dashes) in zip(documents.values(), cycle(_STYLES)):
        points = list(_points(document))
        if not points:
            continue
        drawn += points
        for operator, line, intensity, rate in points:
            colour = colours.setdefault(operator, _COLOURS[len(colours) % len(_COLOURS)])
            filled = is_own(line["path"])
            face, alpha = (colour, 1.0) if filled else ("none", 0.5)
            axes.plot(intensity, rate, marker, color=colour, markersize=6, markerfacecolor=face, alpha=alpha)
        axes.plot([], [], marker, color=_INK, label=_machine(document))
        rates = [rate for rate in map(copy_bytes_per_second, main_groups_of(document)) if rate]
        if rates:
            ends = [0.7 * min(point[2] for point in points), 1.4 * max(point[2] for point in points)]
            roof = [max(rates) * end for end in ends]
            axes.plot(ends, roof, dashes, color=_INK, linewidth=1.2, label=f"its copy: {max(rates) / 1e9:,.0f} GB/s")
    if not drawn:
        raise ValueError("no line with times, bytes and elements in the results, expected at least one to draw")
    for operator, colour in colours.items():
        axes.plot([], [], color=colour, linewidth=4, label=operator)
    axes.plot([], [], "o", color="#6b7280", markerfacecolor="none", label="baselines")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("logits per byte of least traffic")
    axes.set_ylabel("logits per second")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    reproducible = {"metadata": {"Date": None}} if path.suffix == ".svg" else {}
    with rc_context({"svg.hashsalt": "tad_ext"}):
        figure.savefig(path, dpi=150, **reproducible)


def _points(document: dict[str, Any]) -> Iterator[Point]:
    """Every line that was measured at the main size and is bound by bytes."""
    for groups in main_groups_of(document):
        for title, lines in groups.items():
            for line in lines:
                if line.get("elements") and line.get("bytes") and "error" not in line:
                    rate = line["elements"] / line["median_ms"] * 1e3
                    yield title.split(",")[0].split(" of ")[0], line, line["elements"] / line["bytes"], rate


def _machine(document: dict[str, Any]) -> str:
    if "run" in document:
        return f"{document['run'].get('processor')}, {document['run'].get('threads')} threads"
    return (document["machine"].get("gpu") or {}).get("name", "no GPU")
