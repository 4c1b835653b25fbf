"""`tad plot trace`: the order in which tokens were revealed, as a heat map."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class PlotTraceConfig:
    """Which traces to draw, and where to."""

    input: str = field(metadata={"help": "folder that tad generate --trace has written to, or its trace.jsonl"})
    output: str = field(metadata={"help": "PNG file to write"})
    prompt: int | None = field(
        default=None, metadata={"help": "draw only the prompt of this number (from 0), wrapped by block; none: all"}
    )
    limit: int = field(default=50, metadata={"help": "most prompts to draw, the first ones"})


def plot_trace(config: PlotTraceConfig) -> None:
    """Draws the heat map. Errors as `read_traces`, and ValueError for a prompt that is not there."""
    from tad_ext.files import tried_file
    from tad_ext.generation.heat_map import plot_traces
    from tad_ext.generation.trace import read_traces

    if config.limit < 1:
        raise ValueError(f"limit is {config.limit}; expected at least 1")
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
