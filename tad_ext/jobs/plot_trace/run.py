"""`tad plot trace`: the order in which tokens were revealed, as a heat map."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tad_ext.decoding.traces import Trace, read_traces
from tad_ext.files import atomic_path, tried_file
from tad_ext.jobs.plot_trace.config import PlotTraceConfig
from tad_ext.terminal import printable

_LABELLED_LINES, _LABELLED_COLUMNS = 16, 32  # beyond these, texts in the cells would not be readable


def plot_trace(config: PlotTraceConfig) -> None:
    """Draws the heat map. Errors as `read_traces`, and ValueError for a prompt that is not there."""
    tried_file(config.output)
    traces = read_traces(config.input)
    drawn = traces[: config.limit]
    if config.prompt is not None:
        drawn = [trace for trace in traces if trace.index == config.prompt]
    if not drawn:
        raise ValueError(f"prompt is {config.prompt}, expected one of the {len(traces)} that '{config.input}' holds")
    plot_traces(drawn, config.output)
    left_out = f", the first {len(drawn)} of {len(traces)} prompts" if len(drawn) == config.limit < len(traces) else ""
    print(f"written to {config.output}{left_out}")


def plot_traces(traces: Sequence[Trace], path: str | Path) -> None:
    """A line of cells per trace, or for a single one a line per block, as a PNG at `path`.

    The traces, at least one, are of one canvas size. Positions behind the end of a response, which were filled in and
    not decoded, are grey.
    """
    # 1. What every cell holds.
    block, single, positions = traces[0].block_length, len(traces) == 1, len(traces[0].reveal_step)
    width = block if single else positions
    before = traces[0].prompt_positions if single else 0  # cells of the first line that hold no response
    lines = -(-(before + positions) // width) if single else len(traces)
    cells = np.ma.masked_all((lines, width), dtype=int)
    texts = np.full((lines, width), "", dtype=object)
    for line, trace in enumerate(traces):
        start = before + line * width
        cells.flat[start : start + trace.response_length] = trace.reveal_step[: trace.response_length]
        texts.flat[start : start + positions] = trace.token_texts

    # 2. The cells, with lines between blocks.
    size = (np.clip(0.42 * width + 2, 6, 16), np.clip(0.3 * len(cells) + 1.5, 3.2, 12))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    colours = colormaps["viridis"].with_extremes(bad="#e5e7eb")
    image = axes.imshow(cells, aspect="auto", interpolation="nearest", cmap=colours, vmin=1, vmax=max(cells.max(), 2))
    figure.colorbar(image, label="step that revealed the token")
    for line, trace in enumerate(traces):
        for boundary in range(block - trace.prompt_positions, 0 if single else width, block):
            axes.plot([boundary - 0.5] * 2, [line - 0.5, line + 0.5], color="white", linewidth=1)

    # 3. What stands in and beside them.
    names = [str(line if single else traces[line].index) for line in range(len(cells))]
    some = slice(None, None, -(-len(cells) // 25))
    axes.set_yticks(range(len(cells))[some], names[some])
    if len(cells) <= _LABELLED_LINES and width <= _LABELLED_COLUMNS:
        _write_texts(axes, cells, texts)
    axes.set_xlabel("position in the block" if single else "position")
    axes.set_ylabel("block" if single else "prompt")
    tokens, forwards = sum(trace.response_length for trace in traces), sum(trace.forwards for trace in traces)
    which = f"prompt {traces[0].index}" if single else f"{len(traces)} prompts"
    title = f"{which}: {tokens} tokens in {forwards} forwards, {tokens / forwards:.2f} per forward"
    axes.set_title(title, fontsize=10)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a script that the font lacks becomes empty boxes
        figure.savefig(temporary, format="png", dpi=150)


def _write_texts(axes: Axes, cells: np.ma.MaskedArray, texts: np.ndarray) -> None:
    """The tokens in their cells, white where the colour is dark."""
    for (line, column), step in np.ma.ndenumerate(cells):
        text = printable(texts[line, column]).strip()
        axes.text(
            column, line, text if len(text) <= 7 else text[:6] + "…", ha="center", va="center", fontsize=6,
            color="white" if step < cells.max() / 2 else "black", clip_on=True, parse_math=False,
        )  # fmt: skip
