"""`tad plot trace`: the order in which tokens were revealed, as a heat map."""

from __future__ import annotations

from tad_ext.decoding.traces import read_traces
from tad_ext.files import tried_file
from tad_ext.jobs.plot_trace.config import PlotTraceConfig
from tad_ext.jobs.plot_trace.heat_map import plot_traces


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
