"""`tad compare`: evaluations of the same problems, and published curves, set beside each other."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from tad_ext.evaluation.aup_data import read_aup_data, write_aup_data
from tad_ext.evaluation.comparison import Method, check_same_problems, compare_methods, matched_tests
from tad_ext.evaluation.plots import DrawnCurve, plot_curves
from tad_ext.evaluation.report import comparison_markdown, methods_with_outcomes, plain
from tad_ext.evaluation.results import Evaluation
from tad_ext.evaluation.saved import read_evaluation
from tad_ext.files import output_folder, write_json, write_text
from tad_ext.jobs.compare.config import CompareConfig
from tad_ext.settings import values_of

REPORT, PAGE, PICTURE, CURVES = "comparison.json", "comparison.md", "comparison.png", "curves.yaml"


def compare(config: CompareConfig) -> dict[str, Any]:
    """Writes comparison.json, comparison.md, comparison.png and curves.yaml; returns what comparison.json holds.

    Raises ValueError, FileNotFoundError for a folder that holds no finished evaluation, evaluations of other problems
    or counts, files of curves that are none, and an output that cannot be written.
    """
    # 1. What is compared, all by names of their own.
    evaluations = _evaluations(config)
    published = _published(config, evaluations[0].task)
    methods: list[Method] = []
    drawn: list[DrawnCurve] = []
    for evaluation in evaluations:
        several = len(evaluation.methods()) > 1
        called = evaluation.name.replace("{", "{{").replace("}", "}}") + (", {}" if several else "")
        own = methods_with_outcomes(evaluation, called=called)
        methods += own
        drawn += [
            DrawnCurve.of(evaluation, name, one.name) for name, one in zip(evaluation.methods(), own, strict=True)
        ]
    for name, points in published.items():
        methods.append(Method(name, points))
        drawn.append(DrawnCurve(name, points))
    if empty := [method.name for method in methods if not method.curve]:
        raise ValueError(f"{empty[0]} has no response with a token by the {evaluations[0].count} count")
    output = output_folder(config.output)

    # 2. The numbers.
    found = compare_methods(
        methods, config.best_accuracy, speeds=config.speeds, samples=config.bootstrap_samples, seed=config.seed
    )
    first, *others = evaluations
    tests = {other.name: matched_tests(first, other) for other in others}
    report = plain(found) | {
        "task": first.task,
        "problems": first.points[0].problems,
        "count": first.count,
        "published": list(published),
        "tests": [
            {"name": name, "other": first.name, "run": run, **asdict(test)}
            for name, of_runs in tests.items()
            for run, test in of_runs.items()
        ],
        "settings": values_of(config),
    }

    # 3. As tables, a picture, and the curves alone.
    page = comparison_markdown(report)
    Console(markup=False).print(Markdown(page))
    write_json(output / REPORT, report)
    write_text(output / PAGE, page)
    write_aup_data(output / CURVES, {first.task: {method.name: method.curve for method in methods}})
    title = f"{first.task}, {first.points[0].problems} problems"
    plot_curves(drawn, output / PICTURE, title=title)
    print(f"written to {output}")
    return report


def _evaluations(config: CompareConfig) -> list[Evaluation]:
    """All evaluations, of the same problems, by one count and with different names."""
    found = [read_evaluation(folder) for folder in config.evaluations]
    names: Sequence[str] = config.names or [one.name for one in found]
    if len(set(names)) < len(names):
        names = config.evaluations
    if len(set(names)) < len(names):
        raise ValueError(f"evaluations are {', '.join(config.evaluations)}; expected different folders")
    for evaluation, name in zip(found, names, strict=True):
        evaluation.name, evaluation.count = name, config.count or evaluation.count
    if len({evaluation.count for evaluation in found}) > 1:
        counts = ", ".join(f"{one.name} {one.count}" for one in found)
        raise ValueError(f"evaluations count tokens differently ({counts}); expected --count own or published for all")
    check_same_problems(found)
    return found


def _published(config: CompareConfig, task: str) -> Mapping[str, list[tuple[float, float]]]:
    """The published curves of the task, by method."""
    methods: dict[str, list[tuple[float, float]]] = {}
    for path in config.published:
        data = read_aup_data(path)
        name = config.published_task or (task if task in data or len(data) > 1 else next(iter(data)))
        if name not in data:
            raise ValueError(f"published_task is {name!r}, which {path} has not; expected one of {', '.join(data)}")
        if twice := methods.keys() & data[name].keys():
            raise ValueError(f"published files have {min(twice)!r} twice; expected every method once")
        methods |= data[name]
    return methods
