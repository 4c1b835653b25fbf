"""How a cell is made and measured: the project's own jobs, one after the other, in folders that they can go on in.

Everything but the results lies in the work folder: of each base its checkpoint, its trajectories by their origin, and
an adapter for each training. A job that was killed goes on where it was.
"""

import random
import time
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tad_ext.data.tasks.arithmetic import response_text, results
from tad_ext.data.tasks.prompts import UNPRIVILEGED
from tad_ext.data.tasks.task import Problem, get_task
from tad_ext.data.trajectories.files import Trajectory, read_parts, read_trajectories, write_part
from tad_ext.decoding import DecodeConfig
from tad_ext.distillation.adapter_run import ADAPTER_FOLDER
from tad_ext.evaluation import DecaySettings, confidence_by_distance, evaluate_model
from tad_ext.evaluation.results import ONE_PER_STEP
from tad_ext.files import atomic_folder, json_lines
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.collect.run import collect
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.jobs.pretrain.config import PretrainConfig
from tad_ext.jobs.pretrain.run import pretrain
from tad_ext.jobs.sft.config import SFTConfig
from tad_ext.jobs.sft.run import sft
from tad_ext.models.loading import load_tokenizer
from tad_ext.models.lora import load_merged
from tad_ext.settings import made

from ..machine import describe_run
from .cells import CONFIDENCE, Cell, Trajectories
from .results import Result, packed
from .study import TASK, Study

COLLECTED = "collected.json"  # stands in a folder of trajectories when it is complete
SHOWN = "shown"  # the model's own trajectories with the prompts of a privileged teacher
RESPONSES = "responses.jsonl"


