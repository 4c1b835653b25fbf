"""The model card of an adapter: README.md beside it says what it was made of, by what, and what came of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import tad_ext
from tad_ext.data.trajectories.files import Trajectory
from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import TrainingSettings
from tad_ext.distillation.trainer import StepRecord
from tad_ext.files import write_text
from tad_ext.models.identity import identity_fingerprint

CARD_FILE = "README.md"
_PACKAGES = ("torch", "transformers", "peft", "accelerate")
_DATA = ("keep", "teacher", "teacher_prompt", "eos_tail")
_ADAPTER = (*(field.name for field in fields(LoRASettings)), "adapter")
_NOT_OF_TRAINING = ("epochs", "max_steps", "log_every")  # what came of the first two is shown
_TRAINING = [field.name for field in fields(TrainingSettings) if field.name not in _NOT_OF_TRAINING]
_LAST = 10  # steps whose mean loss is shown: one step's depends on which states it drew


@dataclass(frozen=True)
class Card:
    """What stays the same in a run; the same values give the same bytes."""

    settings: Mapping[str, Any]  #: of the job, those that are used
    objective: Sequence[str]  #: the names among them of the objective's own
    identity: Mapping[str, Any]  #: of the base model
    hub: str | None  #: its repository and commit, if it is of the hub
    trajectories: Sequence[Trajectory]
    data: str  #: their hash
    states: int

    def write(self, folder: Path, history: Sequence[StepRecord], evaluation: Mapping[str, Any] | None) -> None:
        """Writes README.md of the adapter after the last of some steps, and what was measured of it, if it was."""
        write_text(folder / CARD_FILE, self.text(history, evaluation))

    def text(self, history: Sequence[StepRecord], evaluation: Mapping[str, Any] | None) -> str:
        """Markdown under the metadata that peft's own cards have."""
        model, commit = self.hub.split("@") if self.hub else (str(self.settings["model"]), "")
        sections = {
            "Base model": {
                "model": model,
                **({"commit": commit} if commit else {}),
                "type": self.identity["model_type"],
                "fingerprint": identity_fingerprint(self.identity),
            },
            "Data": {
                "tasks": list(dict.fromkeys(one.task for one in self.trajectories)),
                "trajectories": len(self.trajectories),
                "states": self.states,
                "hash": self.data,
                **self._chosen(_DATA),
            },
            "Objective": self._chosen(("objective", *self.objective)),
            "Adapter": self._chosen(_ADAPTER),
            "Training": {
                "steps": history[-1].step,
                "epochs": history[-1].epoch,
                "states per step": history[0].totals["states"],
                **self._chosen(_TRAINING),
            },
            **_results(history),
        }
        if evaluation is not None:
            title = f"Held-out problems of {self.settings['evaluate_task']} after step {evaluation['step']}"
            sections[title] = {name: value for name, value in evaluation.items() if name != "step"}
        sections["Framework versions"] = {"tad_ext": tad_ext.__version__, **{name: version(name) for name in _PACKAGES}}
        metadata = [
            f"base_model: {json.dumps(model)}",
            "library_name: peft",
            "tags:",
            f"- {json.dumps(f'base_model:adapter:{model}')}",
            "- lora",
            "- masked-diffusion",
        ]
        title = f"A LoRA adapter of {Path(model).name}, made by tad_ext"
        tables = [_table(name, rows) for name, rows in sections.items()]
        return "\n\n".join(["\n".join(["---", *metadata, "---"]), f"# {title}", *tables]) + "\n"

    def _chosen(self, names: Sequence[str]) -> dict[str, Any]:
        """Settings by their names, those that are used."""
        return {name: self.settings[name] for name in names if self.settings.get(name) is not None}


def _results(history: Sequence[StepRecord]) -> dict[str, dict[str, Any]]:
    """The last steps' losses, and the last look at the student."""
    last = history[-_LAST:]
    parts = {name: fmean(record.parts[name] for record in last) for name in last[0].parts}
    name = f"Loss, mean of steps {last[0].step} to {last[-1].step}"
    sections: dict[str, dict[str, Any]] = {name: {"loss": fmean(record.loss for record in last), **parts}}
    for record in [record for record in history if record.watched][-1:]:
        sections[f"Training data before the update of step {record.step}, means"] = {
            f"{side} {name}": value for side, values in record.watched.items() for name, value in values.items()
        }
    return sections


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {_shown(value)} |" for name, value in rows.items()]
    return "\n".join([f"## {title}", "", "| | |", "| --- | --- |", *lines])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
