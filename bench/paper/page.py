"""The page of results, docs/reproduction.md: every claim answered, every table of the paper beside its counterpart.

It follows from the results, `template.md` and `reasons.yaml` alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import yaml

from tad_ext.evaluation import percentile_interval
from tad_ext.files import write_text

from ..report.tables import markdown_table
from .cells import CONFIDENCE, FEW_CELLS, cells
from .claims import (
    AT_2,
    AT_3,
    AUP,
    CLAIMS,
    FEW_CLAIMS,
    ONE,
    PUBLISHED_OBJECTIVES,
    PUBLISHED_ROWS,
    SPEED,
    THERE,
    VARIED_CLAIMS,
    Claim,
)  # fmt: skip
from .compare import Difference, Runs, differences, runs_of
from .results import Result, of_cell
from .study import Study

TEMPLATE = Path(__file__).with_name("template.md")
REASONS = Path(__file__).with_name("reasons.yaml")
DISTANCES = (1, 2, 3, 4, 6, 8, 12, 16, 20, 24)
TABLES = {
    "1": ("base", "fast_dllm", "dparallel", "d3llm", "d2f", "tad", "tad_speed", "dparallel_privileged",
          "d3llm_privileged", "d2f_privileged"),
    "3": ("tad", "ce_all", "kl_all", "ce_near"),
    "4": ("sft_given", "sft_privileged", "own_none", "own_shown", "privileged_none", "tad"),
    "5": ("delta_2", "tad", "tad_speed", "delta_16"),
    "6": ("kl_weight_0.3", "tad", "kl_weight_3"),
}  # fmt: skip
VARIED_TABLE = ("base", "delta_2", "tad", "tad_speed", "delta_16", "delta_22", "delta_22_light", "ce_all")
RENAMED = {
    "5": {"tad": "delta 4, TAD quality", "tad_speed": "delta 8, TAD speed", "ce_all": "CE everywhere"},
    "6": {"tad": "kl_weight 1, TAD quality"},
}
HEADINGS = {
    "1": "Table 1: methods",
    "3": "Table 3: what is learnt near and far",
    "4": "Table 4: privilege, and TAD's states",
    "5": "Table 5: delta",
    "6": "Table 6: kl_weight",
    "9": "Table 9: the teacher",
    "Figure 3": "Figure 3: confidence",
}


def write_page(results: Mapping[str, Sequence[Result]], path: Path) -> None:
    """Writes the page of the study's results, "paper", and of the smaller ones beside it. ValueError as `page`."""
    write_text(path, page(results, yaml.safe_load(REASONS.read_text(encoding="utf-8"))))


def page(by_study: Mapping[str, Sequence[Result]], reasons: Mapping[str, str]) -> str:
    """The page as Markdown. ValueError if there are no results of "paper", or a reason is of no claim."""
    results, varied, few = (by_study.get(name, ()) for name in ("paper", "paper-varied", "paper-few"))
    if not results:
        raise ValueError("results: there are none yet; expected the JSON files of python -m bench.paper")
    if unknown := reasons.keys() - {claim.name for claim in (*CLAIMS, *VARIED_CLAIMS, *FEW_CLAIMS)}:
        raise ValueError(f"{REASONS} names {min(unknown)!r}; expected names of claims")
    runs = runs_of(results)
    return TEMPLATE.read_text(encoding="utf-8").format(
        stands_on="\n\n".join(_stands_on(results)),
        answers="\n\n".join(_answers(runs, reasons)),
        tables="\n\n".join([*_tables(results, runs), f"### {HEADINGS['Figure 3']}", *_confidence(results)]),
        varied="\n\n".join(_varied(varied, reasons)) if varied else "Not measured yet.",
        few="\n\n".join(_few(few, reasons)) if few else "Not measured yet.",
        study=results[0].study,
    )


