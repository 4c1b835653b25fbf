"""A training that was stopped, and started again by the same command, ends with the weights of one that was not."""

import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from distillation_worker import Worker
from safetensors.torch import load_file, save

from tad_ext.distillation import adapter_run as run
from tad_ext.distillation import checkpoints
from tad_ext.distillation.trainer import Trainer
from tad_ext.interrupts import stoppable
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.jobs.distill.run import distill

pytestmark = pytest.mark.slow

LONG = {"epochs": 3, "dropout": 0.2, "batch_size": 2, "accumulation": 2, "save_every": 3, "warmup_steps": 4}  # 24 steps


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker()


@pytest.fixture(scope="module")
def long(
    make_job: Callable[[Path], Callable[..., DistillConfig]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], DistillConfig]:
    """long(output): a training that LONG says, of one model and one set of trajectories."""
    job = make_job(tmp_path_factory.mktemp("long"))
    return lambda output: job(**LONG, output=str(output))


@pytest.fixture(scope="module")
def whole(long: Callable[[Path], DistillConfig], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What it leaves."""
    folder = tmp_path_factory.mktemp("whole") / "output"
    distill(long(folder))
    return results(folder)


@pytest.fixture(scope="module")
def stopped_once(long: Callable[[Path], DistillConfig], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped") / "output"
    stopped_after(4, long(folder))
    return folder


@pytest.fixture
def stopped(long: Callable[[Path], DistillConfig], stopped_once: Path, tmp_path: Path) -> DistillConfig:
    """One that was stopped behind its fourth step."""
    shutil.copytree(stopped_once, tmp_path / "output")
    return long(tmp_path / "output")


def results(folder: Path | str) -> dict[str, bytes]:
    """What a training is for; without the picture, and the names of its own folders."""
    report = json.loads(Path(folder, "training.json").read_text())
    del report["settings"]["output"]
    adapter = Path(folder, "adapter")
    return {"report": json.dumps(report).encode(), **{path.name: path.read_bytes() for path in adapter.iterdir()}}


class StoppedError(Exception):
    """In the middle of a training."""


def stopped_after(step: int, config: DistillConfig, error: type[BaseException] = StoppedError) -> None:
    """Runs a training until the step behind that one has added up its gradients."""
    with pytest.raises(error), stopped_within(step, error):
        distill(config)


@contextmanager
def stopped_within(step: int, error: type[BaseException]) -> Iterator[None]:
    """The step behind that one raises."""
    real = Trainer._accumulate

    def stop(trainer: Trainer, own: Any) -> Any:
        sums = real(trainer, own)
        if trainer.step == step:
            raise error
        return sums

    with mock.patch.object(Trainer, "_accumulate", stop):
        yield


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (StoppedError, {"delta_start": 0, "curriculum": "progress", "state_ratio": 0.6}),
        (KeyboardInterrupt, {}),
        (SystemExit, {"use_dora": True, "use_rslora": True, "gradient_checkpointing": True}),
    ],
)
def test_it_goes_on_where_it_was(
    job: Callable[..., DistillConfig],
    tmp_path: Path,
    error: type[BaseException],
    changes: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = LONG | changes
    distill(job(**options, output=str(tmp_path / "whole")))
    config = job(**options, output=str(tmp_path / "stopped"))
    stopped_after(7, config, error)
    kept = checkpoints.checkpoints(Path(config.output))
    assert [path.name[-2:] for path in kept] == ["06", "07"]
    capsys.readouterr()
    torch.manual_seed(99)
    again = distill(config)
    out, err = capsys.readouterr()
    assert f"going on from {kept[-1]}" in out
    assert "lacks" not in out + err
    assert len(again.history) == len(json.loads((tmp_path / "whole" / "training.json").read_text())["steps"])
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")
    assert not (tmp_path / "stopped" / "steps.jsonl").exists()


def test_it_goes_on_from_an_adapter(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    """Started from an adapter, and stopped: from the checkpoint, not from that adapter again."""
    first = distill(job(max_steps=3, dropout=0.2, output=str(tmp_path / "first"))).adapter
    options = {name: value for name, value in LONG.items() if name != "dropout"} | {"adapter": str(first)}
    distill(job(**options, output=str(tmp_path / "whole")))
    config = job(**options, output=str(tmp_path / "stopped"))
    stopped_after(7, config)
    distill(config)
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_stopped_behind_its_last_step(
    long: Callable[[Path], DistillConfig], whole: dict[str, bytes], tmp_path: Path
) -> None:
    """When the adapter stands already, and a kill has cut short another that was to take its place."""
    config = long(tmp_path / "stopped")
    with mock.patch.object(run, "write_curve", side_effect=StoppedError), pytest.raises(StoppedError):
        distill(config)
    adapter = tmp_path / "stopped" / "adapter"
    (adapter / ".tmp-01234567-adapter").mkdir()
    (adapter / "adapter_model.safetensors").unlink()
    distill(config)
    assert results(tmp_path / "stopped") == whole


def test_killed_at_random_moments(job: Callable[..., DistillConfig], tmp_path: Path, worker: Worker) -> None:
    settings = job(**LONG, output=str(tmp_path / "killed"))
    began = time.perf_counter()
    assert worker.run(dataclasses.replace(settings, output=str(tmp_path / "whole"))) == [0]
    duration, draw, kills = time.perf_counter() - began, random.Random(0), 0

    def check() -> None:
        assert results(tmp_path / "killed") == results(tmp_path / "whole")
        shutil.rmtree(tmp_path / "killed")

    for _ in range(int(os.environ.get("TAD_KILLS", "6"))):
        statuses = worker.run(settings, after=draw.uniform(0.1, 0.9) * duration)
        kills += statuses == [signal.SIGKILL]
        if is_complete(tmp_path / "killed"):
            check()
            duration /= 2  # the first run had a slower machine
    assert kills >= 1
    assert worker.run(settings) == [0]
    check()


def is_complete(folder: Path) -> bool:
    """Whether a kill came too late."""
    return (folder / "training.json").exists() and not (folder / "steps.jsonl").exists()


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_two_ranks_that_are_killed_and_one_that_goes_on(
    job: Callable[..., DistillConfig], tmp_path: Path, worker: Worker
) -> None:
    """Two ranks end with the same bytes however often they are killed; one rank sees the same states and adds up the
    same gradients in another order.
    """
    two = job(**LONG | {"accumulation": 1}, output=str(tmp_path / "two"))
    began = time.perf_counter()
    assert worker.run(dataclasses.replace(two, output=str(tmp_path / "whole")), ranks=2) == [0, 0]
    duration, draw, kills = time.perf_counter() - began, random.Random(1), 0

    def check() -> None:
        assert weights(tmp_path / "two") == weights(tmp_path / "whole")
        shutil.rmtree(tmp_path / "two")

    for _ in range(int(os.environ.get("TAD_KILLS", "3"))):
        statuses = worker.run(two, ranks=2, after=draw.uniform(0.2, 0.9) * duration)
        kills += signal.SIGKILL in statuses
        if is_complete(tmp_path / "two"):
            check()
            duration /= 2
    assert kills >= 1
    assert worker.run(two, ranks=2) == [0, 0]
    check()

    mixed = dataclasses.replace(two, output=str(tmp_path / "mixed"))
    assert 0 not in worker.run(mixed, ranks=2, stop_at=10)
    assert [path.name for path in checkpoints.checkpoints(tmp_path / "mixed")][-1] == "checkpoint-000010"
    alone = job(**LONG | {"accumulation": 2}, output=str(tmp_path / "mixed"))
    assert worker.run(alone) == [0]
    steps, expected = (
        json.loads((tmp_path / name / "training.json").read_text())["steps"] for name in ("mixed", "whole")
    )
    assert [step["totals"] for step in steps] == [step["totals"] for step in expected]
    one, other = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("mixed", "whole"))
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_a_run_of_other_settings_or_data_is_refused(
    stopped: DistillConfig, job: Callable[..., DistillConfig], make_trajectories: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "load_model", None)
    for changes, message in (
        ({"learning_rate": 0.5}, "learning_rate was 0.01, this run has 0.5"),
        ({"seed": 1, "delta": 2}, "seed was 0, this run has 1; delta was 3, this run has 2"),
        ({"accumulation": 3}, "states_per_step was 4, this run has 6"),
        ({"recorded": make_trajectories(seed=5)}, "trajectories was .*, this run has .*"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint-000004 of another run: {message}; choose another folder"):
            distill(job(**LONG | changes))


def test_processes_that_see_other_files_are_refused(stopped: DistillConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where every machine has a disk of its own: only the first one's has checkpoints."""
    monkeypatch.setattr(run, "load_model", None)
    for theirs, message in (
        ({"the last checkpoint": None}, "the last checkpoint is checkpoint-000004 for process 0, and None for process"),
        ({"trajectories": "0123"}, "trajectories is .* for process 0, and 0123 for process 1"),
    ):
        monkeypatch.setattr(checkpoints, "gather_object", lambda own, theirs=theirs: [*own, own[0] | theirs])
        with pytest.raises(ValueError, match=rf"^{message}.*; expected a model, data and an output that all .* see"):
            distill(stopped)


@pytest.mark.usefixtures("stopped")
def test_of_another_model_it_is_told_what_differs(
    job: Callable[..., DistillConfig], make_model: Any, tmp_path: Path
) -> None:
    make_model(seed=1).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"another run: another model: other weights in model\.safetensors; choose"):
        distill(job(**LONG))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *itertools.product(
            ("adapter_model.safetensors", "optimizer.safetensors", "run.json"), ("empty", "short", "other")
        ),
        ("adapter_model.safetensors", "gone"),  # without run.json a folder is no checkpoint
        ("optimizer.safetensors", "gone"),
    ],
)
def test_a_damaged_checkpoint_is_named(stopped: DistillConfig, file: str, damage: str) -> None:
    """And nothing is changed."""
    first, last = checkpoints.checkpoints(Path(stopped.output))
    size, other = (last / file).stat().st_size, b"[1]" if file == "run.json" else save({"a": torch.zeros(1)})
    (last / file).write_bytes({"empty": b"", "short": (last / file).read_bytes()[: size // 2]}.get(damage, other))
    if damage == "gone":
        (last / file).unlink()
    before = everything(Path(stopped.output))
    with pytest.raises(ValueError, match=f"{last} is damaged: .*; remove this folder to go on from {first.name}"):
        distill(stopped)
    assert everything(Path(stopped.output)) == before


def everything(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_damaged_checkpoint_may_be_removed(stopped: DistillConfig, whole: dict[str, bytes]) -> None:
    """The training goes on from the one before it."""
    shutil.rmtree(checkpoints.checkpoints(Path(stopped.output))[-1])
    distill(stopped)
    assert results(stopped.output) == whole


@pytest.mark.parametrize("line", [b"\xff\x00", b"garbage", b"[1]", b"5", b'{"a": 1}', b'{"step": 2}', b'{"step": "2"}'])
def test_damaged_records_are_told_and_the_training_goes_on(
    stopped: DistillConfig, whole: dict[str, bytes], line: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(stopped.output, "steps.jsonl")
    lines = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([lines[0], line, *lines[2:]]) + b"\n")
    assert [record.step for record in distill(stopped).history] == [1, *range(3, 25)]
    assert f"note: {file} lacks the records of 1 of 4 steps" in capsys.readouterr().out
    assert weights(Path(stopped.output)) == whole["adapter_model.safetensors"]


def test_without_records_the_training_goes_on(stopped: DistillConfig) -> None:
    Path(stopped.output, "steps.jsonl").unlink()
    assert [record.step for record in distill(stopped).history] == list(range(5, 25))
    with pytest.raises(FileExistsError, match="holds adapter already"):
        distill(stopped)


def test_two_runs_do_not_write_into_one_folder(
    job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is refused before it loads a model, whatever its settings; the first one is not disturbed."""
    config, real = job(**LONG), Trainer._accumulate

    def another(trainer: Trainer, own: Any) -> Any:
        if trainer.step == 4:
            with (
                mock.patch.object(run, "load_model", None),
                pytest.raises(ValueError, match="is being written by another run"),
            ):
                distill(dataclasses.replace(config, overwrite=True))
        return real(trainer, own)

    monkeypatch.setattr(Trainer, "_accumulate", another)
    assert len(distill(config).history) == 24


def test_what_stops_says_how_to_go_on(job: Callable[..., DistillConfig], tmp_path: Path) -> None:
    distill(job(max_steps=1))
    for overwrite in (False, True):
        output = tmp_path / ("output" if overwrite else "stopped")
        config = job(**LONG, output=str(output), overwrite=overwrite)
        watched = mock.patch.object(Trainer, "_watched", side_effect=[{}] * 4 + [StoppedError])
        with watched, pytest.raises(StoppedError) as stopped:
            distill(config)
        how, where = stopped.value.__notes__
        written = Path(where.removeprefix("what this run has written is in "))
        if overwrite:
            assert (
                how == f"the same command, with output {written} and without overwrite, goes on from checkpoint-000004"
            )
            config = dataclasses.replace(config, output=str(written), overwrite=False)
        else:
            assert how == "the same command goes on from checkpoint-000004"
        assert len(distill(config).history) == 24


@pytest.mark.usefixtures("stopped")
def test_batches_may_be_cut_otherwise(job: Callable[..., DistillConfig]) -> None:
    assert len(distill(job(**LONG | {"batch_size": 1, "accumulation": 4, "save_every": 0})).history) == 24


@pytest.mark.parametrize(("keep", "left"), [(0, [3, 6, 9, 12, 15, 18, 21]), (1, [21]), (2, [18, 21])])
def test_the_latest_checkpoints_stay(job: Callable[..., DistillConfig], keep: int, left: list[int]) -> None:
    config = job(**LONG, keep_checkpoints=keep)
    distill(config)
    found = sorted(path.name for path in Path(config.output).glob("*checkpoint*"))
    assert found == [f"checkpoint-{step:06d}" for step in left]


def test_a_disk_that_fills_up_leaves_the_last_checkpoint(
    long: Callable[[Path], DistillConfig], whole: dict[str, bytes], tmp_path: Path
) -> None:
    config, real = long(tmp_path / "full"), Trainer.save

    def save(trainer: Trainer, folder: Path) -> None:
        real(trainer, folder)
        if trainer.step > 3:
            raise OSError(28, "No space left on device")

    with mock.patch.object(Trainer, "save", save), pytest.raises(OSError, match="No space left"):
        distill(config)
    assert [path.name for path in (tmp_path / "full").glob("*checkpoint*")] == ["checkpoint-000003"]
    distill(config)
    assert results(tmp_path / "full") == whole


def test_an_optimizer_that_fails_within_a_step_is_not_saved(job: Callable[..., DistillConfig]) -> None:
    config, real = job(**LONG), torch.optim.AdamW.step

    def step(optimizer: torch.optim.AdamW, *arguments: Any) -> None:
        real(optimizer, *arguments)
        if next(calls) == 4:
            raise StoppedError

    calls = iter(range(99))
    with mock.patch.object(torch.optim.AdamW, "step", step), pytest.raises(StoppedError):
        distill(config)
    assert [path.name for path in Path(config.output).glob("*checkpoint*")] == ["checkpoint-000003"]


def terminate(*_: Any) -> None:
    """As a scheduler does."""
    os.kill(os.getpid(), signal.SIGTERM)


def terminated(config: DistillConfig) -> None:
    """Runs a training that gets a SIGTERM."""
    with pytest.raises(SystemExit), stoppable():
        distill(config)


def test_a_signal_within_an_optimizer_step(
    long: Callable[[Path], DistillConfig], whole: dict[str, bytes], tmp_path: Path
) -> None:
    """It is raised between the step and its record; both are kept."""
    config, real, calls = long(tmp_path / "stopped"), torch.optim.AdamW.step, iter(range(99))

    def step(optimizer: torch.optim.AdamW, *arguments: Any) -> None:
        real(optimizer, *arguments)
        if next(calls) == 4:
            terminate()

    with mock.patch.object(torch.optim.AdamW, "step", step):
        terminated(config)
    assert [path.name for path in checkpoints.checkpoints(Path(config.output))][-1] == "checkpoint-000005"
    distill(config)
    assert results(tmp_path / "stopped") == whole


def test_a_signal_within_a_checkpoint_waits_for_it(job: Callable[..., DistillConfig]) -> None:
    config, real = job(**LONG), Trainer.save

    def save(trainer: Trainer, folder: Path) -> None:
        real(trainer, folder)
        if trainer.step == 6:
            terminate()

    with mock.patch.object(Trainer, "save", save):
        terminated(config)
    assert [path.name[-2:] for path in Path(config.output).glob("*checkpoint*")].count("06") == 1


def test_a_signal_within_the_last_files_waits_for_them(job: Callable[..., DistillConfig]) -> None:
    config = job(**LONG | {"save_every": 0})
    with mock.patch.object(checkpoints.Progress, "write_card", terminate):
        terminated(config)
    assert is_complete(Path(config.output))
    assert len(weights(Path(config.output))) > 0


def test_what_a_kill_left_of_a_checkpoint_goes(job: Callable[..., DistillConfig]) -> None:
    config = job(max_steps=1)
    left, other = (Path(config.output, f".tmp-01234567-{name}") for name in ("checkpoint-000003", "output"))
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "optimizer.safetensors").touch()
    distill(config)
    assert (left.exists(), other.exists()) == (False, True)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("checkpoint-1000000", "checkpoint-999999", "checkpoint-copy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
    assert [path.name[11:] for path in checkpoints.checkpoints(tmp_path)] == ["999999", "1000000"]


def test_it_says_where_a_checkpoint_is_that_could_not_be_put_in_its_place(job: Callable[..., DistillConfig]) -> None:
    config, error = job(**LONG | {"save_every": 0}), OSError(28, "No space left on device")
    error.add_note("it was written elsewhere")
    full = mock.patch.object(checkpoints, "save_adapter", side_effect=error)
    with pytest.raises(KeyboardInterrupt) as stopped, full, stopped_within(7, KeyboardInterrupt):
        distill(config)
    told = "no checkpoint was written ([Errno 28] No space left on device); it was written elsewhere"
    assert stopped.value.__notes__[0].startswith(told)


def test_a_loss_that_is_not_finite_names_its_states(job: Callable[..., DistillConfig]) -> None:
    config = job(learning_rate=1e30, max_grad_norm=0.0, max_steps=50, save_every=1)
    with pytest.raises(FloatingPointError) as error:
        distill(config)
    file = Path(config.output) / "not_finite.json"
    assert f"the states of this step are named in {file}" in error.value.__notes__
    found = json.loads(file.read_text())
    assert len(found) == 8
    assert found[0].keys() == {"task", "id", "sample", "entries", "canvas"}
    shutil.rmtree(checkpoints.checkpoints(file.parent)[-1])
    distill(job(learning_rate=1e-2, max_steps=50))
    assert not file.exists()


@pytest.mark.parametrize("plugin", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_ways_to_distribute_that_are_not_supported_are_refused(
    job: Callable[..., DistillConfig], monkeypatch: pytest.MonkeyPatch, plugin: str
) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{plugin}", "true")
    monkeypatch.setattr(run, "load_model", None)
    with pytest.raises(ValueError, match=r"(?i)accelerate's .* plugin is on: expected processes without a plugin"):
        distill(job())
