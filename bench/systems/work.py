"""The models, their trainings and their evaluations, by the project's own jobs; each goes on where it was stopped.

Two bases of one size: "full" attends to everything, "blocks" block-causally. Of each there is the student of a method
that was made for its kind: TAD's, and DMax's (OPUT).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tad_ext.distillation.adapter_run import ADAPTER_FOLDER
from tad_ext.evaluation import mcnemar, read_evaluation
from tad_ext.evaluation.saved import read_report
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.collect.run import collect
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.jobs.evaluate.run import evaluate
from tad_ext.jobs.merge.config import MergeConfig
from tad_ext.jobs.merge.run import merge
from tad_ext.jobs.pretrain.config import PretrainConfig
from tad_ext.jobs.pretrain.run import pretrain
from tad_ext.settings import made


@dataclass(frozen=True)
class Setting:
    """All numbers; they were fixed before the runs, on other seeds."""

    pretrain_steps: int = 2000
    hidden_size: int = 96
    block_length: int = 14  # of "blocks": the task's own
    problems: int = 1200
    keep: str = "correct"
    steps: int = 300
    rollout_steps: int = 50  # of d-OPSD, between two collections
    rounds: int = 3
    batch_size: int = 64
    learning_rate: float = 1e-3
    evaluated: int = 1000
    seeds: tuple[int, ...] = (0, 1, 2)  # of d-OPSD's trainings


STUDY = Setting()
QUICK = Setting(
    pretrain_steps=2, hidden_size=12, problems=8, keep="all", steps=2, rollout_steps=2, rounds=2, batch_size=4,
    evaluated=8, seeds=(0,),
)  # fmt: skip

SUITE: Mapping[str, Any] = {"suite": True, "policy": None}
#: What DMax is compared with: LLaDA2.0's rule, at its own threshold and below.
THRESHOLDS = ("0.5", "0.7", "0.85", "0.95")
SWEEP = (
    *(f"block-steps:threshold={value}" for value in THRESHOLDS),
    *(f"dmax:{value}" for value in ("0.0", "0.3", "0.5", "0.7", "0.9")),
)


class Systems:
    """Everything lies in one folder, and is there when it is complete."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self.folder, self.setting = folder, setting

    def run(self) -> None:
        """All of it, as far as it is not there."""
        self.pretrain("full")
        self.pretrain("blocks", causal_block_length=self.setting.block_length)
        self.collect("full", "full-shown")
        self.distill("full", "full-shown", "full-tad", objective="tad", delta=4, normalization="tokens")
        # DMax learns the model's own answers, of which nobody asks whether they are right.
        self.collect("blocks", "blocks-own", teacher_prompt="none", keep="all")
        self.distill("blocks", "blocks-own", "blocks-oput", objective="oput", keep="all")
        for model, adapter in (("full", None), ("full", "full-tad"), ("blocks", None), ("blocks", "blocks-oput")):
            self.evaluate(f"suite-{adapter or model}", model, adapter, **SUITE)
            if model == "blocks":
                self.evaluate(f"sweep-{adapter or model}", model, adapter, policy=None, policies=SWEEP)
        two = {"policy": None, "policies": ("topk:2",)}
        self.evaluate("opsd-start", "full", None, **two)
        for seed in self.setting.seeds:
            self.evaluate(f"opsd-{seed}", self.opsd(seed), None, **two)

    def opsd(self, seed: int) -> str:
        """Rounds of answers and of a training on these that are right; the name of the last model.

        The adapter goes on from round to round, so the teacher stays the model that it began with.
        """
        model, numbers, goes_on = "full", self.setting, dict[str, Any]()
        for number in range(numbers.rounds):
            own, adapter = f"opsd-own-{seed}-{number}", f"opsd-adapter-{seed}-{number}"
            rollout = {"policy": "topk:2", "temperature": 0.9, "seed": 100 * seed + number}
            self.collect(model, own, teacher_prompt="none", **rollout)
            method = {"objective": "d_opsd", "hindsight_block_length": 14, "eos_tail": "none"}
            rate = {"max_steps": numbers.rollout_steps, "lr_schedule": "constant", "learning_rate": 2e-4}
            self.distill("full", own, adapter, **method, **rate, **goes_on, seed=seed)
            merged, goes_on = f"opsd-model-{seed}-{number}", {"adapter": str(self._adapter(adapter))}
            if not self.path(merged).exists():
                merge(made(MergeConfig, self._of("full", merged) | goes_on))
            model = merged
        return model

    def pretrain(self, name: str, **changes: Any) -> None:
        """A base model."""
        if not self.path(name).exists():
            size = {"steps": self.setting.pretrain_steps, "hidden_size": self.setting.hidden_size}
            pretrain(made(PretrainConfig, {"output": str(self.path(name)), **size, **changes}))

    def collect(self, model: str, name: str, **changes: Any) -> None:
        """A model's trajectories."""
        own = {"limit": self.setting.problems, "keep": self.setting.keep, "batch_size": 128, "device": "cpu"}
        collect(made(CollectConfig, self._of(model, name) | own | changes))

    def distill(self, model: str, trajectories: str, name: str, **changes: Any) -> None:
        """An adapter."""
        if not self._adapter(name).exists():
            numbers = self.setting
            own = {} if "adapter" in changes else {"rank": 32, "alpha": 32.0, "dropout": 0.0}
            own |= {
                "trajectories": (str(self.path(trajectories)),),
                "learning_rate": numbers.learning_rate, "lr_schedule": "cosine", "max_steps": numbers.steps,
                "batch_size": numbers.batch_size, "accumulation": 1, "log_every": 0, "device": "cpu",
                "keep": numbers.keep,
            }  # fmt: skip
            distill(made(DistillConfig, self._of(model, name) | own | changes))

    def evaluate(self, name: str, model: str, adapter: str | None, **changes: Any) -> None:
        """An evaluation."""
        own = {"limit": self.setting.evaluated, "batch_size": 128, "device": "cpu"}
        own |= {} if adapter is None else {"adapter": str(self._adapter(adapter))}
        evaluate(made(EvaluateConfig, self._of(model, name) | own | changes))

    def results(self) -> dict[str, Any]:
        """What the tables are made of, in plain JSON values."""
        names = [f"{what}-{model}" for what in ("suite", "sweep") for model in ("blocks", "blocks-oput")]
        names += ["suite-full", "suite-full-tad"]
        start = read_evaluation(self.path("opsd-start"))
        paired = []
        for seed in self.setting.seeds:
            student = read_evaluation(self.path(f"opsd-{seed}"))
            for first, second in zip(start.points, student.points, strict=True):
                both = ([one["correct"] for one in whole.responses_of(first.policy)] for whole in (start, student))
                values = {"seed": seed, "policy": first.policy, "start": first.accuracy, "student": second.accuracy}
                paired.append({**values, **asdict(mcnemar(*both))})
        return {
            "setting": asdict(self.setting),
            "evaluations": {name: _numbers(read_report(self.path(name))) for name in names},
            "opsd": paired,
        }

    def path(self, name: str) -> Path:
        """Where something lies."""
        return self.folder / name

    def _adapter(self, name: str) -> Path:
        return self.path(name) / ADAPTER_FOLDER

    def _of(self, model: str, name: str) -> dict[str, Any]:
        return {"model": str(self.path(model)), "output": str(self.path(name))}


def _numbers(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each run, with the AUP of the curve that it and one token per step make."""
    kept = ("policy", "accuracy", "standard_error", "tokens_per_forward", "forwards", "tokens_per_second", "problems")
    area = {method["runs"][-1]: method["aup"]["value"] for method in report["methods"].values()}
    return [{name: point[name] for name in kept} | {"aup": area.get(point["policy"])} for point in report["points"]]