def _stands_on(results: Sequence[Result]) -> Iterator[str]:
    every = cells(_study(results))
    bases = sorted({one.base for one in results})
    seeds = sorted({one.seed for one in results if one.seed is not None})
    machines = sorted({f"{one.machine['processor']} ({one.machine['instruction_set']})" for one in results})
    expected = {name: len(bases) * (len(seeds) if cell.trained else 1) for name, cell in every.items()}
    lacking = [name for name, number in expected.items() if len(of_cell(results, name)) < number]
    hours = sum(sum(one.seconds.values()) for one in results) / 3600
    yield (
        f"**{_count(len(bases), 'base model')}** (seeds {_listed(bases)}), **{_count(len(seeds), 'training seed')}** "
        f"({_listed(seeds) or 'none'}), {results[0].study['evaluated']:,} unseen problems for each base. "
        f"{len(every) - len(lacking)} of {len(every)} cells are there for all of them"
        + (f"; not yet: {', '.join(f'`{name}`' for name in lacking)}. " if lacking else ". ")
        + f"Cells took {hours:.1f} hours of one process, bases and trajectories not counted, on {_listed(machines)}."
    )
    if len(bases) == 1:
        yield (
            "**With one base nothing is decided.** Bases and training seeds are the noise here: in an earlier pilot, "
            "differences between trainings had standard deviations of 3 to 7 points over their seeds. So every answer "
            'is "undecided", and says where it leans.'
        )


def _answers(runs: Runs, reasons: Mapping[str, str]) -> Iterator[str]:
    answered = {claim.name: _answered(claim, runs) for claim in CLAIMS}
    for of_paper in (True, False):
        rows = [
            [claim.table, claim.says, *([claim.paper] if of_paper else []), *answered[claim.name]]
            for claim in CLAIMS
            if claim.of_paper == of_paper
        ]
        header = ["table", "claim", *(["the paper"] if of_paper else []), "here, difference", "answer"]
        if not of_paper:
            yield "Not the paper's, but asked to take apart what it changes together:"
        yield _text_table(header, rows)
    yield from _refuted(CLAIMS, runs, reasons)


def _refuted(claims: Sequence[Claim], runs: Runs, reasons: Mapping[str, str]) -> Iterator[str]:
    refuted = [
        claim for claim in claims if any(one and one.answer == "no" for one in differences(claim, runs).values())
    ]
    if refuted:
        yield '**Each "no", and a reason that was tested:**'
        yield "\n".join(f"- {claim.says}: {reasons.get(claim.name, 'no reason was tested yet.')}" for claim in refuted)


def _answered(claim: Claim, runs: Runs) -> tuple[str, str]:
    """The differences of a claim, in words, and its answer."""
    found = differences(claim, runs)
    several = len(found) > 1 or claim.outcomes == (AT_2,)
    told = [
        (f"{outcome}: " if several else "") + ("not measured" if one is None else _difference(one, outcome))
        for outcome, one in found.items()
    ]
    answers = {outcome: _answer(one) for outcome, one in found.items()}
    if len(set(answers.values())) == 1:
        return "; ".join(told), next(iter(answers.values()))
    return "; ".join(told), "; ".join(f"{outcome}: {answer}" for outcome, answer in answers.items())


def _answer(one: Difference | None) -> str:
    if one is None:
        return "not measured"
    if one.bases > 1 or one.lies is None:
        return one.answer
    return f"undecided, leans {one.lies}"


def _difference(one: Difference, outcome: str) -> str:
    digits = 3 if outcome == "confidence" else 2 if outcome == SPEED else 0 if outcome == AUP else 1
    interval = "" if one.interval is None else " [{}]".format(" to ".join(f"{end:+.{digits}f}" for end in one.interval))
    return f"{one.mean:+.{digits}f}{interval}"


def _tables(results: Sequence[Result], runs: Runs) -> Iterator[str]:
    titles = {name: cell.title for name, cell in cells(_study(results)).items()}
    for table, names in TABLES.items():
        yield f"### {HEADINGS[table]}"
        yield _table(table, {name: titles[name] for name in names}, runs)
        if table == "4":
            yield _kept(results)
    yield f"### {HEADINGS['9']}"
    rows = [
        [title, _told(runs, name, ONE)]
        for name, title in (("base", "the base, shown the question alone"), ("teacher", titles["teacher"]))
    ]
    yield markdown_table(["", "accuracy, one per step"], rows)


