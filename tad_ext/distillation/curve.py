"""The loss curve of a training, a small picture of however many steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from tad_ext.distillation.trainer import StepRecord
from tad_ext.evaluation.plots import picture

_POINTS = 300  # at most; of more steps, several make a point


def write_curve(path: Path, history: Sequence[StepRecord], labels: Mapping[str, str]) -> None:
    """Loss against optimizer steps, with its parts, by their names and labels; these may be in different units."""
    size = -(-len(history) // _POINTS)
    points = [history[first : first + size] for first in range(0, len(history), size)]
    steps = [fmean(record.step for record in point) for point in points]
    with picture(path) as axes:
        loss = [fmean(record.loss for record in point) for point in points]
        axes.plot(steps, loss, label="loss", color="black", linewidth=1)
        for name, label in labels.items():
            part = [fmean(record.parts[name] for record in point) for point in points]
            axes.plot(steps, part, label=label, linewidth=1, alpha=0.7)
        meant = "" if size == 1 else f", means of {size}"
        axes.set(xlabel=f"optimizer step{meant}", ylabel="loss and its parts", ylim=(0, None))
