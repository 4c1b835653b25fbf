"""`tad sft`: it trains on the responses of a file by the objective sft, and goes on after a stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from word_checkpoints import write_words_model

from tad_ext.cli import main
from tad_ext.data.trajectories.files import Trajectory
from tad_ext.distillation.adapter_run import AdapterRun
from tad_ext.distillation.trainer import Trainer
from tad_ext.jobs.sft.config import SFTConfig
from tad_ext.jobs.sft.run import sft
from tad_ext.settings import made

RESPONSES = [("one two", "three one"), ("two", "one"), ("three", "three two one"), ("one", "two two")]
Job = Callable[..., SFTConfig]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    write_words_model(tmp_path / "model")
    lines = [json.dumps({"prompt": prompt, "response": response}) for prompt, response in RESPONSES]
    (tmp_path / "responses.jsonl").write_text("\n".join(lines))

    def make(**changes: Any) -> SFTConfig:
        paths = {name: str(tmp_path / path) for name, path in (("model", "model"), ("data", "responses.jsonl"))}
        quick = {"prompt_format": "text", "rank": 2, "alpha": 4.0, "learning_rate": 1e-2, "device": "cpu"}
        sizes = {"batch_size": 1, "accumulation": 2, "epochs": 6}
        return made(SFTConfig, {**paths, "output": str(tmp_path / "output"), **quick, **sizes, **changes})

    return make


def results(config: SFTConfig) -> tuple[bytes, list[Any]]:
    output = Path(config.output)
    steps = json.loads((output / "training.json").read_text())["steps"]
    return (output / "adapter" / "adapter_model.safetensors").read_bytes(), steps


def test_the_responses_are_trained_on(job: Job, tmp_path: Path) -> None:
    config, by_hand = job(), job(output=str(tmp_path / "by_hand"))
    history = sft(config).history
    assert [step.totals["states"] for step in history] == [2] * 12
    ids = {"one": 3, "two": 4, "three": 5}
    trajectories = []
    for number, (prompt, response) in enumerate(RESPONSES, 1):
        asked, said = ([ids[word] for word in text.split()] for text in (prompt, response))
        tokens = np.array([*said, 1, 1, 1, 1][:4])  # the longest has three, and its end
        trajectories.append(
            Trajectory(
                id=f"line {number}",
                sample=0,
                task="sft",
                prompt_ids=np.array(asked),
                teacher_prompt_ids=np.array(asked),
                response_ids=tokens,
                reveal_step=[1] * 4,
                num_steps=1,
                correct=True,
                answer=None,
                reference="",
            )
        )
    AdapterRun(by_hand).train(trajectories, [])
    assert results(config) == results(by_hand)
    settings = json.loads((Path(config.output) / "training.json").read_text())["settings"]
    assert made(SFTConfig, settings) == config


def test_problems_that_are_trained_on_are_no_evaluation(job: Job) -> None:
    config = job()
    evaluated = {"evaluate_every": 2, "evaluate_task": "jsonl", "evaluate_data": config.data}
    sizes = {"evaluate_prompt_format": "text", "evaluate_gen_length": 4, "evaluate_block_length": 4}
    with pytest.raises(
        ValueError, match=r"trajectories hold 4 of its 4 problems, such as '.*'; expected problems that"
    ):
        sft(job(**evaluated, **sizes))


def test_it_goes_on_where_it_was(job: Job, tmp_path: Path) -> None:
    whole, stopped = job(output=str(tmp_path / "whole")), job(output=str(tmp_path / "stopped"))
    sft(whole)
    real = Trainer._accumulate

    def stop(trainer: Trainer, own: Any) -> Any:
        if trainer.step == 5:
            raise KeyboardInterrupt
        return real(trainer, own)

    with mock.patch.object(Trainer, "_accumulate", stop), pytest.raises(KeyboardInterrupt):
        sft(stopped)
    assert [path.name for path in Path(stopped.output).glob("checkpoint-*")] == ["checkpoint-000005"]
    (tmp_path / "elsewhere.jsonl").write_text((tmp_path / "responses.jsonl").read_text())
    with pytest.raises(ValueError, match=r"checkpoint-000005 of another run: gen_length was None, this run has 7"):
        sft(job(output=stopped.output, gen_length=7))
    sft(job(output=stopped.output, data=str(tmp_path / "elsewhere.jsonl")))
    assert results(stopped) == results(whole)


def test_it_is_a_command(job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = job()
    given = [f"--{name}={getattr(config, name)}" for name in ("model", "data", "output")]
    assert main(["sft", *given, "--prompt-format=text", "--rank=2", "--max-steps=1", "--device=cpu"]) == 0
    assert "4 responses, on canvases of 4\n" in capsys.readouterr().out
    assert (Path(config.output) / "adapter" / "adapter_config.json").exists()
    assert main(["sft", *given, "--objective=tad"]) == 2
    assert main(["sft", *given, "--delta=3"]) == 2


def test_responses_that_do_not_fit_are_named(job: Job) -> None:
    with pytest.raises(ValueError, match=r"responses.jsonl, line 1: prompt_ids and response_ids need 32 positions"):
        sft(job(gen_length=30))
    with pytest.raises(FileNotFoundError, match=r"data is 'nowhere.jsonl', which is not a file"):
        sft(job(data="nowhere.jsonl"))
    assert not Path(job().output).exists()
