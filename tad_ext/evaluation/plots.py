"""The two pictures of the method: accuracy against tokens per forward, and confidence against steps until reveal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tad_ext.evaluation.confidence import QUALITY_LEVEL, SPEED_LEVEL, ConfidenceDecay
from tad_ext.evaluation.results import ONE_PER_STEP, Evaluation
from tad_ext.files import atomic_path

_COLOURS = ("#6b7280", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce")


def plot_accuracy_curve(
    evaluations: Sequence[Evaluation], path: str | Path, *, best_accuracy: float | None = None
) -> None:
    """One line per evaluation with the policy at each point and the standard error as a bar, as a PNG at `path`.

    `best_accuracy` is the y_max of the AUP in the legend; default: the best of all evaluations drawn.
    """
    if not evaluations:
        raise ValueError("evaluations is empty; expected at least one")
    best = max(one.best_accuracy() for one in evaluations) if best_accuracy is None else best_accuracy
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for index, evaluation in enumerate(evaluations):
        # Drawn at what was measured; only AUP counts the one-token-per-step run as 1.0.
        points = sorted(evaluation.points, key=evaluation.tokens_per_forward)
        aup = f", AUP {evaluation.aup(best):.0f}" if best > 0 else ""
        axes.errorbar(
            [evaluation.tokens_per_forward(point) for point in points],
            [point.accuracy for point in points],
            yerr=[point.standard_error for point in points],
            color=_COLOURS[index % len(_COLOURS)],
            marker="o",
            markersize=4,
            linewidth=1.5,
            elinewidth=0.8,
            label=f"{evaluation.name}{aup}",
        )
    _label_points(axes, evaluations)
    axes.set_xlabel(f"tokens per forward (beside the points: {_swept(evaluations)})")
    axes.set_ylabel("accuracy, %")
    axes.margins(x=0.08)
    axes.set_title(f"{evaluations[0].task}, {evaluations[0].points[0].problems} problems", fontsize=10)
    _finish(figure, path)


def plot_confidence_decay(decays: Mapping[str, ConfidenceDecay], path: str | Path) -> None:
    """One line per model, the levels 0.5 and 0.2 and the deltas they stand for, as a PNG at `path`."""
    if not decays:
        raise ValueError("decays is empty; expected at least one")
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for level, name in ((QUALITY_LEVEL, "quality"), (SPEED_LEVEL, "speed")):
        axes.axhline(level, color="#9ca3af", linewidth=0.8, linestyle="--")
        axes.annotate(
            f"{name} delta: {level}", (1.0, level), xycoords=("axes fraction", "data"), textcoords="offset points",
            xytext=(-4, 3), ha="right", fontsize=7, color="#6b7280",
        )  # fmt: skip
    for index, (name, decay) in enumerate(decays.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        axes.plot(decay.distances, decay.confidence, color=colour, marker="o", markersize=4, linewidth=1.5, label=name)
        for delta in (decay.quality_delta, decay.speed_delta):
            if delta is not None:
                where = (delta, decay.confidence[decay.distances.index(delta)])
                axes.annotate(
                    str(delta), where, textcoords="offset points", xytext=(3, 6), fontsize=8, color=colour
                )  # fmt: skip
    axes.set_xlabel("steps until the teacher revealed the token, k")
    axes.set_ylabel("mean probability of the trajectory's token")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left=0)
    _finish(figure, path)


def _label_points(axes: Axes, evaluations: Sequence[Evaluation]) -> None:
    """The threshold of each point, where there is room for it."""
    fastest = max(one.tokens_per_forward(point) for one in evaluations for point in one.points)
    for index, evaluation in enumerate(evaluations):
        last = -fastest
        for point in sorted(evaluation.points, key=evaluation.tokens_per_forward):
            if evaluation.tokens_per_forward(point) - last < 0.035 * fastest:
                continue
            last = evaluation.tokens_per_forward(point)
            axes.annotate(
                "1/step" if point.policy == ONE_PER_STEP else point.policy.partition(":")[2],
                (evaluation.tokens_per_forward(point), point.accuracy),
                textcoords="offset points",
                xytext=(4, 5),
                fontsize=7,
                color=_COLOURS[index % len(_COLOURS)],
            )


def _swept(evaluations: Sequence[Evaluation]) -> str:
    """What the labels are values of: "entropy threshold"."""
    policies = {point.policy for one in evaluations for point in one.points} - {ONE_PER_STEP}
    return ", ".join(sorted({policy.partition(":")[0] for policy in policies})) + " threshold" if policies else "policy"


def _finish(figure: Figure, path: str | Path) -> None:
    axes = figure.axes[0]
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
