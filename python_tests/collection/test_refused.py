"""What a collection refuses before anything is done."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from collection_runs import BLOCK_LENGTH, GEN_LENGTH, LenientTask, config
from problem_files import GSM8K_SAMPLE

from tad_ext.data.tasks.task import get_task
from tad_ext.jobs import common
from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.jobs.collect.run import collect
from tad_ext.settings import made, values_of


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"limit": 0}, ValueError, "limit must be .*, got 0"),
        ({"unit_size": 0}, ValueError, r"unit_size must be an integer in \[1, 256\], got 0"),
        ({"unit_size": 257}, ValueError, r"unit_size must be an integer in \[1, 256\], got 257"),
        ({"seed": -1}, ValueError, r"seed must be .*, got -1"),
        ({"samples": 2, "temperature": 0.0}, ValueError, "samples is 2 and temperature is 0, which gives the same"),
        ({"samples": 0}, ValueError, r"samples must be an integer in \[1, 1000\], got 0"),
        ({"split": "dev"}, ValueError, "split must be one of train, test, got 'dev'"),
        ({"keep": "wrong"}, ValueError, "keep must be one of correct, all, got 'wrong'"),
        ({"gen_length": 10}, ValueError, "gen_length must be a multiple of block_length"),
        ({"temperature": float("nan")}, ValueError, "temperature must be"),
        ({"temperature": -1.0}, ValueError, "temperature must be"),
        ({"batch_size": 0}, ValueError, "batch_size must be"),
        ({"gen_length": 124}, ValueError, r"has a prompt of .* tokens, expected at most 4"),
        ({"device": "abacus"}, ValueError, "device must be"),
        ({"dtype": "int8"}, ValueError, "dtype must be"),
        ({"model": "missing"}, ValueError, "missing"),
        ({"output": ""}, ValueError, "output must be"),
        ({"output": "/proc/x"}, ValueError, "output must be a folder that .*, got '/proc/x'"),
        ({"output": "/proc"}, ValueError, "output must be a folder that .*, got '/proc'"),
    ],
)
def test_bad_settings_are_named_before_anything_is_done(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], error: Any, message: str
) -> None:
    monkeypatch.setattr(collection, "load_model", None)
    settings = values_of(config(model, tmp_path / "out")) | setting
    with pytest.raises(error, match=message):
        collect(made(CollectConfig, settings))
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file(model: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(ValueError, match="output must be a folder"):
        collect(config(model, tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.parametrize(("rank", "world_size"), [("1", "1"), ("-1", "2"), ("x", "2"), ("0", "0")])
def test_ranks_that_cannot_be(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: str, world_size: str
) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ValueError, match="RANK"):
        collect(config(model, tmp_path))


def test_tasks_with_repeated_or_no_problems(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = LenientTask().problems("train", limit=1, seed=0)
    monkeypatch.setattr(LenientTask, "problems", lambda *_, **__: first * 2, raising=False)
    with pytest.raises(ValueError, match=r"gives the problem id .* twice"):
        collect(config(model, tmp_path))
    monkeypatch.setattr(LenientTask, "problems", lambda *_, **__: [], raising=False)
    with pytest.raises(ValueError, match="has no problems in split 'train'"):
        collect(config(model, tmp_path))


def test_a_teacher_without_a_privilege_is_refused(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setattr(LenientTask, "teacher_prompt", LenientTask().student_prompt, raising=False)
        with pytest.raises(ValueError, match="gives its teacher nothing that its student does not see"):
            collect(config(model, tmp_path))
    bare = [dataclasses.replace(one, reference="") for one in LenientTask().problems("train", limit=2, seed=0)]
    monkeypatch.setattr(LenientTask, "problems", lambda *_, **__: bare, raising=False)
    with pytest.raises(ValueError, match=r"problem 'arithmetic-.*' gives its teacher nothing"):
        collect(config(model, tmp_path))


def test_the_tasks_own_settings_reach_it(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "get_task", get_task)
    monkeypatch.setattr(collection, "load_model", None)
    gsm8k = {"task": "gsm8k", "gen_length": GEN_LENGTH, "block_length": BLOCK_LENGTH}
    refused: list[tuple[dict[str, Any], Any, str]] = [
        ({"data": "file.jsonl"}, ValueError, "task 'arithmetic' has no option 'data', got 'file.jsonl'"),
        (gsm8k, ValueError, "task 'gsm8k' needs data"),
        (gsm8k | {"data": "file.jsonl"}, FileNotFoundError, "data is 'file.jsonl', which is not a file"),
        (gsm8k | {"data": "file.jsonl", "teacher_prompt": "tutor"}, ValueError, "teacher_prompt must be one of user"),
        (gsm8k | {"data": str(GSM8K_SAMPLE)}, ValueError, "the model's tokenizer has no chat template"),
    ]
    for settings, error, message in refused:
        with pytest.raises(error, match=message):
            collect(config(model, tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model_type", ["bert", "llada_moe"])
def test_a_model_without_a_class_is_refused_by_name(tmp_path, model_type):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    with pytest.raises(ValueError, match=f"names model_type '{model_type}'; supported are"):
        collect(CollectConfig(model=str(folder), output=str(tmp_path / "out"), limit=4))
    assert not (tmp_path / "out").exists()
