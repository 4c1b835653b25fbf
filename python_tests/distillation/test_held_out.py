"""Evaluation in the course of a training: what it finds, that it changes nothing, and that the best adapter is kept."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distillation_worker import Worker
from made_trajectories import PART
from safetensors.torch import load_file

from tad_ext.data.tasks.arithmetic import ArithmeticTask, arithmetic_tokenizer
from tad_ext.data.trajectories.files import Trajectory, write_part
from tad_ext.data.trajectories.metadata import TrajectoryMetadata
from tad_ext.decoding import DecodeConfig
from tad_ext.distillation import adapter_run, held_out
from tad_ext.distillation.checkpoints import Progress
from tad_ext.distillation.trainer import Trainer
from tad_ext.evaluation.measure import evaluate_model
from tad_ext.jobs import common
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.jobs.sft.config import SFTConfig
from tad_ext.jobs.sft.run import sft
from tad_ext.models.loading import load_model
from tad_ext.models.lora import base_model, load_adapter, save_adapter
from tad_ext.models.tokenizers import tokenizer_hash
from tad_ext.settings import made

pytestmark = pytest.mark.slow

EVERY = {"evaluate_every": 3, "evaluate_task": "arithmetic", "evaluate_limit": 5}
SEQUENCES = ("prompt", "teacher_prompt", "response")
LONG = {"max_steps": 8, "dropout": 0.2, "save_every": 2}


@pytest.fixture
def asked(
    job: Callable[..., DistillConfig],
    make_model: Callable[..., Any],
    make_metadata: Callable[[str], TrajectoryMetadata],
    make_trajectories: Callable[..., list[Trajectory]],
) -> Callable[..., DistillConfig]:
    """Settings of a job whose model has the tokenizer and the special tokens of the embedded task."""

    def make(recorded: Any = None, **changes: Any) -> DistillConfig:
        config, tokenizer = job(**LONG | changes), arithmetic_tokenizer()
        mask = tokenizer.mask_token_id
        make_model(mask_token_id=mask).save_pretrained(config.model)
        tokenizer.save_pretrained(config.model)
        metadata = replace(make_metadata(tokenizer_hash(tokenizer)), task="arithmetic", mask_token_id=mask)
        trajectories = [
            replace(one, task="arithmetic", **{f"{name}_ids": getattr(one, f"{name}_ids") % mask for name in SEQUENCES})
            for one in recorded or make_trajectories()
        ]
        write_part(Path(config.trajectories[0]) / PART, metadata, trajectories)
        return config

    return make


def rows(folder: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "evaluations.jsonl").read_text().splitlines()]


def weights(folder: Path | str) -> bytes:
    return Path(folder, "adapter_model.safetensors").read_bytes()


def scored(monkeypatch: pytest.MonkeyPatch, *correct: int) -> None:
    """So many of five problems are answered correctly at one evaluation after the other."""
    real, left = held_out.evaluate_model, iter(correct)

    def evaluate(*arguments: Any) -> Any:
        found = real(*arguments)
        found.points = [replace(found.points[0], correct=next(left))]
        return found

    monkeypatch.setattr(held_out, "evaluate_model", evaluate)


def test_it_is_what_the_saved_adapter_answers(
    asked: Callable[..., DistillConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    config = asked(**EVERY, evaluate_policy="entropy:1.5")
    distill(config)
    found = rows(config.output)
    assert [row["step"] for row in found] == [3, 6, 8]
    assert len({row["tokens_per_forward"] for row in found}) > 1  # it does measure different models
    adapted: Any = load_adapter(load_model(config.model), Path(config.output, "adapter"))
    task = ArithmeticTask()
    decoding = DecodeConfig(28, 14, "entropy:1.5", 0.1, 0.95, stop_at_eos=False)
    problems = task.problems("test", limit=5, seed=0)
    (point,) = evaluate_model(
        base_model(adapted), arithmetic_tokenizer(), task, problems, ["entropy:1.5"], decoding
    ).points
    expected = point.to_json()
    del expected["seconds"], expected["tokens_per_second"]
    assert found[-1] == {"step": 8, **expected}
    assert f"{point.tokens_per_forward:.2f} tokens per forward" in capsys.readouterr().out


def test_the_training_goes_on_as_without_it(asked: Callable[..., DistillConfig], tmp_path: Path) -> None:
    results = {}
    for name, options in (("without", {}), ("with", EVERY), ("at every step", EVERY | {"evaluate_every": 1})):
        result = distill(asked(output=str(tmp_path / name), **options))
        steps = json.loads((tmp_path / name / "training.json").read_text())["steps"]
        results[name] = weights(result.adapter), steps
    assert results["with"] == results["without"]
    assert results["at every step"] == results["without"]


def test_it_leaves_modes_gradients_and_random_numbers_alone(
    asked: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = held_out.HeldOut.measured, []

    def state(trainer: Trainer) -> Any:
        modules, parameters = list(trainer.objective.modules()), list(trainer.objective.parameters())
        flags = [one.requires_grad for one in parameters], [one.grad is None for one in parameters]
        return [module.training for module in modules], flags, torch.get_rng_state().tolist()

    def measured(self: Any, trainer: Trainer) -> Any:
        before = state(trainer)
        found = real(self, trainer)
        assert state(trainer) == before
        seen.append(any(before[0]))
        return found

    monkeypatch.setattr(held_out.HeldOut, "measured", measured)
    distill(asked(**EVERY))
    assert seen[:2] == [True, True]  # while it trains; at the end it may be over


@pytest.mark.parametrize(
    ("correct", "best"), [((1, 3, 2), 6), ((3, 2, 1), 3), ((0, 0, 0), None), ((2, 2, 4), 8)]
)  # of equal accuracy, the one with more tokens per forward
def test_the_best_adapter_is_kept(
    asked: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, correct: tuple[int, ...], best: int | None
) -> None:
    scored(monkeypatch, *correct)
    config, saved = asked(**EVERY), {}
    real = Progress.measured

    def measured(self: Progress, evaluation: Any) -> None:
        save_adapter(self.trainer.objective.model, Path(config.output, "here"))
        saved[evaluation["step"]] = weights(Path(config.output, "here"))
        real(self, evaluation)

    monkeypatch.setattr(Progress, "measured", measured)
    distill(config)
    found = rows(config.output)
    assert [row["accuracy"] for row in found] == [20.0 * number for number in correct]
    expected = max(found, key=lambda row: (row["accuracy"], row["tokens_per_forward"]))
    assert best in (expected["step"], None)
    folder = Path(config.output, "best")
    assert json.loads((folder / "evaluation.json").read_text()) == expected
    assert weights(folder) == saved[expected["step"]]
    assert f"after step {expected['step']}" in (folder / "README.md").read_text()
    load_adapter(load_model(config.model), folder)


def test_the_old_best_stands_until_the_new_is_complete(
    asked: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scored(monkeypatch, 1, 2, 3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))
    real = Progress.write_card

    def write_card(self: Progress, folder: Path) -> None:
        real(self, folder)
        if self.trainer.step == 6:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Progress, "write_card", write_card)
    config = asked(**EVERY)
    with pytest.raises(OSError, match="No space left"):
        distill(config)
    folder = Path(config.output, "best")
    assert json.loads((folder / "evaluation.json").read_text())["step"] == 3
    load_adapter(load_model(config.model), folder)


class StoppedError(Exception):
    """In the middle of a training."""


def test_a_training_that_was_stopped_keeps_the_best_so_far(
    asked: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the gradients of the step behind that one; for 6 that is right behind an evaluation."""
    of_step = {3: 4, 6: 2, 8: 1}
    real = held_out.HeldOut.measured

    def measured(self: Any, trainer: Trainer) -> Any:
        return real(self, trainer) | {"accuracy": 20.0 * of_step[trainer.step]}

    monkeypatch.setattr(held_out.HeldOut, "measured", measured)
    distill(asked(**EVERY, output=str(tmp_path / "whole")))
    whole = left_by(tmp_path / "whole")
    for step in (2, 5, 6, 7):
        config = asked(**EVERY, output=str(tmp_path / f"stopped behind {step}"))
        with monkeypatch.context() as patched:
            accumulate = Trainer._accumulate

            def stop(trainer: Trainer, own: Any, step: int = step, accumulate: Any = accumulate) -> Any:
                if trainer.step == step:
                    raise StoppedError
                return accumulate(trainer, own)

            patched.setattr(Trainer, "_accumulate", stop)
            with pytest.raises(StoppedError):
                distill(config)
        distill(config)
        assert left_by(Path(config.output)) == whole, step


