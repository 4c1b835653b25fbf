"""A run that was killed and started again leaves what an undisturbed one does."""

import dataclasses
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from collection_runs import config, files
from collection_worker import Worker

from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.run import collect

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


def test_killed_at_random_moments_and_started_again(model: str, tmp_path: Path, worker: Worker) -> None:
    settings = config(model, tmp_path / "killed", limit=48, unit_size=4)
    undisturbed = dataclasses.replace(settings, output=str(tmp_path / "plain"))
    started = time.perf_counter()
    assert worker.run(undisturbed) == 0
    duration = time.perf_counter() - started
    draw = random.Random(0)
    kills = 0
    for _ in range(int(os.environ.get("TAD_KILLS", "6"))):
        if worker.run(settings, kill_after=draw.uniform(0, 0.8 * duration)) == signal.SIGKILL:
            kills += 1
        else:  # it was complete before: the first run had a slower machine
            assert files(tmp_path / "killed") == files(tmp_path / "plain")
            shutil.rmtree(tmp_path / "killed")
            duration /= 2
    assert kills >= 1
    assert worker.run(settings) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "plain")  # byte for byte, and no temporary file


def test_two_processes_killed_at_random_moments(model: str, tmp_path: Path, worker: Worker) -> None:
    settings = config(model, tmp_path / "killed", limit=48, unit_size=4)
    undisturbed = dataclasses.replace(settings, output=str(tmp_path / "plain"))
    started = time.perf_counter()
    assert worker.run(undisturbed) == 0
    duration = time.perf_counter() - started
    draw = random.Random(1)
    for _ in range(int(os.environ.get("TAD_KILLS", "4"))):
        with worker.running(settings, rank=1, world_size=2, kill_after=draw.uniform(0, 0.4 * duration)):
            worker.run(settings, rank=0, world_size=2, kill_after=draw.uniform(0, 0.4 * duration))
    with worker.running(settings, rank=1, world_size=2):
        assert worker.run(settings, rank=0, world_size=2) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "plain")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_while_a_file_gets_its_name(model: str, tmp_path: Path, worker: Worker, moment: str) -> None:
    settings = config(model, tmp_path / "killed")
    assert worker.run(dataclasses.replace(settings, output=str(tmp_path / "plain"))) == 0
    for finished in range(3):
        assert worker.run(settings, die_at=(moment, int(moment == "before" and finished > 0))) == signal.SIGKILL
        parts = [name for name in files(tmp_path / "killed") if name.startswith("part-")]
        assert len(parts) == finished + (moment == "after")
    assert worker.run(settings) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "plain")


def test_no_answer_is_decoded_twice(model: str, tmp_path: Path, worker: Worker) -> None:
    settings = config(model, tmp_path / "killed", unit_size=20)
    collect(dataclasses.replace(settings, output=str(tmp_path / "plain")))
    assert worker.run(settings, die_at=("before", 0)) == signal.SIGKILL  # all is decoded, and nothing has a part yet
    (journal,) = (tmp_path / "killed").glob(".rows-*.jsonl")
    written = journal.read_text().splitlines(keepends=True)
    assert len(written) == 21
    journal.write_text("".join(written[:15]) + written[15][:40])  # as a kill in the middle of a line leaves it
    (tmp_path / "killed" / ".rows-0.jsonl").touch()  # and between a journal and its first line
    assert worker.run(settings, expect_decoded=6) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "plain")


def test_killed_and_continued_by_another_number_of_processes(model: str, tmp_path: Path, worker: Worker) -> None:
    settings = config(model, tmp_path / "killed", unit_size=2)
    collect(dataclasses.replace(settings, output=str(tmp_path / "plain")))
    for world_size in (2, 3):
        for rank in range(world_size):
            status = worker.run(settings, rank=rank, world_size=world_size, die_at=("before", 1))
            assert status == signal.SIGKILL
    assert worker.run(settings) == 0
    assert files(tmp_path / "killed") == files(tmp_path / "plain")


def test_one_of_two_processes_is_killed_and_the_other_does_its_work(
    model: str, tmp_path: Path, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "WAIT", 0.1)
    settings = config(model, tmp_path / "killed", unit_size=2)
    collect(dataclasses.replace(settings, output=str(tmp_path / "plain")))
    with worker.running(settings, rank=1, world_size=2, die_at=("before", 2)):
        collect(settings)
    assert files(tmp_path / "killed") == files(tmp_path / "plain")
