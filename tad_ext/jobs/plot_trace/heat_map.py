"""The picture of traces: which forward revealed which position."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tad_ext.decoding.traces import Trace
from tad_ext.files import atomic_path
from tad_ext.terminal import printable

_LABELLED_ROWS, _LABELLED_COLUMNS = 16, 32  # beyond these, texts in the cells would not be readable


def plot_traces(traces: Sequence[Trace], path: str | Path) -> None:
    """A row per trace, or for a single one a row per block, as a PNG at `path`.

    The traces are of one canvas size. Positions behind the end of a response, which were filled in and not decoded, are
    grey.
    """
    if not traces:
        raise ValueError("traces is empty; expected at least one")
    block, single = traces[0].block_length, len(traces) == 1
    width = block if single else len(traces[0].reveal_step)
    steps = np.array([trace.reveal_step for trace in traces])
    filled = np.arange(steps.shape[1]) >= np.array([[trace.response_length] for trace in traces])
    cells = np.ma.masked_array(steps, filled).reshape(-1, width)
    texts = np.array([trace.token_texts for trace in traces], dtype=object).reshape(-1, width)

    size = (np.clip(0.42 * width + 2, 6, 16), np.clip(0.3 * len(cells) + 1.5, 3.2, 12))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["viridis"].with_extremes(bad="#e5e7eb")
    image = axes.imshow(cells, aspect="auto", interpolation="nearest", cmap=colours, vmin=1, vmax=max(cells.max(), 2))
    figure.colorbar(image, label="forward that revealed the token")
    for boundary in range(block, width, block):
        axes.axvline(boundary - 0.5, color="white", linewidth=1)
    names = [str(row if single else traces[row].index) for row in range(len(cells))]
    some = slice(None, None, -(-len(cells) // 25))
    axes.set_yticks(range(len(cells))[some], names[some])
    if len(cells) <= _LABELLED_ROWS and width <= _LABELLED_COLUMNS:
        _write_texts(axes, cells, texts)
    axes.set_xlabel("position in the block" if single else "position")
    axes.set_ylabel("block" if single else "prompt")
    axes.set_title(_title(traces), fontsize=10)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks becomes empty boxes
        figure.savefig(temporary, format="png", dpi=150)


def _write_texts(axes: Axes, cells: np.ma.MaskedArray, texts: np.ndarray) -> None:
    """The tokens in their cells, white where the colour is dark."""
    for (row, column), step in np.ma.ndenumerate(cells):
        text = printable(texts[row, column]).strip()
        axes.text(
            column, row, text if len(text) <= 7 else text[:6] + "…", ha="center", va="center", fontsize=6,
            color="white" if step < cells.max() / 2 else "black", clip_on=True, parse_math=False,
        )  # fmt: skip


def _title(traces: Sequence[Trace]) -> str:
    tokens, forwards = sum(trace.response_length for trace in traces), sum(trace.forwards for trace in traces)
    which = f"prompt {traces[0].index}" if len(traces) == 1 else f"{len(traces)} prompts"
    return f"{which}: {tokens} tokens in {forwards} forwards, {tokens / forwards:.2f} per forward"
