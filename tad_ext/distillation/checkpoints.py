"""What a run writes while it trains, so that the same command goes on after a kill where it was.

`checkpoint-<step>/` holds the adapter, the optimizer's moments and `run.json`, what the run is: a training with other
settings or data is another run. `steps.jsonl` holds the records of the steps so far, which are the same in every such
run, and `speed.jsonl` how fast they were. `evaluations.jsonl` holds what was measured of the model on the way, and
`best/` the adapter that was measured best.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from safetensors import SafetensorError
from tqdm import tqdm

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.distillation.card import Card
from tad_ext.distillation.tracking import track
from tad_ext.distillation.trainer import StepRecord, Trainer
from tad_ext.files import (
    add_json_line,
    json_lines,
    remove_folder,
    remove_leftovers,
    rescued,
    write_json,
    write_text,
)
from tad_ext.interrupts import shielded
from tad_ext.models.identity import described, identity_differences
from tad_ext.models.lora import WEIGHTS_FILE, restore_adapter, save_adapter

STEPS_FILE = "steps.jsonl"
SPEED_FILE = "speed.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
BEST_FOLDER = "best"
_BEST_FILE = "evaluation.json"
RUN_FILE = "run.json"
_PREFIX = "checkpoint-"
_RECORDED = StepRecord.__dataclass_fields__.keys()

#: Settings that do not change what is learnt, or that the run's other values say more exactly.
FREE = (
    "model", "trajectories", "data", "output", "allow_other_model", "batch_size", "accumulation", "save_every",
    "keep_checkpoints", "log_every", "tracker", "evaluate_every", "evaluate_batch_size", "overwrite", "device",
    "gradient_checkpointing", "shard_model",
)  # fmt: skip


def run_values(
    settings: Mapping[str, Any],
    trajectories: Iterable[Trajectory],
    model: Mapping[str, Any],
    trainer_size: int,
) -> dict[str, Any]:
    """What a run is: two that have the same values end with the same adapter, up to the order of sums.

    And up to the dropout, which goes by the micro-batch, where these have other sizes.

    Args:
        settings: of the job.
        trajectories: that it trains on.
        model: identity of the base model.
        trainer_size: states of an optimizer step, over all ranks.
    """
    data = hashlib.sha256()
    for one in trajectories:
        data.update(json.dumps([one.task, *one.key, one.num_steps]).encode())
        for array in (one.prompt_ids, one.teacher_prompt_ids, one.response_ids, one.reveal_step):
            data.update(array.astype("<i8").tobytes())
    chosen = {name: value for name, value in settings.items() if name not in FREE}
    return {**chosen, "states_per_step": trainer_size, "trajectories": data.hexdigest()[:16], "model": dict(model)}


def checkpoints(folder: Path) -> list[Path]:
    """Complete ones, by their steps."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if (path / RUN_FILE).is_file()]
    steps = {path: path.name.removeprefix(_PREFIX) for path in found}
    return sorted((path for path in found if steps[path].isdecimal()), key=lambda path: int(steps[path]))


def latest(folder: Path, values: Mapping[str, Any]) -> Path | None:
    """The checkpoint to go on from. ValueError, naming what differs, if it is of a run of other values."""
    found = checkpoints(folder)
    if not found:
        return None
    mine = json.loads(json.dumps(values))
    with _undamaged(found[-1]):
        theirs = dict(json.loads((found[-1] / RUN_FILE).read_text(encoding="utf-8")))
    differing = [_difference(*one) for one in _differences(theirs, mine)]
    if differing:
        raise ValueError(
            f"output {str(folder)!r} holds {found[-1].name} of another run: {'; '.join(differing)}; choose another "
            f"folder, the same settings, or set overwrite"
        )
    return found[-1]


def check_same_everywhere(values: Mapping[str, Any], checkpoint: Path | None) -> None:
    """ValueError on every process if one has other values, or goes on from another checkpoint, than the first one."""
    own = {**values, "the last checkpoint": checkpoint and checkpoint.name}
    first, *others = gather_object([own])
    for number, theirs in enumerate(others, 1):
        for name, one, other in _differences(first, theirs):
            raise ValueError(
                f"{name} is {one} for process 0, and {other} for process {number}; expected a model, data and an "
                f"output that all processes see alike"
            )


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """By name, what two runs have that is not the same."""
    names = dict.fromkeys([*other, *one])
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def _difference(name: str, theirs: Any, mine: Any) -> str:
    """For a message. Of models, which are told by their identities, only what differs."""
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping) and (told := identity_differences(theirs, mine)):
        return f"another {name}: {described(told)}"
    return f"{name} was {theirs}, this run has {mine}"


