"""Collection: what is kept, what is refused, and that kills, ranks and batch sizes leave no trace in the result.

Run as a script this file is the worker of the kill tests: it imports once and forks a fresh `collect` for each line of
stdin.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from problem_files import GSM8K_SAMPLE

from tad_ext import collection, collection_plan
from tad_ext.collection import CollectConfig, CollectSummary, collect
from tad_ext.collection_plan import open_units
from tad_ext.data.arithmetic import arithmetic_tokenizer
from tad_ext.data.tasks import Problem, get_task
from tad_ext.data.trajectories import ProblemRange, Trajectory, read_parts, read_trajectories, write_part
from tad_ext.decoding import DecodeConfig, decode
from tad_ext.models.loading import load_model, save_model
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

GEN_LENGTH, BLOCK_LENGTH = 12, 4


class LenientTask:
    """The arithmetic task with a verifier that a random model can please: about two answers in three count as right."""

    def __init__(self, **options: Any) -> None:
        self._task = get_task("arithmetic", **options)
        self.gen_length, self.block_length = GEN_LENGTH, BLOCK_LENGTH

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def is_correct(self, problem: Problem, text: str) -> bool:
        return zlib.crc32(f"{problem.id} {text}".encode()) % 3 > 0

    def extract_answer(self, text: str) -> str | None:
        return text or None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("model") / "tiny", seed=0)


def make_model(path: Path, *, seed: int, positions: int = 128) -> str:
    tokenizer = arithmetic_tokenizer()
    torch.manual_seed(seed)
    config = TinyDiffusionConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
        max_position_embeddings=positions,
        mask_token_id=tokenizer.mask_token_id,
        eos_token_ids=[tokenizer.eos_token_id],
        suppress_token_ids=[],
    )
    save_model(TinyDiffusionLM(config), tokenizer, path)
    return str(path)


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_plan, "get_task", lambda name, **_: LenientTask())
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(1)


def config(model: str, output: Path, **changes: Any) -> CollectConfig:
    settings: dict[str, Any] = {"limit": 20, "unit_size": 8, "batch_size": 3, "temperature": 1.0, "device": "cpu"}
    return CollectConfig(model=model, output=str(output), **{**settings, **changes})


def rows(folder: Path) -> list[Trajectory]:
    return read_trajectories(folder)[1]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


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


def test_units_batches_and_ranks_leave_no_trace(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(config(model, tmp_path / "plain"))
    collect(config(model, tmp_path / "units", unit_size=5, batch_size=20))
    for rank in (2, 0, 1):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("RANK", str(rank))
        summary = collect(config(model, tmp_path / "ranks", unit_size=4))
    assert summary.problems == summary.total == 20  # the last one counts everything
    assert {name[:10] for name in files(tmp_path / "ranks")} == {"part-00000", "part-00001", "part-00002"}
    assert rows(tmp_path / "plain") == rows(tmp_path / "units") == rows(tmp_path / "ranks")


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


@given(
    st.integers(1, 60), st.integers(1, 16), st.lists(st.integers(0, 59), unique=True, max_size=12), st.integers(1, 5)
)
def test_units_cover_what_is_left_exactly_once(problems: int, unit_size: int, starts: list[int], length: int) -> None:
    covered: list[ProblemRange] = []
    for start in sorted(starts):
        stop = min(start + length, problems)
        if stop > start >= (covered[-1].stop if covered else 0):
            covered.append(ProblemRange(start, stop, 0, stop - start, ""))
    units = list(open_units(problems, covered, unit_size))
    done = [index for item in covered for index in range(item.start, item.stop)]
    assert sorted([*done, *(index for unit in units for index in unit)]) == list(range(problems))
    assert all(unit.start // unit_size == (unit.stop - 1) // unit_size for unit in units)  # so that one rank owns it


def test_a_unit_without_a_right_answer_is_done_too(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LenientTask, "is_correct", lambda *_: False)
    summary = collect(config(model, tmp_path))
    assert (summary.problems, summary.kept, summary.accuracy, summary.mean_steps) == (20, 0, 0.0, 0.0)
    assert [part.problems.wrong for part in read_parts(tmp_path) if part.problems] == [8, 8, 4]
    monkeypatch.setattr(collection, "load_model", None)  # nothing is left to decode: no model is loaded
    assert collect(config(model, tmp_path)).problems == 20


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


@pytest.mark.parametrize(("before", "after", "found"), [("all", "correct", 2), ("correct", "all", 1)])
def test_what_is_kept_does_not_change_in_between(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, found: int
) -> None:
    right = LenientTask().problems("train", limit=1, seed=0)[0].id
    monkeypatch.setattr(LenientTask, "is_correct", lambda _, problem, text: problem.id == right)
    collect(config(model, tmp_path, limit=2, keep=before))
    message = rf"was not collected with keep = '{after}': it holds {found} trajectories of 2 problems, 1 of them right"
    with pytest.raises(ValueError, match=message):
        collect(config(model, tmp_path, limit=2, keep=after))


def test_more_problems_continue_and_fewer_are_refused(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path / "grown", limit=11))
    before = files(tmp_path / "grown")
    collect(config(model, tmp_path / "grown", limit=20))
    assert files(tmp_path / "grown").items() > before.items()
    collect(config(model, tmp_path / "plain"))
    assert rows(tmp_path / "grown") == rows(tmp_path / "plain")
    with pytest.raises(
        ValueError, match=r"limit: .*00000008.parquet covers problems up to number 16, this run has 12 only"
    ):
        collect(config(model, tmp_path / "plain", limit=12))


def test_only_missing_units_are_decoded(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(config(model, tmp_path))
    whole = files(tmp_path)
    (tmp_path / "part-00000-00000008.parquet").unlink()
    decoded: list[int] = []
    real = collection.decode

    def counted(model: Any, prompts: Any, *arguments: Any, **options: Any) -> Any:
        decoded.append(len(prompts))
        return real(model, prompts, *arguments, **options)

    monkeypatch.setattr(collection, "decode", counted)
    collect(config(model, tmp_path))
    assert decoded == [8]
    assert files(tmp_path) == whole


@pytest.mark.parametrize(
    ("setting", "found", "wanted"),
    [
        ({"temperature": 0.5}, "1.0", "0.5"),
        ({"gen_length": 8}, "12", "8"),
        ({"block_length": 12}, "4", "12"),
        ({"stop_at_eos": True}, "False", "True"),
        ({"split": "test"}, "'train'", "'test'"),
        ({"dtype": "bfloat16"}, "'float32'", "'bfloat16'"),
        ({"seed": 1}, "0", "1"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], found: str, wanted: str
) -> None:
    collect(config(model, tmp_path, limit=2))
    before = files(tmp_path)
    monkeypatch.setattr(collection, "load_model", None)
    (name,) = setting
    message = rf"output: .*part-00000-00000000.parquet was collected with {name} = {found}, this run has {wanted}"
    with pytest.raises(ValueError, match=message):
        collect(config(model, tmp_path, limit=2, **setting))
    assert files(tmp_path) == before


def test_another_model_and_other_problems_are_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    collect(config(model, output, limit=2))
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match="was collected with model_revision = "):
        collect(config(other, output, limit=2))
    real = LenientTask().teacher_prompt
    monkeypatch.setattr(LenientTask, "teacher_prompt", lambda _, *given: [*real(*given), 5], raising=False)
    with pytest.raises(ValueError, match=r"part-00000-00000000.parquet was collected from other problems or prompts"):
        collect(config(model, output, limit=2))


def test_a_damaged_part_is_named_and_kept(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path, limit=2))
    path = tmp_path / "part-00000-00000000.parquet"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"{path}: expected a complete Parquet file"):
        collect(config(model, tmp_path, limit=2))
    assert path.exists()
    path.unlink()
    collect(config(model, tmp_path, limit=2))
    metadata, found = read_trajectories(tmp_path)
    write_part(path, metadata, found)  # as a converter would: it covers no problems of a task
    with pytest.raises(ValueError, match="does not name the problems it covers"):
        collect(config(model, tmp_path, limit=2))


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"limit": 0}, ValueError, "limit must be at least 1 or None, got 0"),
        ({"unit_size": 0}, ValueError, r"unit_size must be in \[1, 256\], got 0"),
        ({"unit_size": 257}, ValueError, r"unit_size must be in \[1, 256\], got 257"),
        ({"seed": -1}, ValueError, r"seed must be .*, got -1"),
        ({"seed": 2**30}, ValueError, "seed must be"),
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
    ],
)
def test_bad_settings_are_named_before_anything_is_done(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], error: Any, message: str
) -> None:
    monkeypatch.setattr(collection, "load_model", None)
    settings = dataclasses.replace(config(model, tmp_path / "out"), **setting)
    with pytest.raises(error, match=message):
        collect(settings)
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
    monkeypatch.setattr(collection_plan, "get_task", get_task)
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


def test_only_this_ranks_leftovers_are_removed(model: str, tmp_path: Path) -> None:
    kept = [".tmp-01234567-part-00001-00000000.parquet", "notes.txt"]
    for name in [*kept, ".tmp-89abcdef-part-00000-00000008.parquet"]:
        (tmp_path / name).write_text("half")
    collect(config(model, tmp_path, limit=2))
    assert list(files(tmp_path)) == [kept[0], kept[1], "part-00000-00000000.parquet"]


def test_a_second_run_in_the_same_folder_is_noticed(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(config(model, tmp_path / "other", limit=2))
    real = collection.decode

    def slow(*arguments: Any, **options: Any) -> Any:
        written = tmp_path / "other" / "part-00000-00000000.parquet"
        written.rename(tmp_path / "out" / "part-00003-00000000.parquet")
        return real(*arguments, **options)

    monkeypatch.setattr(collection, "decode", slow)
    with pytest.raises(RuntimeError, match=r"part-00003-00000000.parquet appeared .* another run is writing"):
        collect(config(model, tmp_path / "out", limit=2))
    assert len(rows(tmp_path / "out")) <= 2  # still sound


class Worker:
    """Runs `collect` in forks of one helper process, to be killed."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def run(self, settings: CollectConfig, *, kill_after: float | None = None, **options: Any) -> int:
        """Exit status of one run as waitpid gives it: 0, or the signal. ``options``: rank, world_size, die_at (see
        main).
        """
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps({"settings": dataclasses.asdict(settings), **options}), file=self.process.stdin, flush=True)
        pid = int(self.process.stdout.readline())
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)  # a zombie at worst: the worker waits for "reap" before it forgets the child
        print("reap", file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    assert worker.process.stdin
    worker.process.stdin.close()
    worker.process.wait(timeout=30)


def test_killed_at_random_moments_and_started_again(model: str, tmp_path: Path, worker: Worker) -> None:
    settings = config(model, tmp_path / "killed", limit=48, unit_size=4)
    undisturbed = dataclasses.replace(settings, output=str(tmp_path / "plain"))
    started = time.perf_counter()
    assert worker.run(undisturbed) == 0
    duration = time.perf_counter() - started
    draw = random.Random(0)
    kills = 0
    for _ in range(6):
        kills += worker.run(settings, kill_after=draw.uniform(0, 0.8 * duration)) == signal.SIGKILL
    assert kills >= 1
    assert worker.run(settings) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "plain")  # byte for byte, and no temporary file


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_a_file_gets_its_name(model: str, tmp_path: Path, worker: Worker, moment: str) -> None:
    settings = config(model, tmp_path / "killed")
    assert worker.run(dataclasses.replace(settings, output=str(tmp_path / "plain"))) == 0
    for expected in ([], ["part-00000-00000000.parquet"]) if moment == "before" else (["part-00000-00000000.parquet"],):
        assert worker.run(settings, die_at=(moment, len(expected) if moment == "before" else 0)) == signal.SIGKILL
        present = list(files(tmp_path / "killed"))
        assert [name for name in present if not name.startswith(".tmp-")] == expected
        assert len(present) - len(expected) == (moment == "before")
    assert worker.run(settings) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "plain")


