"""The two pictures of the method: accuracy against tokens per forward, and confidence against steps until reveal.

And `picture`, the style of every picture of lines.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tad_ext.evaluation.decay import ConfidenceDecay
from tad_ext.evaluation.results import ONE_PER_STEP, PRESET, Evaluation
from tad_ext.files import atomic_path

_COLOURS = ("#6b7280", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#0e7490", "#be185d", "#a16207", "#111827")
_LINE: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1.5}


@dataclass(frozen=True)
class DrawnCurve:
    """A line of the picture of accuracies."""

    label: str
    points: Sequence[tuple[float, float]]  #: (tokens per forward, accuracy in percent)
    intervals: Sequence[Sequence[float]] | None = None  #: of the accuracy, two ends for each point
    texts: Sequence[str] | None = None  #: beside the points

    @classmethod
    def of(cls, evaluation: Evaluation, method: str, label: str) -> "DrawnCurve":
        """A method at the speeds that were measured: only AUP counts the one-token-per-step run as 1.0."""
        points = sorted(evaluation.methods()[method], key=evaluation.tokens_per_forward)
        return cls(
            label,
            [(evaluation.tokens_per_forward(point), point.accuracy) for point in points],
            [point.accuracy_interval for point in points],
            ["1/step" if one.policy == ONE_PER_STEP else _value(one.policy) for one in points],
        )


def plot_accuracy_curve(
    evaluations: Sequence[Evaluation], path: str | Path, *, best_accuracy: float | None = None
) -> None:
    """One line per method of each evaluation, with Wilson's 95 % intervals as bars, as a PNG at `path`.

    `best_accuracy` is the y_max of the AUP in the legend; default: the best of all evaluations drawn.
    """
    if not evaluations:
        raise ValueError("evaluations is empty; expected at least one")
    best = max(one.best_accuracy() for one in evaluations) if best_accuracy is None else best_accuracy
    curves = []
    for evaluation in evaluations:
        methods = evaluation.methods()
        for method in methods:
            area = f", AUP {evaluation.aup(best, method=method):.0f}" if best > 0 else ""
            name = evaluation.name if len(methods) == 1 else f"{evaluation.name}, {method}"
            curves.append(DrawnCurve.of(evaluation, method, name + area))
    beside = _swept(evaluations)
    plot_curves(
        curves, path, title=f"{evaluations[0].task}, {evaluations[0].points[0].problems} problems", beside=beside
    )


def plot_curves(curves: Sequence[DrawnCurve], path: str | Path, *, title: str, beside: str = "") -> None:
    """Accuracy against tokens per forward, as a PNG at `path`; `beside` says what the texts beside the points are."""
    fastest = max(rho for curve in curves for rho, _ in curve.points)
    with picture(path) as axes:
        for curve, colour in zip(curves, cycle(_COLOURS)):
            speeds, accuracies = zip(*curve.points, strict=True)
            ends = curve.intervals or [(accuracy, accuracy) for accuracy in accuracies]
            bars = [
                [max(accuracy - low, 0.0) for accuracy, (low, _) in zip(accuracies, ends, strict=True)],
                [max(high - accuracy, 0.0) for accuracy, (_, high) in zip(accuracies, ends, strict=True)],
            ]
            errors = bars if curve.intervals else None
            axes.errorbar(speeds, accuracies, yerr=errors, color=colour, elinewidth=0.8, label=curve.label, **_LINE)
            last = -fastest
            for (speed, accuracy), text in zip(curve.points, curve.texts or (), strict=False):
                if speed - last >= 0.035 * fastest:  # where there is room for it
                    last = speed
                    _annotate(axes, text, (speed, accuracy), (4, 5), fontsize=7, color=colour)
        axes.set_xlabel("tokens per forward" + (f" (beside the points: {beside})" if beside else ""))
        axes.set_ylabel("accuracy, %")
        axes.margins(x=0.08)
        axes.set_title(title, fontsize=10)


def plot_confidence_decay(decays: Mapping[str, ConfidenceDecay], path: str | Path) -> None:
    """One line per model with its 95 % interval, the levels and the deltas they stand for, as a PNG at `path`."""
    if not decays:
        raise ValueError("decays is empty; expected at least one")
    with picture(path) as axes:
        levels = {delta.level: name for one in decays.values() for name, delta in one.deltas.items()}
        for level, name in levels.items():
            axes.axhline(level, color="#9ca3af", linewidth=0.8, linestyle="--")
            at_the_right: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "ha": "right"}
            text = f"{name} delta: {level}"
            _annotate(axes, text, (1.0, level), (-4, 3), fontsize=7, color="#6b7280", **at_the_right)
        for (name, decay), colour in zip(decays.items(), cycle(_COLOURS)):
            axes.plot(decay.distances, decay.confidence, color=colour, label=name, **_LINE)
            low, high = zip(*decay.intervals, strict=True)
            axes.fill_between(decay.distances, low, high, color=colour, alpha=0.15, linewidth=0)
            for distance in (delta.distance for delta in decay.deltas.values()):
                if distance is not None:
                    where = (distance, decay.confidence[decay.distances.index(distance)])
                    _annotate(axes, str(distance), where, (3, 6), fontsize=8, color=colour)
        axes.set_xlabel("steps until the teacher revealed the token, k")
        axes.set_ylabel("mean probability of the trajectory's token")
        axes.set_ylim(0, 1.02)
        axes.set_xlim(left=0)


def _annotate(axes: Axes, text: str, where: tuple[float, float], offset: tuple[int, int], **style: Any) -> None:
    axes.annotate(text, where, textcoords="offset points", xytext=offset, **style)


def _value(run: str) -> str:
    """The part of a run's name behind the policy's: "0.5"; of a preset nothing, as its line has its name."""
    return "" if run.startswith(PRESET) else run.partition(":")[2]


def _swept(evaluations: Sequence[Evaluation]) -> str:
    """What the labels are values of: "entropy threshold"."""
    runs = {point.policy for one in evaluations for point in one.points if _value(point.policy)} - {ONE_PER_STEP}
    return ", ".join(sorted({run.partition(":")[0] for run in runs})) + " threshold" if runs else "policy"


@contextmanager
def picture(path: str | Path) -> Iterator[Axes]:
    """Axes for lines with labels, which become an SVG at a `path` that ends so, and a PNG at any other."""
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    yield axes
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    form = "svg" if Path(path).suffix == ".svg" else "png"
    with atomic_path(path) as temporary, rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(temporary, format=form, dpi=150)
