"""`tad policies`: the unmasking policies and the published decoding settings, as tables or as JSON."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tad_ext.decoding.policies import policies_by_name, text_form
from tad_ext.decoding.presets import PRESETS
from tad_ext.jobs.policies.config import PoliciesConfig


def policies(config: PoliciesConfig | None = None) -> None:
    """Prints every policy that `parse_policy` knows and every preset."""
    known, presets = policy_rows(), preset_rows()
    if config is not None and config.json:
        Console(soft_wrap=True).print_json(data={"policies": known, "presets": presets})
        return
    console = Console(markup=False)
    _print(console, "policies", known)
    _print(console, "presets", presets)
    console.print(
        'A policy is written with its main value, "entropy:0.5", with any of its parameters, '
        '"localleap:relaxed=0.7,radius=8", or, where all have defaults, as its name alone. What stands in capitals '
        "must be given. Presets: tad generate --preset NAME, and in Python tad_ext.preset(name).",
        highlight=False,
    )


def policy_rows() -> list[dict[str, str]]:
    """One row per named policy: name, text (its text form with defaults), rule and source."""
    return [
        {"name": name, "text": text_form(policy), "rule": policy.rule, "source": policy.source}
        for name, policy in sorted(policies_by_name.items())
    ]


def preset_rows() -> list[dict[str, str]]:
    """One row per preset: name, the fields of `DecodeConfig` that it sets as text, source and note."""
    return [
        {"name": name}
        | {field: "none" if value is None else str(value) for field, value in preset.fields().items()}
        | {"source": preset.source, "note": preset.note}
        for name, preset in PRESETS.items()
    ]


def _print(console: Console, title: str, rows: list[dict[str, str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in rows[0]:
        table.add_column(heading.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)
    console.print()
