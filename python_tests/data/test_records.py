"""Where records come from: files of four kinds, and the hub, which a pretended `datasets` stands for."""

import gzip
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_files import RECORDS, write_records

from tad_ext.data.tasks.records import HubDataset, read_records
from tad_ext.data.tasks.task import get_task


def test_packed_files_and_parquet_hold_the_same_records(tmp_path: Path) -> None:
    plain = write_records(tmp_path / "plain.jsonl", RECORDS["gsm8k"])
    packed, table = tmp_path / "packed.jsonl.gz", tmp_path / "table.parquet"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    pq.write_table(pa.Table.from_pylist(RECORDS["gsm8k"]), table)
    expected = get_task("gsm8k", data=plain).problems("train")
    assert get_task("gsm8k", data=str(packed)).problems("train") == expected
    assert get_task("gsm8k", data=str(table)).problems("train") == expected
    (place, _), *_ = read_records(table, "train", None)
    assert place == f"{table}, record 1"


def test_damaged_files_are_named(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"a": 1}\n' * 100)
    for name, content, message in [
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz', which cannot be unpacked"),
        ("b.jsonl.gz", packed[:-12], "b.jsonl.gz', which cannot be unpacked"),
        ("c.jsonl.gz", packed[:20] + b"xxxx" + packed[24:], "c.jsonl.gz', which cannot be unpacked"),
        ("d.parquet", b"no parquet", "d.parquet', which is no parquet file"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_records(tmp_path / name, "train", None)
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "e.parquet")
    with pytest.raises(ValueError, match=r"e.parquet', which holds no record"):
        read_records(tmp_path / "e.parquet", "train", None)
    with pytest.raises(FileNotFoundError, match=r"data is 'nowhere.parquet', which is not a file"):
        read_records("nowhere.parquet", "train", None)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What was asked of a `datasets` whose every split holds the sample records of the task with its name in it."""
    calls: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None = None, *, split: str) -> list[dict[str, Any]]:
        calls.append((name, config, split))
        task = next(task for task in ("gsm8k", "math", "humaneval", "mbpp", "kodcode") if task in name.lower())
        return RECORDS[task]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    return calls


EVERY = "prompt+test+validation+train"
SUBJECTS = (
    "algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
    "precalculus",
)  # fmt: skip


@pytest.mark.parametrize(
    ("task", "split", "calls"),
    [
        ("gsm8k", "train", [("openai/gsm8k", "main", "train")]),
        ("math", "test", [("EleutherAI/hendrycks_math", subject, "test") for subject in SUBJECTS]),
        ("humaneval", "test", [("openai/openai_humaneval", None, "test")]),
        ("mbpp", "train", [("google-research-datasets/mbpp", "full", EVERY)]),
        ("mbpp", "test", [("google-research-datasets/mbpp", "full", EVERY)]),
        ("kodcode", "train", [("KodCode/KodCode-V1", None, "train")]),
    ],
)
def test_the_usual_data_sets(loaded: list[Any], task: str, split: Any, calls: list[Any], tmp_path: Path) -> None:
    problems = get_task(task, data="hub").problems(split)
    assert loaded == calls
    assert problems == get_task(task, data=write_records(tmp_path / "file.jsonl", RECORDS[task])).problems(split)


def test_another_data_set_of_the_hub(loaded: list[Any]) -> None:
    get_task("math", data="hub:HuggingFaceH4/MATH-500").problems("test")
    get_task("mbpp", data="hub:someone/mbpp:sanitized").problems("train")
    assert loaded == [("HuggingFaceH4/MATH-500", None, "test"), ("someone/mbpp", "sanitized", "train")]


def test_what_the_hub_does_not_have_is_named(loaded: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="split is 'train', but openai/openai_humaneval has test only"):
        get_task("humaneval", data="hub").problems("train")
    with pytest.raises(ValueError, match="data is 'hub', but this task has no usual data set there; expected a file"):
        get_task("jsonl", data="hub").problems("train")
    monkeypatch.setitem(RECORDS, "gsm8k", [{"question": "q"}])
    with pytest.raises(ValueError, match="openai/gsm8k, main, split train, record 1: 'answer' must be a text"):
        get_task("gsm8k", data="hub").problems("train")
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(ModuleNotFoundError, match="package datasets: pip install datasets; or give a file"):
        get_task("gsm8k", data="hub").problems("train")


def test_a_file_may_be_called_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_records(tmp_path / "hub", RECORDS["gsm8k"])
    assert len(read_records("hub", "train", HubDataset("openai/gsm8k"))) == len(RECORDS["gsm8k"])
