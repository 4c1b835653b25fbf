"""Trajectory files: lossless, and every kind of wrong file refused by name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_trajectories import MASK, PART, made_metadata, made_trajectory

from tad_ext.data.trajectories.files import (
    SCHEMA,
    part_name,
    read_part,
    read_parts,
    read_trajectories,
    write_part,
)
from tad_ext.data.trajectories.metadata import MAX_PART_RECORDS, Coverage, Key

METADATA = made_metadata()
trajectory = made_trajectory


def wrong(*keys: Key) -> Coverage:
    return Coverage(keys, "0")


def rewritten(path: Path, *, columns: dict[str, Any] | None = None, header: dict[str, Any] | None = None) -> None:
    """Writes the part again with some columns or some of its JSON metadata replaced, past the writer's own checks."""
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata)
    if header is not None:
        old = json.loads(metadata[b"tad_ext.trajectories"])
        metadata[b"tad_ext.trajectories"] = json.dumps({**old, **header}).encode()
    for name, values in (columns or {}).items():
        index = table.schema.get_field_index(name)
        table = table.set_column(index, SCHEMA.field(name), pa.array(values, SCHEMA.field(name).type))
    pq.write_table(table.replace_schema_metadata(metadata), path)


def test_states_follow_from_the_reveal_steps() -> None:
    item = trajectory(response_ids=[5, 6, 7, 8])
    assert item.canvas_at(0, MASK).tolist() == [MASK] * 4
    assert item.canvas_at(2, MASK).tolist() == [5, 6, MASK, MASK]
    assert item.steps_to_reveal(0).tolist() == [2, 1, 4, 3]
    assert item.steps_to_reveal(2).tolist() == [0, -1, 2, 1]
    assert item.canvas_at(3, MASK).dtype == item.steps_to_reveal(3).dtype == np.int64
    for step in (-1, 4):
        with pytest.raises(ValueError, match=rf"step must lie in 0..3 .* got {step}"):
            item.canvas_at(step, MASK)
        with pytest.raises(ValueError, match="step must lie"):
            item.steps_to_reveal(step)


