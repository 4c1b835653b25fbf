"""What a collection keeps: right answers, the teacher's own canvases, samples of its seed."""

from pathlib import Path

import pytest
from collection_runs import BLOCK_LENGTH, GEN_LENGTH, LenientTask, config, rows

from tad_ext.data.arithmetic import arithmetic_tokenizer
from tad_ext.data.tasks import Problem
from tad_ext.data.trajectories import read_parts, read_trajectories
from tad_ext.decoding import DecodeConfig, decode
from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.run import CollectSummary, collect
from tad_ext.models.loading import load_model


def test_right_answers_are_kept_with_both_prompts(model: str, tmp_path: Path) -> None:
    summary = collect(config(model, tmp_path))
    task, tokenizer = LenientTask(), arithmetic_tokenizer()
    problems = task.problems("train", limit=20, seed=0)
    metadata, found = read_trajectories(tmp_path)
    by_id = {row.id: row for row in found}
    assert 0 < len(found) < 20
    assert [row.id for row in found] == [item.id for item in problems if item.id in by_id]
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
    ranges = [(part.problems.start, part.problems.stop) for part in parts if part.problems]
    assert ranges == [(0, 8), (8, 16), (16, 20)]
    assert sum(part.problems.right for part in parts if part.problems) == len(found)
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
    assert [row.id for row in found] == [item.id for item in LenientTask().problems("train", limit=20, seed=0)]
    assert [row for row in found if row.correct] == rows(tmp_path / "correct")
    task, tokenizer = LenientTask(), arithmetic_tokenizer()
    for row in found:
        assert row.answer == (tokenizer.decode(row.response_ids).split("<eos>")[0].replace("<pad>", "") or None)
        problem = Problem(row.id, "", row.reference, "")
        assert row.correct == task.is_correct(problem, row.answer or "")
    assert (summary.kept, summary.accuracy) == (20, expected.accuracy)
    assert 0 < summary.accuracy < 1
    pairs = zip(read_parts(tmp_path / "all"), read_parts(tmp_path / "correct"), strict=True)
    assert all(one.problems == other.problems for one, other in pairs)


def test_a_unit_without_a_right_answer_is_done_too(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LenientTask, "is_correct", lambda *_: False)
    summary = collect(config(model, tmp_path))
    assert (summary.problems, summary.kept, summary.accuracy, summary.mean_steps) == (20, 0, 0.0, 0.0)
    assert [part.problems.wrong for part in read_parts(tmp_path) if part.problems] == [8, 8, 4]
    monkeypatch.setattr(collection, "load_model", None)  # nothing is left to decode: no model is loaded
    assert collect(config(model, tmp_path)).problems == 20


def test_the_teacher_answers_its_own_prompt(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path))
    by_id = {row.id: row for row in rows(tmp_path)}
    task, tokenizer = LenientTask(), arithmetic_tokenizer()
    problems = task.problems("train", limit=20, seed=0)
    prompts = [task.teacher_prompt(problem, tokenizer) for problem in problems]
    settings = DecodeConfig(GEN_LENGTH, BLOCK_LENGTH, stop_at_eos=False, temperature=1.0, seed=0)
    result = decode(load_model(model, device="cpu"), prompts, settings)
    for index, problem in enumerate(problems):
        if problem.id in by_id:
            assert by_id[problem.id].response_ids.tolist() == result.canvases()[index]
            assert by_id[problem.id].reveal_step.tolist() == result.reveal_step[index].tolist()


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
        collect(config(model, tmp_path / str(seed), seed=seed, temperature=9.0))  # so hot that chance repeats nothing
    responses = [tuple(row.response_ids) for seed in (0, 1) for row in rows(tmp_path / str(seed))]
    assert len(set(responses)) == len(responses) == 40