class Progress:
    """Writes down a training's records and checkpoints in a folder.

    Args:
        folder: where to.
        trainer: its training.
        values: `run_values`.
        card: of its adapters.
        keep: how many checkpoints stay, the latest ones; 0: all.

    Attributes:
        history: the records of the steps so far.
        evaluation: what was measured of the model as it is now.
    """

    def __init__(self, folder: Path, trainer: Trainer, values: Mapping[str, Any], card: Card, *, keep: int) -> None:
        self.folder, self.trainer, self.values, self.card, self.keep = folder, trainer, values, card, keep
        self.saved = trainer.step
        remove_leftovers(folder, f"{_PREFIX}*")
        rows = _rows_until(folder / STEPS_FILE, trainer.step)
        self.history = [StepRecord(**row) for row in rows if row.keys() == _RECORDED]
        if lacking := trainer.step - len(self.history):
            tqdm.write(f"note: {folder / STEPS_FILE} lacks the records of {lacking} of {trainer.step} steps")
        _rows_until(folder / SPEED_FILE, trainer.step)
        self.evaluation: Mapping[str, Any] | None = None
        self.best = folder / BEST_FOLDER
        if (folder / EVALUATIONS_FILE).exists():
            _rows_until(folder / EVALUATIONS_FILE, trainer.step - 1)  # the model of this step is measured again
        if trainer.step == 0 and self.best.exists():  # of a run that never came to a checkpoint
            remove_folder(self.best)

    def add(self, record: StepRecord) -> None:
        """Writes a record down."""
        self.history.append(record)
        self.evaluation = None
        add_json_line(self.folder / STEPS_FILE, asdict(record))
        speed = {} if self.trainer.speed is None else asdict(self.trainer.speed)
        add_json_line(self.folder / SPEED_FILE, {"step": record.step, **speed})
        track(self.trainer.accelerator, record.step, {**asdict(record), "speed": speed})

    def measured(self, evaluation: Mapping[str, Any]) -> None:
        """Writes down what was measured of the model as it is now, and its adapter if none was better."""
        self.evaluation = evaluation
        add_json_line(self.folder / EVALUATIONS_FILE, evaluation)
        track(self.trainer.accelerator, evaluation["step"], {"evaluation": evaluation})
        tqdm.write(
            f"step {evaluation['step']}: {evaluation['accuracy']:.1f} ± {evaluation['standard_error']:.1f} % right, "
            f"{evaluation['tokens_per_forward']:.2f} tokens per forward"
        )
        if _rank(evaluation) > self._best_rank():
            rescued(self._write_best, self.best)

    def save(self) -> None:
        """A checkpoint of now, unless there is one; older ones that are too many go. A signal waits for it."""
        step, record = self.trainer.step, self.trainer.record
        if step == self.saved or not self.trainer.whole:
            return
        with shielded():
            self.saved = step  # it is tried once
            if record is not None and record not in self.history[-1:]:  # a signal came between the two
                self.history.append(record)
            try:  # before the checkpoint, which goes on from all of them
                write_text(self.folder / STEPS_FILE, json_lines(map(asdict, self.history)))
            finally:
                rescued(self._write, self.folder / f"{_PREFIX}{step:06d}")
            for path in checkpoints(self.folder)[: -self.keep] if self.keep else ():
                remove_folder(path)

    def _write(self, path: Path) -> None:
        def also(folder: Path) -> None:
            self.trainer.save(folder)
            write_json(folder / RUN_FILE, self.values)

        save_adapter(self.trainer.objective.model, path, also)

    def write_card(self, folder: Path) -> None:
        """That of the adapter as it is now."""
        self.card.write(folder, self.history, self.evaluation)

    def _write_best(self, path: Path) -> None:
        def also(folder: Path) -> None:
            self.write_card(folder)
            write_json(folder / _BEST_FILE, self.evaluation)

        save_adapter(self.trainer.objective.model, path, also)

    def _best_rank(self) -> tuple[float, float]:
        """Of what `best` holds; without weights, which take their place last, a kill has cut it short."""
        complete = (self.best / WEIGHTS_FILE).exists() and (self.best / _BEST_FILE).exists()
        return _rank(json.loads((self.best / _BEST_FILE).read_text())) if complete else (-1.0, 0.0)


def _rank(evaluation: Mapping[str, Any]) -> tuple[float, float]:
    """By which one adapter is better than another: accuracy, then tokens per forward."""
    return evaluation["accuracy"], evaluation["tokens_per_forward"]


def restore(trainer: Trainer, checkpoint: Path) -> None:
    """The training goes on behind the checkpoint's step."""
    with _undamaged(checkpoint):
        restore_adapter(trainer.objective.model, checkpoint)
        trainer.load(checkpoint)


@contextmanager
def _undamaged(checkpoint: Path) -> Iterator[None]:
    """Within the block a checkpoint is read; ValueError, saying what to do, for one whose files are no more whole."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, SafetensorError) as error:
        earlier = [path.name for path in checkpoints(checkpoint.parent) if path < checkpoint]
        raise ValueError(
            f"{checkpoint} is damaged: {error}; remove this folder to go on from "
            f"{earlier[-1] if earlier else 'the first step'}"
        ) from error


def _rows_until(path: Path, step: int) -> list[dict[str, Any]]:
    """A file's lines on a run's first steps, those on later ones being dropped: they will come again."""
    lines: Sequence[str] = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    rows = [values for values in map(_values, lines) if values and values["step"] <= step]
    write_text(path, json_lines(rows))
    return rows


def _values(line: str) -> dict[str, Any] | None:
    """None for a line that a kill has cut short, or that is damaged."""
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) and isinstance(values.get("step"), int) else None