class Base:
    """A base model of the study, and what is made of it."""

    def __init__(self, study: Study, work: Path, seed: int) -> None:
        self.study, self.seed, self.folder = study, seed, work / f"base-{seed}"
        self.task = get_task(TASK)

    @property
    def checkpoint(self) -> Path:
        """Folder of the model; it is there when it is complete."""
        return self.folder / "model"

    def trajectories(self, origin: str) -> Path:
        return self.folder / f"trajectories-{origin}"

    def is_collected(self, origin: Trajectories) -> bool:
        if origin == "given":
            return True
        return (self.trajectories(origin) / COLLECTED).is_file()

    def adapter(self, cell: Cell, seed: int) -> Path:
        """Folder of a training's adapter; it is there when it is complete."""
        return self._training(cell, seed) / ADAPTER_FOLDER

    def _training(self, cell: Cell, seed: int) -> Path:
        return self.folder / f"{cell.name}.seed-{seed}"

    @cached_property
    def asked(self) -> list[Problem]:
        """The problems of its evaluations, others for each base; of the split that nothing is trained on."""
        return self.task.problems("test", limit=self.study.evaluated, seed=self.study.evaluation_seed + self.seed)

    def pretrain(self) -> None:
        study = self.study
        pretrain(
            PretrainConfig(
                output=str(self.checkpoint),
                steps=study.pretrain_steps,
                batch_size=study.pretrain_batch_size,
                rare_weight=study.rare_weight,
                short_share=study.short_share,
                reference_share=study.reference_share,
                hidden_size=study.hidden_size,
                layers=study.layers,
                heads=study.heads,
                seed=self.seed,
            )
        )

    def collect(self, origin: Trajectories) -> None:
        """The base's trajectories, with the reference in its prompt or without."""
        folder = self.trajectories(origin)
        plain = {"teacher_prompt": UNPRIVILEGED} if origin == "own" else {}
        collect(
            CollectConfig(
                model=str(self.checkpoint),
                output=str(folder),
                task=TASK,
                limit=self.study.problems,
                keep=self.study.keep,
                decoding=DecodeConfig(batch_size=self.study.decode_batch_size),
                seed=self.seed,
                **plain,
            )
        )
        (folder / COLLECTED).write_text("{}\n", encoding="utf-8")

    def train(self, cell: Cell, seed: int) -> float:
        """A training of the cell, if its adapter is not there; its seconds."""
        started = time.perf_counter()
        if not self.adapter(cell, seed).exists():
            job = self.job(cell, seed)
            if isinstance(job, SFTConfig):
                sft(job)
            else:
                distill(job)
        return time.perf_counter() - started

    def job(self, cell: Cell, seed: int) -> DistillConfig | SFTConfig:
        """The settings of a training."""
        study = self.study
        values: dict[str, Any] = {
            "model": str(self.checkpoint),
            "output": str(self._training(cell, seed)),
            "rank": study.rank,
            "alpha": float(study.rank),
            "learning_rate": study.learning_rate,
            "lr_schedule": study.lr_schedule,
            "max_steps": study.steps,
            "batch_size": study.batch_size,
            "accumulation": 1,
            "log_every": 0,
            "save_every": 100,
            "seed": seed,
        }
        if cell.trajectories == "given":
            data = str(self._given_responses())
            canvas = {"gen_length": self.task.gen_length, "prompt_format": "text"}
            return made(SFTConfig, {**values, **canvas, "data": data, **cell.settings})
        folder = self.trajectories(str(cell.trajectories))
        if cell.trajectories == "own" and cell.shown:
            folder = self._own_trajectories_shown()
        sees = {"teacher_prompt": "none"} if cell.trajectories == "privileged" and not cell.shown else {}
        chosen = {"trajectories": (str(folder),), "keep": study.keep, **sees, **cell.settings}
        return made(DistillConfig, {**values, **chosen})

    def measure(self, cell: Cell, seed: int | None) -> Result:
        """Trains the cell if it is to be trained, evaluates it on unseen problems."""
        trained = 0.0
        adapter = None
        if seed is not None:
            trained = self.train(cell, seed)
            adapter = self.adapter(cell, seed)
        started = time.perf_counter()
        policies = self.study.by_entropy if cell.decoded_by == "entropy" else self.study.by_confidence
        decoding = DecodeConfig(self.task.gen_length, self.task.block_length, batch_size=self.study.decode_batch_size)
        evaluation = evaluate_model(
            load_merged(self.checkpoint, adapter),
            load_tokenizer(str(self.checkpoint)),
            self.task,
            self.asked,
            [ONE_PER_STEP] if cell.prompt == "teacher" else policies,
            replace(decoding, **cell.decoding),
            name=cell.name,
            prompt=cell.prompt,
            progress=True,
        )
        seconds = {"training": trained, "evaluation": time.perf_counter() - started}
        return Result(
            cell=cell.name,
            base=self.seed,
            seed=seed,
            study=self.study.values(),
            policies=[point.policy for point in evaluation.points],
            outcomes=packed(evaluation, len(self.asked)),
            problems=len(self.asked),
            trajectories=self._origin(cell),
            decay=None,
            seconds=seconds,
            machine=describe_run("cpu"),
        )

    def confidence(self) -> Result:
        """The paper's Figure 3: how sure the base is of a trajectory's token, by the steps until it is revealed.

        Of the base with the student's prompt, from which the paper chooses delta, and of the base as the teacher.
        """
        started = time.perf_counter()
        trajectories = read_trajectories(self.trajectories("privileged"))[1][: self.study.decay_trajectories]
        asked = {
            "student": trajectories,
            "teacher": [replace(one, prompt_ids=one.teacher_prompt_ids) for one in trajectories],
        }
        model = load_merged(self.checkpoint, None)
        drawn = DecaySettings(batch_size=self.study.decode_batch_size, seed=self.seed)
        decays = {name: confidence_by_distance(model, ones, drawn).to_json() for name, ones in asked.items()}
        kept = ("distances", "confidence", "deltas", "problems")
        return Result(
            cell=CONFIDENCE,
            base=self.seed,
            seed=None,
            study=self.study.values(),
            policies=[],
            outcomes="",
            problems=0,
            trajectories=None,
            decay={name: {key: _rounded(decay[key]) for key in kept} for name, decay in decays.items()},
            seconds={"measuring": time.perf_counter() - started},
            machine=describe_run("cpu"),
        )

    def _origin(self, cell: Cell) -> dict[str, Any] | None:
        if cell.trajectories is None:
            return None
        if cell.trajectories == "given":
            return {"from": "given", "decoded": 0, "kept": self.study.problems}
        parts = read_parts(self.trajectories(cell.trajectories))
        return {
            "from": cell.trajectories,
            "decoded": sum(len(part.keys) for part in parts),
            "kept": sum(len(part.trajectories) for part in parts),
        }

    def _own_trajectories_shown(self) -> Path:
        """The model's own trajectories, whose teacher sees the reference in training."""
        folder, tokenizer = self.trajectories(SHOWN), load_tokenizer(str(self.checkpoint))
        problems = {one.id: one for one in self.task.problems("train", limit=self.study.problems, seed=self.seed)}

        def shown(one: Trajectory) -> Trajectory:
            return replace(one, teacher_prompt_ids=self.task.teacher_prompt(problems[one.id], tokenizer))

        if not folder.exists():
            with atomic_folder(folder) as written:
                for part in read_parts(self.trajectories("own")):
                    write_part(written / part.path.name, part.metadata, [shown(one) for one in part.trajectories])
        return folder

    def _given_responses(self) -> Path:
        """A file of the training problems' right responses, each in a random form, as a data set holds them."""
        folder, rng, share = self.folder / "given", random.Random(self.seed), self.study.short_share
        if not folder.exists():
            problems = self.task.problems("train", limit=self.study.problems, seed=self.seed)
            lines = [
                {
                    "prompt": f"{one.question}>",
                    "response": response_text(one.question, results(one.question), rng, share),
                }
                for one in problems
            ]
            with atomic_folder(folder) as written:
                (written / RESPONSES).write_text(json_lines(lines), encoding="utf-8")
        return folder / RESPONSES


def _rounded(value: Any) -> Any:
    """Numbers to four digits behind the point: curves are drawn, not calculated with."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return {name: _rounded(one) for name, one in value.items()} if isinstance(value, dict) else value