@given(st.data(), st.integers(1, 40), st.integers(1, 300))
def test_masks_are_exactly_the_positions_still_to_reveal(data: st.DataObject, length: int, num_steps: int) -> None:
    steps = data.draw(st.lists(st.integers(1, num_steps), min_size=length, max_size=length))
    item = trajectory(response_ids=list(range(length)), reveal_step=steps, num_steps=num_steps)
    state = data.draw(st.integers(0, num_steps - 1))
    canvas, remaining = item.canvas_at(state, -1), item.steps_to_reveal(state)
    assert ((canvas == -1) == (remaining > 0)).all()
    assert (canvas[remaining <= 0] == np.arange(length)[remaining <= 0]).all()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"reveal_step": [1, 2, 3]},
            ValueError,
            r"reveal_step must have one entry per token of response_ids \(4\), got 3",
        ),
        ({"reveal_step": [0, 1, 2, 3]}, ValueError, "reveal_step must lie in 1..32767, got 0..3"),
        ({"reveal_step": [1, 2, 3, 5]}, ValueError, "reveal_step must lie in 1..num_steps = 4, got 5"),
        ({"reveal_step": [1, 2, 3, 40000], "num_steps": 40000}, ValueError, "reveal_step must lie in 1..32767"),
        ({"response_ids": [], "reveal_step": []}, ValueError, "response_ids must hold at least one"),
        ({"prompt_ids": [1, -2]}, ValueError, "prompt_ids must lie in 0..2147483647, got -2..1"),
        ({"teacher_prompt_ids": [2**31]}, ValueError, "teacher_prompt_ids must lie"),
        ({"response_ids": [1.0, 2.0, 3.0, 4.0]}, TypeError, "response_ids must be a flat sequence of integers"),
        ({"prompt_ids": [[1, 2]]}, TypeError, "prompt_ids must be a flat sequence of integers"),
        ({"id": ""}, ValueError, "id must be"),
        ({"sample": -1}, ValueError, "sample must lie in 0..32767, got -1"),
    ],
)
def test_a_trajectory_that_cannot_be(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trajectory(**changes)


def test_a_folder_reads_back_as_written(tmp_path: Path) -> None:
    first = [trajectory("a"), trajectory("b", answer=None, correct=False, prompt_ids=[], reference="ä\n")]
    later = [trajectory("c", reveal_step=[1, 1, 1, 1])]
    write_part(tmp_path / part_name(7, [("c", 0), ("d", 0)]), METADATA, later, coverage=wrong(("d", 0)))
    write_part(tmp_path / part_name(0, [("a", 0), ("b", 0)]), METADATA, first, coverage=wrong())
    write_part(tmp_path / part_name(8, [("e", 1)]), METADATA, [], coverage=wrong(("e", 1)))
    (tmp_path / ".tmp-01234567-part-00000009-00000000.parquet").write_text("half")
    runs, rows = read_trajectories(tmp_path)
    assert runs == [METADATA]
    assert runs[0].model == "runs/base"
    assert rows == [*first, *later]
    assert rows[0].response_ids.dtype == np.int32
    assert rows[0].reveal_step.dtype == np.int16
    assert rows[0].reveal_step.flags.writeable  # so that torch.from_numpy takes it
    assert rows[0] != trajectory("a", reveal_step=[1, 2, 4, 3])
    parts = read_parts(tmp_path)
    assert [part.coverage for part in parts] == [wrong(), wrong(("d", 0)), wrong(("e", 1))]
    assert [part.keys for part in parts] == [[("a", 0), ("b", 0)], [("c", 0), ("d", 0)], [("e", 1)]]
    assert [part.right for part in parts] == [1, 1, 0]


def test_the_file_is_plain_parquet_with_the_documented_columns(tmp_path: Path) -> None:
    write_part(tmp_path / "part-0.parquet", METADATA, [trajectory()])
    table = pq.read_table(tmp_path / "part-0.parquet")
    assert {item.name: str(item.type) for item in table.schema} == {
        "id": "string",
        "sample": "int16",
        "task": "string",
        "prompt_ids": "list<element: int32 not null>",
        "teacher_prompt_ids": "list<element: int32 not null>",
        "response_ids": "list<element: int32 not null>",
        "reveal_step": "list<element: int16 not null>",
        "num_steps": "int32",
        "correct": "bool",
        "answer": "string",
        "reference": "string",
    }
    assert pq.ParquetFile(tmp_path / "part-0.parquet").metadata.row_group(0).column(3).compression == "ZSTD"


def test_a_part_is_limited_and_checked_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / PART
    rows = [trajectory(str(index)) for index in range(MAX_PART_RECORDS + 1)]
    with pytest.raises(ValueError, match="at most 256 per part, got 257"):
        write_part(path, METADATA, rows)
    with pytest.raises(ValueError, match="record '1': expected sample 0 once"):
        write_part(path, METADATA, [rows[1], rows[1]])
    with pytest.raises(ValueError, match="task must be the file's"):
        write_part(path, METADATA, [trajectory(task="other")])
    with pytest.raises(ValueError, match="expected 4 response_ids, got 1"):
        write_part(path, METADATA, [trajectory(response_ids=[1], reveal_step=[1])])
    with pytest.raises(ValueError, match="record '1': expected sample 0 once"):
        write_part(path, METADATA, rows[:2], coverage=wrong(("1", 0)))
    assert list(tmp_path.iterdir()) == []
    write_part(path, METADATA, rows[:MAX_PART_RECORDS])
    assert len(read_part(path).trajectories) == MAX_PART_RECORDS
    with pytest.raises(ValueError, match="number must be >= 0, got -1"):
        part_name(-1, [])


@pytest.mark.parametrize("kept", [0, 3, 40, -1, -9])
def test_a_truncated_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / PART
    write_part(path, METADATA, [trajectory()])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{path}: expected a complete Parquet file"):
        read_trajectories(tmp_path)


def test_a_flipped_byte_never_changes_a_row_unseen(tmp_path: Path) -> None:
    path = tmp_path / PART
    rows = [trajectory(str(index), reference=f"{index * 7919}") for index in range(50)]
    write_part(path, METADATA, rows)
    whole = path.read_bytes()
    group = pq.ParquetFile(path).metadata.row_group(0)
    last = group.column(group.num_columns - 1)
    end = last.data_page_offset + last.total_compressed_size
    errors = []
    for position in range(4, min(end, len(whole)), 41):  # each page carries a checksum
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            assert read_part(path).trajectories == rows  # a bit that means nothing, such as a statistic
        except ValueError as error:
            errors.append(str(error))
    assert len(errors) > 10
    assert all(str(path) in error for error in errors)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / PART
    path.write_text("not Parquet at all, but long enough")
    with pytest.raises(ValueError, match=f"{path}: expected a complete Parquet file"):
        read_trajectories(tmp_path)
    pq.write_table(pa.table({"id": ["a"]}), path)
    with pytest.raises(ValueError, match=f"{path}: expected a trajectory file, but its metadata have no"):
        read_trajectories(tmp_path)
    write_part(path, METADATA, [trajectory()])
    rewritten(path, header={"schema_version": 1})
    with pytest.raises(ValueError, match=f"{path}: expected schema version 2, got 1"):
        read_trajectories(tmp_path)
    write_part(path, METADATA, [trajectory()])
    pq.write_table(pq.read_table(path).drop_columns(["answer"]), path)
    with pytest.raises(ValueError, match=f"{path}: expected the columns .*answer: string"):
        read_trajectories(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "0"}, "TrajectoryMetadata.seed must be an integer, got '0'"),
        ({"stop_at_eos": 1}, "TrajectoryMetadata.stop_at_eos must be true or false, got 1"),
        ({"surprise": 1}, "expected the metadata fields"),
        (None, "expected the metadata fields"),
    ],
)
def test_metadata_of_another_form(tmp_path: Path, change: dict[str, Any] | None, message: str) -> None:
    path = tmp_path / PART
    write_part(path, METADATA, [trajectory()])
    rewritten(path, header={"run": None if change is None else {**dataclasses.asdict(METADATA), **change}})
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        read_trajectories(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"reveal_step": [[2, 1, 4]]},
            r"record 0: reveal_step must have one entry per token of response_ids \(4\), got 3",
        ),
        ({"reveal_step": [[0, 1, 4, 3]]}, "record 0: reveal_step must lie in 1..32767, got 0..4"),
        ({"reveal_step": [[5, 1, 4, 3]]}, "record 0: reveal_step must lie in 1..num_steps = 4, got 5"),
        ({"task": ["other"]}, "record 'a': task must be the file's"),
    ],
)
def test_rows_that_cannot_be(tmp_path: Path, columns: dict[str, Any], message: str) -> None:
    path = tmp_path / PART
    write_part(path, METADATA, [trajectory()])
    rewritten(path, columns=columns)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        read_trajectories(tmp_path)


