"""The settings of `tad plot trace`."""

from dataclasses import dataclass

from tad_ext.jobs import JobSettings
from tad_ext.settings import Count, Index, PathText, setting


@dataclass(frozen=True)
class PlotTraceConfig(JobSettings):
    """Draws what tad generate --trace has written as a heat map: a position per column, its colour the forward that
    revealed it. Several prompts are a line each, one prompt is wrapped by block.
    """

    summary = "draw the order in which tokens were revealed"
    example = "tad plot trace --input runs/generated --output trace.png"

    input: PathText = setting(help="folder that tad generate --trace has written to, or its trace.jsonl")
    output: PathText = setting(help="PNG file to write")
    prompt: Index | None = setting(None, help="draw only this prompt (a number from 0), wrapped by block; none: all")
    limit: Count = setting(50, help="most prompts to draw, the first ones")
