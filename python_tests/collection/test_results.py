"""What a collection keeps: right answers, the teacher's own canvases, samples of its seed."""

import shutil
from pathlib import Path

import pytest
from collection_runs import BLOCK_LENGTH, GEN_LENGTH, LenientTask, config, rows
from every_family import edit_json

from tad_ext.data.tasks.arithmetic import arithmetic_tokenizer
from tad_ext.data.tasks.task import Problem
from tad_ext.data.trajectories.files import read_parts, read_trajectories
from tad_ext.decoding import DecodeConfig
from tad_ext.decoding.loop import decode_stream
from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.plan import CollectionPlan
from tad_ext.jobs.collect.run import CollectSummary, collect
from tad_ext.models.loading import load_model


def test_right_answers_are_kept_with_both_prompts(model: str, tmp_path: Path) -> None:
    summary = collect(config(model, tmp_path))
    task, tokenizer = LenientTask(), arithmetic_tokenizer()
    problems = task.problems("train", limit=20, seed=0)
    (metadata,), found = read_trajectories(tmp_path)
    by_id = {row.id: row for row in found}
    assert 0 < len(found) < 20
    for problem in problems:
        if problem.id not in by_id:
            continue
        row = by_id[problem.id]
        assert row.prompt_ids.tolist() == task.student_prompt(problem, tokenizer)
        assert row.teacher_prompt_ids.tolist() == task.teacher_prompt(problem, tokenizer)
        assert row.prompt_ids.tolist() != row.teacher_prompt_ids.tolist()
        assert row.reference == problem.reference
        assert row.correct
        assert row.task == "arithmetic"
        blocks = row.reveal_step.reshape(-1, BLOCK_LENGTH)  # one token per forward, block after block
        assert [sorted(block) for block in blocks.tolist()] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
        assert row.num_steps == GEN_LENGTH
        assert tokenizer.mask_token_id not in row.response_ids
    parts = read_parts(tmp_path)
    assert [sorted(part.keys) for part in parts] == [
        sorted((problem.id, 0) for problem in problems[start : start + 8]) for start in (0, 8, 16)
    ]
    assert sum(part.right for part in parts) == len(found)
    assert (metadata.task, metadata.policy, metadata.temperature, metadata.seed) == ("arithmetic", "topk:1", 1.0, 0)
    assert (metadata.gen_length, metadata.block_length, metadata.stop_at_eos) == (GEN_LENGTH, BLOCK_LENGTH, False)
    assert metadata.mask_token_id == tokenizer.mask_token_id
    assert metadata.dtype == "float32"
    expected = CollectSummary(20, 20, len(found), len(found) / 20, GEN_LENGTH, summary.seconds)
    assert summary == expected
    assert str(len(found)) in str(summary)


def test_wrong_answers_are_kept_and_marked_if_asked_for(model: str, tmp_path: Path) -> None:
    summary = collect(config(model, tmp_path / "all", keep="all"))
    expected = collect(config(model, tmp_path / "correct"))
    found = rows(tmp_path / "all")
    assert {row.id for row in found} == {item.id for item in LenientTask().problems("train", limit=20, seed=0)}
    assert [row for row in found if row.correct] == rows(tmp_path / "correct")
    task, tokenizer = LenientTask(), arithmetic_tokenizer()
    for row in found:
        assert row.answer == (tokenizer.decode(row.response_ids).split("<eos>")[0].replace("<pad>", "") or None)
        problem = Problem(row.id, "", row.reference, "")
        assert row.correct == task.is_correct(problem, row.answer or "")
    assert (summary.kept, summary.accuracy) == (20, expected.accuracy)
    assert 0 < summary.accuracy < 1
    pairs = zip(read_parts(tmp_path / "all"), read_parts(tmp_path / "correct"), strict=True)
    assert all(sorted(one.keys) == sorted(other.keys) for one, other in pairs)


def test_a_unit_without_a_right_answer_is_done_too(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LenientTask, "is_correct", lambda *_: False)
    summary = collect(config(model, tmp_path))
    assert (summary.decoded, summary.kept, summary.accuracy, summary.mean_steps) == (20, 0, 0.0, 0.0)
    assert [len(part.coverage.wrong) for part in read_parts(tmp_path) if part.coverage] == [8, 8, 4]
    monkeypatch.setattr(collection, "load_model", None)  # nothing is left to decode: no model is loaded
    assert collect(config(model, tmp_path)).decoded == 20