@pytest.mark.parametrize(
    "coverage",
    [[], {"wrong": []}, {"wrong": [["a"]], "digest": ""}, {"wrong": [[0, "a"]], "digest": ""}, {"digest": 1}],
)
def test_coverage_of_another_form(tmp_path: Path, coverage: Any) -> None:
    path = tmp_path / PART
    write_part(path, METADATA, [trajectory()])
    rewritten(path, header={"coverage": coverage})
    with pytest.raises(ValueError, match=f"{path}: expected coverage with 'wrong', pairs of id and sample, and"):
        read_trajectories(tmp_path)


def test_runs_of_one_tokenizer_may_stand_together(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    warm = dataclasses.replace(METADATA, temperature=0.7, task="another")
    write_part(one / PART, METADATA, [trajectory("a")])
    write_part(one / part_name(1, [("a", 0)]), warm, [trajectory("a", task="another")])
    write_part(other / PART, dataclasses.replace(METADATA, model="the same, moved"), [trajectory("b")])
    runs, rows = read_trajectories(one, other)
    assert runs == [METADATA, warm]
    assert [(row.id, row.task) for row in rows] == [("a", "toy"), ("a", "another"), ("b", "toy")]
    for name, value in (("mask_token_id", 98), ("tokenizer_hash", "x")):
        write_part(other / PART, dataclasses.replace(METADATA, **{name: value}), [trajectory("b")])
        with pytest.raises(ValueError, match=rf"{other / PART} does not belong with .*: its {name} is {value!r}"):
            read_trajectories(one, other)


def test_nothing_of_a_run_stands_in_a_folder_twice(tmp_path: Path) -> None:
    second = tmp_path / part_name(3, [("a", 0)])
    write_part(tmp_path / PART, METADATA, [trajectory("a")], coverage=wrong(("b", 0)))
    write_part(second, METADATA, [trajectory("a", sample=1)])
    assert len(read_trajectories(tmp_path)[1]) == 2
    for name, rows in (("a", [trajectory("a")]), ("b", [trajectory("b")])):
        write_part(second, METADATA, rows)
        with pytest.raises(ValueError, match=rf"{second} holds sample 0 of problem '{name}', and so does {PART}"):
            read_trajectories(tmp_path)


def test_no_folder_and_no_parts(tmp_path: Path) -> None:
    assert read_parts(tmp_path) == []
    with pytest.raises(
        ValueError, match=r"trajectories is '.*': expected trajectory files named part-\*.parquet, found none"
    ):
        read_trajectories(tmp_path)
    with pytest.raises(ValueError, match=r"trajectories is '.*missing', expected a folder"):
        read_trajectories(tmp_path / "missing")