def left_by(training: Path) -> dict[str, Any]:
    files = {name: {one.name: one.read_bytes() for one in (training / name).iterdir()} for name in ("adapter", "best")}
    return files | {"rows": rows(training)}


def test_a_best_adapter_that_a_kill_has_cut_short_is_written_again(
    asked: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, 3, 3, 1, 1)
    config = asked(**EVERY)
    real = Progress.measured

    def measured(self: Progress, evaluation: Any) -> None:
        real(self, evaluation)
        if evaluation["step"] == 3:
            (self.best / "adapter_model.safetensors").unlink()
            raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(Progress, "measured", measured)
        with pytest.raises(StoppedError):
            distill(config)
    distill(config)
    load_adapter(load_model(config.model), Path(config.output, "best"))


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def test_two_ranks_share_the_problems(asked: Callable[..., DistillConfig], tmp_path: Path, worker: Worker) -> None:
    """Three problems and two; then one problem, of which the second rank has none."""
    options = {"accumulation": 1, "learning_rate": 1e-3}
    plain = asked(**options, output=str(tmp_path / "plain"))
    assert worker.run(plain, ranks=2) == [0, 0]
    for limit in (5, 1):
        together = asked(**EVERY | options | {"evaluate_limit": limit}, output=str(tmp_path / f"{limit}"))
        assert worker.run(together, ranks=2) == [0, 0]
        assert weights(Path(together.output, "adapter")) == weights(Path(plain.output, "adapter"))
        found = rows(together.output)
        assert [(row["step"], row["problems"]) for row in found] == [(step, limit) for step in (3, 6, 8)]
        alone = asked(**EVERY | {"evaluate_limit": limit}, output=str(tmp_path / f"{limit}-alone"))
        adapted: Any = load_adapter(load_model(alone.model), Path(together.output, "adapter"))
        measure = common.held_out(alone, [], arithmetic_tokenizer(), adapted.get_base_model().config)
        assert measure is not None
        (point,) = evaluate_model(
            base_model(adapted), measure.tokenizer, measure.task, measure.problems, ["entropy:0.5"], measure.decoding
        ).points
        assert (found[-1]["response_tokens"], found[-1]["forwards"]) == (point.response_tokens, point.forwards)