def _table(table: str, titles: Mapping[str, str], runs: Runs) -> str:
    """Of the cells with these titles, beside what the paper's table says of them."""
    published = {"1": PUBLISHED_ROWS, "3": PUBLISHED_OBJECTIVES}.get(table, {})
    columns = (ONE, AT_2, AT_3, THERE, SPEED, AUP)
    header = ["", "one per step", "at 2", "at 3", "at entropy 0.5", "TPF there", "AUP"]
    header += ["paper: accuracy", "TPF", "AUP"] if published else []
    rows = []
    for name, title in titles.items():
        measured = [_told(runs, name, outcome) for outcome in columns]
        numbers = [_number(*one) for one in zip(published.get(name, (None,) * 3), (1, 2, 1), strict=True)]
        rows.append([RENAMED.get(table, {}).get(name, title), *measured, *(numbers if published else [])])
    return markdown_table(header, rows)


def _varied(results: Sequence[Result], reasons: Mapping[str, str]) -> Iterator[str]:
    """The study of delta alone, where the paper's rule finds one."""
    yield next(_stands_on(results))
    yield from _confidence(results)
    yield from _aside(results, "5", VARIED_TABLE, VARIED_CLAIMS, reasons)


def _few(results: Sequence[Result], reasons: Mapping[str, str]) -> Iterator[str]:
    """The study with few problems."""
    yield next(_stands_on(results))
    yield from _aside(results, "few", FEW_CELLS, FEW_CLAIMS, reasons)


def _aside(
    results: Sequence[Result], table: str, names: Sequence[str], claims: Sequence[Claim], reasons: Mapping[str, str]
) -> Iterator[str]:
    """A smaller study's table and answers."""
    titles, runs = {name: cell.title for name, cell in cells(_study(results)).items()}, runs_of(results)
    yield _table(table, {name: titles[name] for name in names}, runs)
    yield _text_table(["claim", "here, difference", "answer"], [[one.says, *_answered(one, runs)] for one in claims])
    yield from _refuted(claims, runs, reasons)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _told(runs: Runs, cell: str, outcome: str) -> str:
    """A field of a table: of one run with its standard error over problems, of several their mean and range."""
    values = [run[cell, outcome] for run in runs.values() if (cell, outcome) in run]
    if not values:
        return "-"
    digits = 2 if outcome == SPEED else 0 if outcome == AUP else 1
    measured = [value.measured for value in values]
    if len(values) > 1:
        return f"{fmean(measured):.{digits}f} ({min(measured):.{digits}f} to {max(measured):.{digits}f})"
    draws = values[0].draws
    if outcome == AUP and draws is not None:
        low, high = percentile_interval(draws)
        return f"{measured[0]:.0f} [{low:.0f} to {high:.0f}]"
    known = [] if draws is None else draws[~np.isnan(draws)].tolist()
    return f"{measured[0]:.{digits}f}" + (f" ± {stdev(known):.{digits}f}" if len(known) > 1 else "")


def _kept(results: Sequence[Result]) -> str:
    """How many trajectories there were of each origin."""
    origins = {
        (one.base, one.trajectories["from"]): one.trajectories for one in results if one.trajectories is not None
    }
    told = [
        f"{counts['kept']:,} of {counts['decoded']:,} {origin}" + (f" (base {base})" if len(origins) > 2 else "")
        for (base, origin), counts in sorted(origins.items())
        if origin != "given"
    ]
    return f"Right answers, which are trained on: {', '.join(told)}. Steps are the same for all." if told else ""


def _confidence(results: Sequence[Result]) -> Iterator[str]:
    found = [(base, one.decay) for (base, _), one in of_cell(results, CONFIDENCE).items() if one.decay is not None]
    rows = []
    for base, decay in found:
        for who, title in (("student", "the base, shown the question"), ("teacher", "the base, shown the reference")):
            at = dict(zip(decay[who]["distances"], decay[who]["confidence"], strict=True))
            values = [f"{at[distance]:.2f}" if distance in at else "" for distance in DISTANCES]
            rows.append([f"{title} (base {base})", *values])
    yield "Mean probability of the trajectory's token, by the steps until it is revealed."
    yield markdown_table(["", *map(str, DISTANCES)], rows) if rows else "Not measured yet."
    for base, decay in found:
        quality, speed = (_delta(decay["student"]["deltas"][name]["distance"]) for name in ("quality", "speed"))
        yield f"Delta by the paper's rule, base {base}: for quality {quality}, for speed {speed}."


def _delta(distance: int | None) -> str:
    return "beyond all distances" if distance is None else str(distance)


def _study(results: Sequence[Result]) -> Study:
    values = results[0].study
    return Study(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
