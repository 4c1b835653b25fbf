"""A run that was killed and started again leaves what an undisturbed one does."""

import dataclasses
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from collection_runs import config, files, rows
from collection_worker import Worker

from tad_ext.data.trajectories import read_parts
from tad_ext.jobs.collect.run import collect

pytestmark = pytest.mark.slow


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