def test_a_training_on_own_responses_is_measured(asked: Callable[..., DistillConfig], tmp_path: Path) -> None:
    data = tmp_path / "responses.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"A{digit}>", "response": "4"}) + "\n" for digit in range(8)))
    paths = {"model": asked().model, "data": str(data), "output": str(tmp_path / "sft"), "prompt_format": "text"}
    quick = {"rank": 4, "batch_size": 4, "accumulation": 1, "max_steps": 4, "device": "cpu", "log_every": 2}
    result = sft(made(SFTConfig, paths | quick | EVERY))
    assert [row["step"] for row in rows(tmp_path / "sft")] == [3, 4]
    assert [record.watched.keys() for record in result.history] == [set(), {"entries"}, set(), {"entries"}]
    card = (tmp_path / "sft" / "best" / "README.md").read_text()
    assert all(f"| {name} |" in card for name in ("min_mask_ratio", "tokens_per_forward", "entries confidence"))


def test_problems_that_are_trained_on_are_refused(
    asked: Callable[..., DistillConfig], make_trajectories: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_run, "load_model", None)
    (problem,) = ArithmeticTask().problems("train", limit=1)
    recorded = [replace(one, id=problem.id) for one in make_trajectories(1)]
    message = f"evaluate_task is 'arithmetic': trajectories hold 1 of its 5 problems, such as '{problem.id}'; expected"
    config = asked(recorded, **EVERY, evaluate_split="train")
    with pytest.raises(ValueError, match=message):
        distill(config)
    assert not Path(config.output).exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluate_task": "gsm8k"}, "evaluate_task is 'gsm8k': .*data"),
        ({"evaluate_gen_length": 20}, "evaluate_task is 'arithmetic': gen_length must be a multiple of block_length"),
        ({"evaluate_gen_length": 280}, "evaluate_task is 'arithmetic': prompts.* more than the model's"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    asked: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(adapter_run, "load_model", None)
    config = asked(**EVERY | changes)
    with pytest.raises(ValueError, match=message):
        distill(config)
    assert not Path(config.output).exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"evaluate_every": 3}, "evaluate_every is 3 and evaluate_task is none; expected a task"),
        ({"evaluate_task": "arithmetic"}, "evaluate_task is arithmetic and evaluate_every is 0, never; expected"),
        ({"evaluate_policy": "topk:2"}, "evaluate_policy is topk:2 and evaluate_every is 0, never; expected"),
        ({"evaluate_every": -1}, "evaluate_every must be an integer"),
        ({"evaluate_task": "chess"}, "evaluate_task must be one of"),
        ({"evaluate_policy": "luck:1"}, "luck"),
    ],
)
def test_settings_that_say_nothing_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(DistillConfig, {"model": "model", "trajectories": ("t",), "output": "output"} | given)


def test_the_worst_adapter_is_not_the_best(
    asked: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, 4, 2, 1)
    config = asked(**EVERY)
    distill(config)
    last, best = (load_file(Path(config.output, name, "adapter_model.safetensors")) for name in ("adapter", "best"))
    assert any(not torch.equal(last[name], best[name]) for name in last)


@pytest.mark.parametrize("limit", [5, 1])
def test_ranks_that_share_a_model_answer_each_their_problems(
    asked: Callable[..., DistillConfig], tmp_path: Path, worker: Worker, limit: int
) -> None:
    """A spread model runs on all ranks or on none, and they decode different numbers of forwards, one rank perhaps
    none at all; the look at the student has a rank without entries. Stopped, it begins with an evaluation.
    """
    options = EVERY | {"evaluate_limit": limit, "max_steps": 5, "batch_size": 3, "accumulation": 2, "log_every": 1}
    whole = asked(**options, output=str(tmp_path / "whole"))
    sharded = replace(whole, output=str(tmp_path / "sharded"), shard_model=True)
    assert worker.run(whole, ranks=2) == [0, 0]
    assert worker.run(sharded, ranks=2) == [0, 0]
    stopped = replace(sharded, output=str(tmp_path / "stopped"))
    assert 0 not in worker.run(stopped, ranks=2, stop_at=3)
    assert worker.run(stopped, ranks=2) == [0, 0]
    for name in ("sharded", "stopped"):
        assert weights(tmp_path / name / "adapter") == weights(tmp_path / "whole" / "adapter")
        assert weights(tmp_path / name / "best") == weights(tmp_path / "whole" / "best")
        assert rows(tmp_path / name) == rows(tmp_path / "whole")
