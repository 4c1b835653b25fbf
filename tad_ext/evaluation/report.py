"""An evaluation's report, and a comparison's: their numbers with intervals, as plain JSON values and as Markdown."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tad_ext.evaluation.comparison import Method, compare_methods
from tad_ext.evaluation.results import Evaluation
from tad_ext.evaluation.settings import BOOTSTRAP_SAMPLES

Table = tuple[list[str], list[list[str]]]
"""Headings, and rows of as many cells."""


def evaluation_report(
    evaluation: Evaluation,
    best_accuracy: float | None = None,
    *,
    method: str | None = None,
    samples: int = BOOTSTRAP_SAMPLES,
) -> dict[str, Any]:
    """`Evaluation.to_json`, and of each method the names of its runs, AUP, and best accuracies at some speeds.

    Args:
        evaluation: with its responses.
        best_accuracy: y_max of every AUP; None: this evaluation's best.
        method: whose AUP stands at the top; None: there is none.
        samples: of the bootstrap over problems.
    """
    methods = evaluation.methods()
    found = compare_methods(methods_with_outcomes(evaluation), best_accuracy, samples=samples)
    return evaluation.to_json(best_accuracy) | {
        "aup": None if method is None else evaluation.aup(best_accuracy, method=method),
        "methods": {
            one.name: {"runs": [point.policy for point in methods[one.name]], **plain(one)} for one in found.summaries
        },
        "bootstrap_samples": samples,
    }


def methods_with_outcomes(evaluation: Evaluation, *, called: str = "{}") -> list[Method]:
    """An evaluation's methods, with what came of each problem; `called` is a format for their names."""
    return [
        Method(called.format(name), evaluation.curve(name), evaluation.outcomes(name)) for name in evaluation.methods()
    ]


def plain(value: Any) -> Any:
    """A dataclass as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(value)))


def runs_table(report: Mapping[str, Any]) -> Table:
    """A row for each decoding run."""
    headings = ["run", "%", "95 %", "TPF", "published", "tok/s", "p50/p90/p99, s", "forwards"]
    rows = []
    for point in report["points"]:
        low, high = point["accuracy_interval"]
        latency = point["latency"]
        rows.append([
            point["policy"],
            f"{point['accuracy']:.1f}",
            f"[{low:.1f}, {high:.1f}]",
            f"{point['tokens_per_forward']:.2f}",
            f"{point['published_tokens_per_forward']:.2f}",
            f"{point['tokens_per_second']:.0f}",
            "/".join(f"{latency[name]:.2g}" for name in ("p50", "p90", "p99")),
            f"{point['forwards']}",
        ])  # fmt: skip
    return headings, rows


def methods_table(summaries: Sequence[Mapping[str, Any]], *, name: str = "curve") -> Table:
    """A row for each method: AUP, and its best accuracies at the speeds that were asked for."""
    speeds = list(summaries[0]["accuracy_at"])
    headings = [name, "AUP", *(f"%, at >= {speed}" for speed in speeds), "fastest run"]
    rows = [
        [
            one["name"],
            estimate(one["aup"]),
            *(estimate(one["accuracy_at"][speed]) for speed in speeds),
            f"{max((rho for rho, _ in one['points']), default=0):.2f}",
        ]
        for one in summaries
    ]
    return headings, rows


def estimate(found: Mapping[str, Any], *, sign: str = "") -> str:
    """ "62.0 (57.1 to 66.6)"; a dash where there is no value, a star where some draws had none."""
    if found["value"] is None:
        return "-"
    text = f"{found['value']:{sign}.1f}"
    if found["interval"] is None:
        return text
    low, high = found["interval"]
    return f"{text} [{low:{sign}.1f}, {high:{sign}.1f}]{'' if found['draws'] == 1 else '*'}"


def markdown_table(table: Table) -> str:
    """The first column to the left, the others to the right."""
    headings, rows = table
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def evaluation_markdown(report: Mapping[str, Any]) -> str:
    """The page of an evaluation, from its report."""
    summaries = list(report["methods"].values())
    grids = "; ".join(f"{one['name']}: {', '.join(one['runs'])}" for one in summaries)
    parts = [
        f"# {report['name']} on {report['task']}, {report['problems']} problems",
        "Accuracy in percent with its interval, tokens per forward (TPF) and latency, as defined below:",
        markdown_table(runs_table(report)),
        markdown_table(methods_table(summaries)),
        f"AUP by the {report['count']} count of tokens, y_max {report['best_accuracy']:.2f} % "
        f"({report['best_accuracy_from']}). Runs of each curve: {grids}.",
        INTERVALS.format(samples=report["bootstrap_samples"]),
        "\n".join(f"- {name}: {text}" for name, text in report["definitions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def comparison_markdown(report: Mapping[str, Any]) -> str:
    """The page of a comparison, from its report: a leaderboard by AUP, differences, and tests."""
    ranked = sorted(report["summaries"], key=lambda one: -one["aup"]["value"])
    parts = [
        f"# Comparison on {report['task']}, {report['problems']} problems",
        markdown_table(methods_table(ranked, name="method")),
        f"AUP by the {report['count']} count of tokens, y_max {report['best_accuracy']:.2f} %. "
        + INTERVALS.format(samples=report["samples"]),
    ]
    if report["published"]:
        parts.append(f"Published numbers, whose problems are not known here: {', '.join(report['published'])}.")
    if report["differences"]:
        speeds = list(report["differences"][0]["accuracy_at"])
        rows = [
            [one["name"], *(estimate(found, sign="+") for found in (one["aup"], *one["accuracy_at"].values()))]
            for one in report["differences"]
        ]
        parts += [
            f"## Less {report['differences'][0]['other']}",
            markdown_table((["method", "AUP", *(f"points, at >= {speed}" for speed in speeds)], rows)),
            "Paired over problems: each draw has the same problems for both.",
        ]
    if report["tests"]:
        rows = [
            [one["name"], one["run"], str(one["only_second"]), str(one["only_first"]), f"{one['p_value']:.2g}"]
            for one in report["tests"]
        ]
        parts += [
            f"## Run by run against {report['tests'][0]['other']}",
            markdown_table((["evaluation", "run", "right alone", "wrong alone", "p"], rows)),
            "McNemar's exact test, two-sided: problems that one of both answers correctly, and the probability of so "
            "uneven a split if neither is better. Not corrected for the number of tests.",
        ]
    return "\n\n".join(parts) + "\n"


INTERVALS = (
    "In brackets: 95 % percentile intervals of a bootstrap over problems, {samples} draws. A star: some draws have no "
    "value there, and the interval is of the others. %, at >= r: the best accuracy at r tokens per forward or more, "
    "linearly between runs."
)