def test_the_teacher_answers_its_own_prompt(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path))
    by_id = {row.id: row for row in rows(tmp_path)}
    task, tokenizer = LenientTask(), arithmetic_tokenizer()
    problems = task.problems("train", limit=20, seed=0)
    settings = DecodeConfig(GEN_LENGTH, BLOCK_LENGTH, stop_at_eos=False, temperature=1.0, seed=0)
    prompts = [task.teacher_prompt(problem, tokenizer) for problem in problems]
    plan = CollectionPlan.make(config(model, tmp_path))
    numbers = [plan.stream((problem.id, 0)) for problem in problems]
    for one in decode_stream(load_model(model, device="cpu"), prompts, settings, numbers=numbers):
        row = by_id.get(problems[numbers.index(one.number)].id)
        if row is not None:
            assert (row.response_ids.tolist(), row.reveal_step.tolist()) == (one.canvas, one.reveal_step)


def test_the_seed_decides_what_is_sampled(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = LenientTask().problems("train", limit=20, seed=0)
    monkeypatch.setattr(LenientTask, "problems", lambda *_, **__: problems, raising=False)
    monkeypatch.setattr(LenientTask, "is_correct", lambda *_: True)
    for seed in (0, 1):
        collect(config(model, tmp_path / str(seed), seed=seed))
    pairs = list(zip(rows(tmp_path / "0"), rows(tmp_path / "1"), strict=True))
    assert sum((one.response_ids != other.response_ids).any() for one, other in pairs) > 15


def test_no_random_stream_is_used_twice(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LenientTask, "teacher_prompt", lambda *_: [5, 6, 7], raising=False)
    monkeypatch.setattr(LenientTask, "is_correct", lambda *_: True)
    for seed in (0, 1):
        # So hot that chance repeats nothing.
        collect(config(model, tmp_path / str(seed), seed=seed, temperature=9.0, samples=3))
    responses = [tuple(row.response_ids) for seed in (0, 1) for row in rows(tmp_path / str(seed))]
    assert len(set(responses)) == len(responses) == 120


def test_more_samples_of_a_problem_are_more_answers(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path / "one", keep="all"))
    collect(config(model, tmp_path / "both", keep="all", samples=2))
    assert collect(config(model, tmp_path / "one", keep="all", samples=2)).decoded == 40
    assert rows(tmp_path / "one") == rows(tmp_path / "both")
    assert [row.sample for row in rows(tmp_path / "one")] == [0, 1] * 20


def test_a_published_preset_brings_its_own_lengths(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path / "dream", preset="tad-collect-dream", gen_length=12, limit=3, temperature=0.5))
    (metadata,), _ = read_trajectories(tmp_path / "dream")
    assert (metadata.policy, metadata.temperature, metadata.top_p) == ("entropy:0.0", 0.5, 0.95)
    assert (metadata.gen_length, metadata.block_length) == (12, 12)


def test_of_a_model_with_blocks_of_its_own(model: str, tmp_path: Path) -> None:
    """What its last block has beyond the canvas takes forwards, and is no part of the trajectory."""
    causal = str(shutil.copytree(model, tmp_path / "model"))
    edit_json(Path(causal) / "config.json", lambda fields: fields.update(causal_block_length=4))
    own = {"policy": "topk:1", "block_length": 4, "gen_length": 8, "cache": "block", "keep": "all", "temperature": 0.0}
    collect(config(causal, tmp_path / "out", **own))
    for row in rows(tmp_path / "out"):
        assert len(row.response_ids) == 8
        assert row.num_steps == row.reveal_step.max() >= 8
        assert all((row.reveal_step > step).any() for step in range(row.num_steps))
    for changes, message in (
        ({"block_length": 2}, "block_length is 2, and the model attends to blocks of 4"),
        ({"cache": "prefix"}, "cache is prefix, and attention is block-causal"),
        (
            {"policy": "rho-eos", "cache": "none"},
            "policy is rho-eos:.*, which changes tokens that it has set, or moves them",
        ),
        ({"policy": "block-edit"}, "policy is block-edit:0.95, which changes tokens that it has set"),
    ):
        with pytest.raises(ValueError, match=message):
            collect(config(causal, tmp_path / "other", **(own | changes)))
    assert not (tmp_path / "other").exists()
