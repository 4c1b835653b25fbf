"""An evaluation that was killed and started again, or shared by processes, finds what an undisturbed one does."""

import dataclasses
import json
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from collection_runs import LenientTask, make_model

from python_tests.evaluation.evaluation_worker import EvaluationWorker
from tad_ext.jobs import common
from tad_ext.jobs.evaluate import run as evaluation
from tad_ext.jobs.evaluate.config import EvaluateConfig
from tad_ext.jobs.evaluate.run import evaluate
from tad_ext.settings import made
from tad_ext.sharing.claims import _space

FILES = {"evaluation.json", "evaluation.md", "responses.jsonl", "accuracy_curve.png"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_model(tmp_path_factory.mktemp("model") / "tiny", seed=0)


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "get_task", lambda name, **_: LenientTask())
    monkeypatch.setattr(evaluation, "WAIT", 0.1)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def worker() -> EvaluationWorker:
    return EvaluationWorker()


def config(model: str, output: Path, **changes: Any) -> EvaluateConfig:
    """Two runs of a sweep, another policy and a preset, sampled, so that random numbers are seen."""
    settings: dict[str, Any] = {
        "model": model, "output": str(output), "limit": 40, "thresholds": [0.5], "policies": ["topk:3"],
        "presets": ["fast-dllm"], "gen_length": 12, "block_length": 4, "temperature": 1.0, "batch_size": 3,
        "bootstrap_samples": 100, "device": "cpu",
    }  # fmt: skip
    return made(EvaluateConfig, settings | changes)


