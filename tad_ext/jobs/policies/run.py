"""`tad policies`: the unmasking policies and the published decoding settings, as tables or as JSON."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table

from tad_ext.decoding.policies import policies_by_name, text_form
from tad_ext.decoding.presets import PRESETS, Preset
from tad_ext.jobs.policies.config import PoliciesConfig


def policies(config: PoliciesConfig) -> None:
    """Prints every policy that `parse_policy` knows and every preset."""
    known = [
        {"name": name, "text": text_form(policy), "rule": policy.rule, "source": policy.source}
        for name, policy in sorted(policies_by_name.items())
    ]
    if config.json:
        presets = [
            {"name": name} | _texts(preset.fields()) | {"source": preset.source, "note": preset.note}
            for name, preset in PRESETS.items()
        ]
        Console(soft_wrap=True).print_json(data={"policies": known, "presets": presets})
        return
    shown = []
    for name, preset in PRESETS.items():
        others = {field: value for field, value in preset.fields().items() if value != getattr(Preset, field, None)}
        policy = str(others.pop("policy"))
        settings = ", ".join(f"{field}={value}" for field, value in _texts(others).items())
        source = f"{preset.source}; {preset.note}" if preset.note else preset.source
        shown.append({"name": name, "policy": policy, "other settings": settings, "source": source})
    console = Console(markup=False)
    for title, entries in (("policies", known), ("presets", shown)):
        columns = [Column(heading, overflow="fold") for heading in entries[0]]
        table = Table(*columns, title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for entry in entries:
            table.add_row(*entry.values())
        console.print(table)
        console.print()
    console.print(
        'A policy is written with its main value, "entropy:0.5", with any of its parameters, '
        '"localleap:relaxed=0.7,radius=8", or, where all have defaults, as its name alone. What stands in capitals '
        "must be given. Presets: tad generate --preset NAME, and in Python tad_ext.preset(name).",
        highlight=False,
    )


def _texts(settings: dict[str, Any]) -> dict[str, str]:
    return {name: "none" if value is None else str(value) for name, value in settings.items()}
