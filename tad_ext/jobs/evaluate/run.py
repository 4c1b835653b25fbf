"""`tad evaluate`: a task's problems decoded by every run, judged, and reported.

The work is cut into units, some problems of one decoding run. Processes claim units (`tad_ext.sharing`), and write each
response down as it comes, so a kill loses what was half decoded and nothing else. Every response has the random numbers
of its problem's place: what comes out does not depend on kills, nor on the number of processes, but for the timings.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from tqdm import tqdm

from tad_ext.data.tasks.judging import JUDGES
from tad_ext.decoding.inputs import check_model
from tad_ext.evaluation.measure import evaluation_of, responses
from tad_ext.evaluation.plots import plot_accuracy_curve
from tad_ext.evaluation.report import (
    estimate,
    evaluation_markdown,
    evaluation_report,
    runs_table,
)
from tad_ext.evaluation.saved import REPORT, RESPONSES, write_responses
from tad_ext.files import successor, write_json, write_text
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.jobs.evaluate.folder import CURVE, FILES, PAGE, EvaluationFolder
from tad_ext.jobs.evaluate.plan import EvaluationPlan, Key
from tad_ext.models.hub import hub_note
from tad_ext.models.identity import identity_fingerprint
from tad_ext.sharing.journal import Journal
from tad_ext.sharing.work import WAIT, Unit, work_together

_REPORTING = Unit[Key](0, (), group="report-")  # the last piece of work, when all is answered


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Writes evaluation.json, evaluation.md, responses.jsonl and accuracy_curve.png; returns what the first one holds.

    A folder in which the same command has finished is reported and left as it is. Processes that share the folder share
    the work, under torchrun or accelerate (RANK, WORLD_SIZE) or started one by one; rank 0 shows progress and prints.

    Raises ValueError and TypeError for a wrong setting, and for a folder that holds another command's evaluation,
    before the model is loaded, FileNotFoundError for no such problem file; what `load_merged` raises.
    """
    # 1. What is to be done, and what is done already.
    plan = EvaluationPlan.make(config)
    folder, shown, told = EvaluationFolder(plan), plan.place.is_first, False
    report = folder.finished() if folder.is_tidy() and not folder.is_claimed() else None
    if shown and report is not None:
        print(f"finished before, in {plan.output}")
    elif shown and folder.answers:
        print(f"continuing in {plan.output}: {len(folder.answers)} answers are there already")

    if shown and plan.left_out:
        print(f"not in the suite: {plan.left_out}")

    # 2. The rest, as far as no other process works on it.
    if report is None:
        model: Any = None
        left = len(plan.runs) * len(plan.problems) - len(folder.answers)
        with tqdm(total=left, desc="evaluating", unit="answer", disable=not shown) as bar:

            def open_units() -> list[Unit[Key]]:
                bar.update(folder.look_again())
                units = folder.open_units()
                if folder.finished():  # asked last: who has finished removes the journals
                    units = []
                    if folder.is_tidy():
                        return units
                return units or [_REPORTING]

            def work(taken: Sequence[Unit[Key]]) -> None:
                nonlocal model, told
                bar.update(folder.look_again())  # what others have finished before they gave it back
                if list(taken) == [_REPORTING]:
                    if not folder.finished():
                        told = _report(plan, folder)
                    folder.tidy()
                elif missing := [key for unit in taken for key in unit.keys if key not in folder.answers]:
                    model = model or _loaded(plan)
                    _answer(plan, folder, model, missing, bar)

            work_together(plan.output, plan.work, open_units, work, place=plan.place, wait=WAIT)
        report = folder.finished()
        assert report is not None

    # 3. What has come out.
    if shown and not told:
        _print(report)
    if shown:
        print(f"written to {plan.output}")
    return report


def _loaded(plan: EvaluationPlan) -> Any:
    model = (plan.config if plan.place.world_size == 1 else replace(plan.config, device=plan.device)).load()
    for chosen in plan.runs.values():
        check_model(model, chosen)
    return model


def _answer(plan: EvaluationPlan, folder: EvaluationFolder, model: Any, keys: Sequence[Key], bar: tqdm) -> None:
    """Answers problems by one run, and writes each answer down."""
    ((run, _),) = {(run, None) for run, _ in keys}
    journal = Journal(plan.output, plan.identity)
    threads = JUDGES if plan.task.slow_to_judge else 0
    for number, response in responses(
        model, plan.tokenizer, plan.task, plan.problems, plan.prompts, run, plan.runs[run],
        numbers=[number for _, number in keys], threads=threads, progress=not bar.disable, each=journal.add,
    ):  # fmt: skip
        folder.answers[run, number] = response
        bar.update()


def _report(plan: EvaluationPlan, folder: EvaluationFolder) -> bool:
    """Writes the files of the finished evaluation; whether it has printed the table."""
    config, output = plan.config, plan.output
    name = Path(config.adapter or config.model).resolve().name
    answers = [folder.answers[run, number] for run in plan.runs for number in range(len(plan.problems))]
    evaluation = evaluation_of(name, plan.task, plan.problems, plan.runs, answers)
    evaluation.count = config.count
    report = evaluation_report(
        evaluation, config.best_accuracy, method=plan.method, samples=config.bootstrap_samples
    ) | {
        "model_fingerprint": identity_fingerprint(plan.identity["model"]),
        **hub_note(config.model),
        "settings": plan.settings,
        "identity": plan.identity,
    }
    if plan.place.is_first:
        _print(report)  # first: a terminal is never full
    with successor(output, [output / one for one in FILES if (output / one).exists()]) as new:
        write_responses(new / RESPONSES, answers)
        write_json(new / REPORT, report)
        write_text(new / PAGE, evaluation_markdown(report))
        plot_accuracy_curve([evaluation], new / CURVE, best_accuracy=config.best_accuracy)
    return plan.place.is_first


def _print(report: dict[str, Any]) -> None:
    console = Console(markup=False, highlight=False)  # a path may hold brackets
    (first, *others, _), rows = runs_table(report)
    columns = Column(first, no_wrap=True), *(Column(name, justify="right", overflow="fold") for name in others)
    title = (
        f"{report['name']} on {report['task']}, {report['problems']} problems: accuracy, tokens per forward, latency"
    )
    table = Table(*columns, title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row[:-1])
    console.print(table)
    counted = "" if report["count"] == "own" else f"{report['count']} count, "
    for one in report["methods"].values():
        speeds = [f"{estimate(found)} % at >= {speed}" for speed, found in one["accuracy_at"].items()]
        console.print(f"{one['name']}: AUP {estimate(one['aup'])}; {', '.join(speeds)} tokens per forward")
    console.print(f"({counted}y_max {report['best_accuracy']:.1f} %: {report['best_accuracy_from']})")
    for name in ("tokens_per_forward", "published_tokens_per_forward", "latency"):
        console.print(f"{name}: {report['definitions'][name]}", style="dim")
