"""Tables of the results, between two marks in the pages that speak of them."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- {name}: written by python -m bench.systems report -->", "<!-- {name}: end -->"
TITLES = {
    "full": "attends to all", "full-tad": "after TAD", "blocks": "block-causal", "blocks-oput": "after DMax's training",
}  # fmt: skip

PUBLISHED_THRESHOLD = "block-steps:strategy=dynamic,threshold=0.95,steps=0"
#: What the README shows of the presets: a few of each kind.
SHOWN = (
    "topk:1", "tad", "fast-dllm", "fast-dllm-factor", "dparallel", "freedave", "lopa", "adablock", "wino", "sdar",
    "llada2", "fast-dllm-v2", "dmax",
)  # fmt: skip

Rows = Sequence[Mapping[str, Any]]


def write_tables(results: Mapping[str, Any], root: Path) -> None:
    """Puts every table into its page. ValueError, naming the page, for one without the marks."""
    found = results["evaluations"]
    tables = {
        "README.md": {"presets": _shown({name: found[f"suite-{name}"] for name in TITLES})},
        "docs/decoding.md": {
            "full": _suite({name: found[f"suite-{name}"] for name in ("full", "full-tad")}),
            "blocks": _suite({name: found[f"suite-{name}"] for name in ("blocks", "blocks-oput")}),
            "dmax": _sweep({name: found[f"sweep-{name}"] for name in ("blocks", "blocks-oput")}),
        },
        "docs/distillation.md": {"opsd": _opsd(results["opsd"])},
    }
    for page, parts in tables.items():
        path = root / page
        text = path.read_text(encoding="utf-8")
        for name, table in parts.items():
            begin, end = (mark.format(name=name) for mark in (BEGIN, END))
            if begin not in text or end not in text:
                raise ValueError(f"{path} has no marks {begin} and {end}; expected both")
            before, rest = text.split(begin)
            text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
        path.write_text(text, encoding="utf-8")


def dmax_ratio(base: Rows, trained: Rows) -> tuple[float, float, float, float]:
    """The accuracy that is asked for, and the most tokens per forward at it: of the base and of DMax's model by a
    threshold, and of this by DMax's rule.

    It is that of the base by LLaDA2.0's own threshold, less a standard error.
    """
    (reference,) = (row for row in base if row["policy"] == PUBLISHED_THRESHOLD)
    least = reference["accuracy"] - reference["standard_error"]

    def fastest(rows: Rows, policy: str) -> float:
        fit = [row for row in rows if row["policy"].startswith(policy) and row["accuracy"] >= least]
        return max((row["tokens_per_forward"] for row in fit), default=float("nan"))

    return least, fastest(base, "block-steps"), fastest(trained, "block-steps"), fastest(trained, "dmax")


def _suite(models: Mapping[str, Rows]) -> str:
    """A row for each run, and for each model its numbers."""
    head = ["", *(f"{TITLES[model]}: {what}" for model in models for what in ("%", "TPF", "AUP", "tok/s"))]
    policies = dict.fromkeys(row["policy"] for rows in models.values() for row in rows)
    lines = [[f"`{name.removeprefix('preset:')}`", *_cells(models, name)] for name in policies]
    return _table(head, lines)


def _shown(models: Mapping[str, Rows]) -> str:
    """Accuracy and tokens per forward of some presets, a column for each model."""
    runs = {name: {row["policy"].removeprefix("preset:"): row for row in rows} for name, rows in models.items()}
    lines = []
    for preset in SHOWN:
        rows = [of_model.get(preset) for of_model in runs.values()]
        cells = [f"{row['accuracy']:.1f} at {row['tokens_per_forward']:.2f}" if row else "" for row in rows]
        lines.append([f"`{preset}`", *cells])
    return _table(["accuracy, %, at tokens per forward", *(TITLES[name] for name in models)], lines)


def _cells(models: Mapping[str, Rows], policy: str) -> list[str]:
    cells = []
    for rows in models.values():
        row = next((row for row in rows if row["policy"] == policy), None)
        if row is None:
            cells += [""] * 4
            continue
        area = "" if row["aup"] is None else f"{row['aup']:.0f}"
        cells += [f"{row['accuracy']:.1f}", f"{row['tokens_per_forward']:.2f}", area, f"{row['tokens_per_second']:.0f}"]
    return cells


def _sweep(models: Mapping[str, Rows]) -> str:
    least, *fastest = dmax_ratio(models["blocks"], models["blocks-oput"])
    plain, by_threshold, by_rule = ("none" if isnan(one) else f"{one:.2f}" for one in fastest)
    said = (
        f"Most tokens per forward of the runs with an accuracy of {least:.1f} % or more, which is the base's by "
        f"LLaDA2.0's own threshold less a standard error: the base by a threshold {plain}; after DMax's training by a "
        f"threshold {by_threshold}, by DMax's rule {by_rule}."
    )
    return f"{_suite(models)}\n\n{said}"


def _opsd(rows: Rows) -> str:
    head = ["seed", "decoded by", "start, %", "after, %", "right before alone", "right after alone", "p"]
    lines = [
        [
            str(row["seed"]), f"`{row['policy']}`", f"{row['start']:.1f}", f"{row['student']:.1f}",
            str(row["only_first"]), str(row["only_second"]), f"{row['p_value']:.2g}",
        ]
        for row in rows
    ]  # fmt: skip
    return _table(head, lines)


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *lines))
