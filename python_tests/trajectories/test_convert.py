"""`tad convert` there and back through files; what the lines mean is tested with `published_jsonl`."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_trajectories import write_made

from tad_ext.data.trajectories.files import read_parts

QUESTION = "Question: one two\nReference Answer: two\nAfter understanding the reference answer, one"


def line(index: int = 0, **changes: Any) -> dict[str, Any]:
    """As the published script for math writes it, in the words model's tokens."""
    trajectory = {"step0": [0, 0], "step1": [0, 4], "step2": [3, 4]}
    return {
        "dataset_name": "gsm8k", "index": index, "sample_id": 0, "prompt": "one two three", "question": QUESTION,
        "answer_gt": 2.0, "pred": "2", "prompt_len": 3, "trajectory": trajectory, "output_text": "one two",
    } | changes  # fmt: skip


def write_lines(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_there_and_back(tmp_path: Path, tad: Any, model: str, fitting: Any, run_of_model: Any) -> None:
    write_made(tmp_path / "in", [fitting(str(number)) for number in range(200)], wrong=[("z", 0)], **run_of_model)
    write_made(tmp_path / "in", [fitting(f"b{number}") for number in range(100)], number=1, **run_of_model)
    write_made(tmp_path / "in", [fitting("0", correct=False)], number=2, seed=7, keep="all", **run_of_model)
    file, back = tmp_path / "out.jsonl", tmp_path / "back"
    code, out, _ = tad("convert", "--trajectories", tmp_path / "in", "--model", model, "--output", file)
    assert (code, out.splitlines()[0]) == (0, f"301 trajectories written to {file}")
    code, out, _ = tad("convert", "--jsonl", file, "--model", model, "--output", back)
    assert code == 0
    assert "300 trajectories of toy, 4 positions each\n1 trajectories of toy, 4 positions each\n" in out
    before, after = ([(part.metadata, item) for part in read_parts(folder) for item in part.trajectories]
                     for folder in (tmp_path / "in", back))  # fmt: skip
    assert after == before
    assert [len(part.trajectories) for part in read_parts(back)] == [256, 44, 1]
    assert {part.coverage for part in read_parts(back)} == {None}


def test_published_lines_with_their_summary(tmp_path: Path, tad: Any, model: str, run_of_model: Any) -> None:
    file = write_lines(tmp_path / "math.jsonl", line(0), line(1), {"summary": "any_success", "solved": 2})
    words = ["--jsonl", file, "--model", model, "--temperature", "0.7", "--policy", "dream:order=entropy"]
    code, _, err = tad("convert", *words, "--output", tmp_path / "out")
    assert code == 0, err
    (part,) = read_parts(tmp_path / "out")
    run = part.metadata
    assert (run.task, run.split, run.temperature, run.gen_length, run.block_length) == ("gsm8k", "train", 0.7, 2, 32)
    assert (run.mask_token_id, run.tokenizer_hash) == tuple(run_of_model.values())
    assert (run.model, run.model_revision, run.policy.partition(":")[0]) == (model, "", "dream")
    assert [item.key for item in part.trajectories] == [("gsm8k-0", 0), ("gsm8k-1", 0)]


@pytest.mark.parametrize(
    ("records", "words", "message"),
    [
        ([line(0), line(1)], [], "lines.jsonl, line 1: does not say at which temperature it was decoded"),
        ([line(0), line(0)], ["--temperature", "0"], "line 2: sample 0 of problem 'gsm8k-0' stands in an earlier line"),
        ([line(0), line(1, trajectory={"step0": [0, 5], "step1": [3, 4]})], ["--temperature", "0"],
         "line 2: state 1 changes position 1 from 5 to 4"),
        ([line(0), {"trajectory": 3}], ["--temperature", "0"], "line 2: 'trajectory' must be dict, got '3'"),
        ([{"summary": "s"}], ["--temperature", "0"], "expected trajectories, found none"),
        ([], ["--temperature", "0"], "expected trajectories, found none"),
        ([line(0)], ["--temperature", "0", "--trajectories", "x"], "expected one of jsonl, files to read, and"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_leaves_no_folder(
    tmp_path: Path, tad: Any, model: str, records: list[Any], words: list[str], message: str
) -> None:
    file = write_lines(tmp_path / "lines.jsonl", *records)
    code, _, err = tad("convert", "--jsonl", file, "--model", model, "--output", tmp_path / "out", *words)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_line_that_is_no_json(tmp_path: Path, tad: Any, model: str) -> None:
    (tmp_path / "lines.jsonl").write_bytes(json.dumps(line()).encode() + b'\n\n{"a": \xff}\n')
    words = ["--model", model, "--temperature", "0", "--output", tmp_path / "out"]
    code, _, err = tad("convert", "--jsonl", tmp_path / "lines.jsonl", *words)
    assert code == 2
    assert "lines.jsonl, line 3: not UTF-8 text" in err
    code, _, err = tad("convert", "--jsonl", tmp_path / "none.jsonl", *words)
    assert code == 2
    assert "none.jsonl', which is not a file" in err


def test_what_cannot_be_written_leaves_the_old_file(
    tmp_path: Path, tad: Any, model: str, fitting: Any, run_of_model: Any
) -> None:
    file = write_lines(tmp_path / "old.jsonl", 1)
    words = ["--model", model, "--output", file, "--trajectories"]
    write_made(tmp_path / "masked", [fitting("a"), fitting("b", response_ids=[3, 0, 4, 1])], **run_of_model)
    write_made(tmp_path / "other", [fitting("a")], mask_token_id=0)
    write_made(tmp_path / "same", [fitting("a")], **run_of_model)
    (tmp_path / "none").mkdir()
    for names, message in (
        (["masked"], "trajectory 'b' is unfinished: response_ids holds the mask id 0"),
        (["other"], "trajectories were made with another tokenizer"),
        (["same", "masked"], "holds sample 0 of problem 'a', and so does"),
        (["none"], "expected files part-*.parquet, found none"),
    ):
        code, _, err = tad("convert", *words, *[tmp_path / name for name in names])
        assert code == 2
        assert message in err
        assert file.read_text() == "1\n"