def found(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a folder's finished evaluation says, but for the timings and the folder's name; and that nothing is left."""
    assert {path.name for path in folder.iterdir()} == FILES
    report = json.loads((folder / "evaluation.json").read_text())
    del report["settings"]["output"]
    for point in report["points"]:
        del point["seconds"], point["tokens_per_second"], point["latency"]
    rows = [json.loads(line) for line in (folder / "responses.jsonl").read_text().splitlines()]
    for row in rows:
        del row["seconds"], row["latency"]
    return report, rows


@pytest.fixture(scope="module")
def undisturbed(model: str, worker: EvaluationWorker, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is to be found, and in how many seconds a run finds it."""
    plain = tmp_path_factory.mktemp("undisturbed")
    started = time.perf_counter()
    assert worker.run(config(model, plain)) == 0
    return found(plain), time.perf_counter() - started


@pytest.mark.slow
def test_killed_at_random_moments_and_started_again(
    model: str, tmp_path: Path, worker: EvaluationWorker, undisturbed: Any
) -> None:
    expected, duration = undisturbed
    settings = config(model, tmp_path / "out")
    draw, kills = random.Random(0), 0
    for _ in range(int(os.environ.get("TAD_KILLS", "4"))):
        if worker.run(settings, kill_after=draw.uniform(0, 0.8 * duration)) == signal.SIGKILL:
            kills += 1
        else:  # it was complete before: the first run had a slower machine
            assert found(tmp_path / "out") == expected
            shutil.rmtree(tmp_path / "out")
            duration /= 2
    assert kills >= 1
    assert worker.run(settings) == 0
    assert found(tmp_path / "out") == expected


@pytest.mark.slow
def test_two_processes_killed_at_random_moments(
    model: str, tmp_path: Path, worker: EvaluationWorker, undisturbed: Any
) -> None:
    expected, duration = undisturbed
    settings = config(model, tmp_path / "out")
    draw = random.Random(1)
    for _ in range(int(os.environ.get("TAD_KILLS", "3"))):
        with worker.running(settings, rank=1, world_size=2, kill_after=draw.uniform(0, 0.4 * duration)):
            worker.run(settings, rank=0, world_size=2, kill_after=draw.uniform(0, 0.4 * duration))
    with worker.running(settings, rank=1, world_size=2):
        assert worker.run(settings, rank=0, world_size=2) == 0
    assert found(tmp_path / "out") == expected


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_the_files_get_their_names(
    model: str, tmp_path: Path, worker: EvaluationWorker, undisturbed: Any, moment: str
) -> None:
    expected, _ = undisturbed
    settings = config(model, tmp_path / "out")
    for file in range(4):
        assert worker.run(settings, die_at=(moment, file), expect_decoded=160 if file == 0 else 0) == signal.SIGKILL
    assert worker.run(settings, expect_decoded=0) == 0
    assert found(tmp_path / "out") == expected


@pytest.mark.slow
def test_no_answer_is_decoded_twice_and_a_damaged_line_is_decoded_again(
    model: str, tmp_path: Path, worker: EvaluationWorker, undisturbed: Any
) -> None:
    expected, _ = undisturbed
    settings = config(model, tmp_path / "out")
    assert worker.run(settings, die_at=("before", 0)) == signal.SIGKILL  # all is answered, and nothing is reported
    journals = sorted((tmp_path / "out").glob(".rows-*.jsonl"))
    assert sum(len(path.read_text().splitlines()) - 1 for path in journals) == 160
    lines = journals[0].read_bytes().split(b"\n")
    lines[1] = lines[1][:20] + bytes(30) + lines[1][50:]  # as a crash of the machine leaves it
    lines[2] = lines[2].replace(b'"forwards": ', b'"forwards": -')
    lines[-2] = lines[-2][:40]  # and as a kill does
    journals[0].write_bytes(b"\n".join(lines[:-1]))
    (tmp_path / "out" / ".rows-0.jsonl").touch()  # a kill between a journal and its first line
    assert worker.run(settings, expect_decoded=3) == 0
    assert found(tmp_path / "out") == expected


@pytest.mark.slow
def test_one_of_two_processes_is_killed_and_the_other_does_its_work(
    model: str, tmp_path: Path, worker: EvaluationWorker, undisturbed: Any
) -> None:
    expected, duration = undisturbed
    settings = config(model, tmp_path / "out")
    with worker.running(settings, rank=1, world_size=2, kill_after=0.3 * duration):
        evaluate(settings)
    assert found(tmp_path / "out") == expected


def test_ranks_share_the_work_and_the_last_of_them_reports(
    model: str, tmp_path: Path, worker: EvaluationWorker, undisturbed: Any
) -> None:
    expected, _ = undisturbed
    settings = config(model, tmp_path / "out")
    with worker.running(settings, rank=1, world_size=2):
        report = evaluate(settings)
    assert report["problems"] == 40
    assert found(tmp_path / "out") == expected


def interrupted(settings: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends when its first run is answered."""
    calls = iter([False, True])
    real = evaluation._answer

    def stopping(*arguments: Any) -> None:
        if next(calls):
            raise KeyboardInterrupt
        real(*arguments)

    with monkeypatch.context() as stopped:
        stopped.setattr(evaluation, "_answer", stopping)
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings)


SMALL = {"limit": 3, "presets": []}
OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 0.5}, "runs.topk:1.temperature = 1.0; this one has 0.5"),
    ({"batch_size": 2}, "runs.topk:1.batch_size = 3; this one has 2"),
    ({"thresholds": [0.5, 0.7]}, "runs = .*; this one has .*entropy:0.7"),
    ({"presets": ["tad"]}, "runs = .*; this one has .*preset:tad"),
    ({"limit": 2}, "problems = 3; this one has 2"),
    ({"prompt": "teacher"}, "prompt = 'student'; this one has 'teacher'"),
    ({"dtype": "bfloat16"}, "dtype = 'float32'; this one has 'bfloat16'"),
    ({"seed": 1}, "problems_digest = "),
]


@pytest.mark.parametrize(("changes", "message"), OTHERS)
def test_another_command_is_refused_with_what_differs(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    settings = config(model, tmp_path / "out", **SMALL)
    interrupted(settings, monkeypatch)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"holds an unfinished one of another command, with {message}"):
        evaluate(config(model, tmp_path / "out", **SMALL | changes))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_another_model_is_refused_with_what_differs(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(config(model, tmp_path / "out", **SMALL))
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(ValueError, match=r"holds a finished evaluation of another command, with model\.weights"):
        evaluate(config(other, tmp_path / "out", **SMALL))


def test_what_another_command_has_left_is_overwritten_when_that_is_asked_for(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(config(model, tmp_path / "out", **SMALL), monkeypatch)
    report = evaluate(config(model, tmp_path / "out", overwrite=True, **SMALL | {"limit": 2}))
    assert report["problems"] == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_what_a_process_still_works_on_is_not_overwritten(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*arguments: Any) -> None:
        real(*arguments)
        with pytest.raises(ValueError, match=r"another run, process .* works in"):
            evaluate(config(model, tmp_path / "out", overwrite=True, **SMALL | {"limit": 2}))
        tried.append(1)

    real, tried = evaluation._answer, []
    monkeypatch.setattr(evaluation, "_answer", meanwhile)
    evaluate(config(model, tmp_path / "out", **SMALL | {"thresholds": [], "policies": []}))
    assert tried == [1]


def test_another_count_is_another_report_of_the_same_responses(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(model, tmp_path / "out", **SMALL)
    own = evaluate(settings)
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    published = evaluate(config(model, tmp_path / "out", count="published", best_accuracy=90.0, **SMALL))
    assert (published["count"], published["best_accuracy"]) == ("published", 90.0)
    assert published["points"] == own["points"]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == published
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_a_picture_that_is_missing_is_drawn_again(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(model, tmp_path / "out", **SMALL)
    report = evaluate(settings)
    (tmp_path / "out" / "accuracy_curve.png").unlink()
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    assert evaluate(settings) == report
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_a_claim_that_a_kill_has_left_is_removed(model: str, tmp_path: Path) -> None:
    settings = config(model, tmp_path / "out", **SMALL)
    evaluate(settings)
    gone = {
        "machine": socket.gethostname(),
        "space": _space(),
        "pid": 2**22 + 1,
        "started": "1",
        "claims": "",
        "work": "",
    }
    for name in (".claim-report-00000000-0", ".tmp-0123abcd-claim"):
        (tmp_path / "out" / name).write_text(json.dumps(gone))
    evaluate(settings)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_a_full_disk_ends_a_run_that_then_goes_on(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: Any
) -> None:
    expected, _ = undisturbed
    settings = config(model, tmp_path / "out")
    with monkeypatch.context() as full:
        real, calls = evaluation.Journal.add, iter(range(1000))

        def failing(self: Any, row: Any) -> None:
            if next(calls) >= 50:
                raise OSError(28, "No space left on device", str(self.path))
            real(self, row)

        full.setattr(evaluation.Journal, "add", failing)
        with pytest.raises(OSError, match=r"No space left on device: '.*\.rows-"):
            evaluate(settings)
    written = [path.read_text().splitlines() for path in (tmp_path / "out").glob(".rows-*")]
    assert sum(map(len, written)) - len(written) == 50
    evaluate(dataclasses.replace(settings))
    assert found(tmp_path / "out") == expected