def test_killed_and_continued_by_another_number_of_ranks(model: str, tmp_path: Path, worker: Worker) -> None:
    settings = config(model, tmp_path / "killed", unit_size=2)
    collect(dataclasses.replace(settings, output=str(tmp_path / "plain")))
    for world_size in (2, 3):
        for rank in range(world_size):
            status = worker.run(settings, rank=rank, world_size=world_size, die_at=("before", 1))
            assert status == signal.SIGKILL
    assert worker.run(settings) == 0
    assert rows(tmp_path / "killed") == rows(tmp_path / "plain")
    parts = read_parts(tmp_path / "killed")
    assert [part.problems for part in parts] == [part.problems for part in read_parts(tmp_path / "plain")]
    assert len({part.path.name[:10] for part in parts}) == 3  # what killed ranks had finished was kept


def main() -> None:
    """The worker: one JSON line per run on stdin; prints the fork's process id and, after a line "reap", its exit
    status.

    ``die_at = (moment, n)`` makes the run kill itself before or after its rename number n (from 0) of a finished file.
    """
    torch.set_num_threads(1)
    collection_plan.get_task = lambda name, **_: LenientTask()  # type: ignore[assignment]
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)
            os.environ |= {"RANK": str(job.get("rank", 0)), "WORLD_SIZE": str(job.get("world_size", 1))}
            if "die_at" in job:
                os.replace = _deadly(os.replace, *job["die_at"])  # type: ignore[assignment]
            status = 1
            try:
                collect(CollectConfig(**job["settings"]))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(pid, flush=True)
        assert sys.stdin.readline() == "reap\n"
        print(os.waitpid(pid, 0)[1], flush=True)


def _deadly(replace: Any, moment: str, number: int) -> Any:
    calls = iter(range(sys.maxsize))

    def replace_or_die(*arguments: Any) -> None:
        due = next(calls) == number
        if not (due and moment == "before"):
            replace(*arguments)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)

    return replace_or_die


if __name__ == "__main__":
    main()


@pytest.mark.parametrize("model_type", ["bert", "llada_moe"])
def test_a_model_without_a_class_is_refused_by_name(tmp_path, model_type):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
    with pytest.raises(ValueError, match=f"names model_type '{model_type}'; supported are"):
        collect(CollectConfig(model=str(folder), output=str(tmp_path / "out"), limit=4))
    assert not (tmp_path / "out").exists()
