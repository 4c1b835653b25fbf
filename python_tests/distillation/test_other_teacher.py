"""`tad distill --teacher`: another checkpoint is the teacher."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distillation_worker import Worker

from tad_ext.distillation import adapter_run
from tad_ext.distillation.adapter_run import TrainedAdapter
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill
from tad_ext.models import load_model, load_tokenizer

Job = Callable[..., DistillConfig]


@pytest.fixture
def teacher(job: Job, make_model: Any, tmp_path: Path) -> Callable[..., str]:
    """A folder with another model and the same tokenizer."""

    def make(name: str = "teacher", seed: int = 1, **changes: Any) -> str:
        folder = str(tmp_path / name)
        load_tokenizer(job().model).save_pretrained(folder)
        make_model(seed, **changes).save_pretrained(folder)
        return folder

    return make


def losses(result: TrainedAdapter) -> list[float]:
    return [record.loss for record in result.history]


def test_a_copy_of_the_model_teaches_as_the_model_does(job: Job, tmp_path: Path, teacher: Any) -> None:
    own = distill(job(max_steps=4, output=str(tmp_path / "own")))
    copy = distill(job(max_steps=4, output=str(tmp_path / "copy"), teacher=teacher(seed=0)))
    assert losses(copy) == pytest.approx(losses(own), rel=1e-4)
    other = distill(job(max_steps=4, output=str(tmp_path / "wide"), teacher=teacher("other", hidden_size=16)))
    assert abs(losses(other)[0] - losses(own)[0]) > 1e-3
    settings = json.loads((tmp_path / "wide" / "training.json").read_text())["settings"]
    assert settings["teacher"] == str(tmp_path / "other")


def test_the_teacher_stays_as_it_is_and_has_the_models_dtype(
    job: Job, teacher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    monkeypatch.setattr(adapter_run, "load_model", lambda *a, **k: loaded.append(load_model(*a, **k)) or loaded[-1])
    folder = teacher()
    distill(job(max_steps=3, dtype="bfloat16", dropout=0.3, teacher=folder))
    _, other = loaded
    before = load_model(folder, dtype="bfloat16").state_dict()
    assert all(tensor.equal(before[name]) for name, tensor in other.state_dict().items())
    assert not any(one.requires_grad for one in other.parameters())


def test_a_teacher_of_other_tokens_is_refused(job: Job, teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter_run, "load_model", None)
    with pytest.raises(ValueError, match=r"^teacher '.*' has vocab_size 25, the model's is 24; expected the same"):
        distill(job(teacher=teacher(vocab_size=25)))
    folder = Path(teacher("renamed"))
    words = json.loads((folder / "tokenizer.json").read_text())
    words["model"]["vocab"] = {**words["model"]["vocab"], "3": 4, "4": 3}
    (folder / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(ValueError, match=r"^teacher '.*' has tokenizer of hash .*; expected the same"):
        distill(job(teacher=str(folder)))


def test_a_teacher_that_is_too_short_is_refused(job: Job, teacher: Any) -> None:
    with pytest.raises(ValueError, match=r"teacher_prompt_ids and response_ids need .* the model has 12"):
        distill(job(teacher=teacher(max_position_embeddings=12)))


def test_who_asks_no_teacher_refuses_one(job: Job, teacher: Any) -> None:
    for name, changes in (("ce_all", {"objective": "ce_all"}), ("tad", {"kl_weight": 0.0})):
        for what in ({"teacher": teacher(name)}, {"teacher_prompt": "none"}):
            with pytest.raises(ValueError, match=rf"^teacher.* is '.*'; objective '{name}' asks no teacher"):
                distill(job(**changes, **what))


@pytest.mark.slow
def test_it_goes_on_with_the_same_teacher_wherever_it_lies_and_in_two_halves(
    job: Job, teacher: Any, tmp_path: Path
) -> None:
    settings = job(max_steps=6, batch_size=2, accumulation=1, teacher=teacher())
    worker = Worker()
    whole = dataclasses.replace(settings, output=str(tmp_path / "whole"))
    assert worker.run(whole, ranks=2) == [0, 0]
    stopped = dataclasses.replace(settings, output=str(tmp_path / "stopped"), shard_model=True)
    assert 0 not in worker.run(stopped, ranks=2, stop_at=3)
    changed = dataclasses.replace(
        stopped,
        teacher=teacher("other", seed=2),
        training=dataclasses.replace(stopped.training, accumulation=2),
    )
    with pytest.raises(
        ValueError, match=r"-000003 of another run: another teacher: other weights in model\.safetensors;"
    ):
        distill(changed)
    assert worker.run(dataclasses.replace(stopped, teacher=teacher("moved")), ranks=2) == [0, 0]
    one, other = (tmp_path / name / "adapter" / "adapter_model.safetensors" for name in ("whole", "stopped"))
    assert one.read_bytes() == other.read_bytes()
