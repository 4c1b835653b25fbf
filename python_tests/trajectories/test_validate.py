"""`tad validate` names every fault, where reading stops at the first."""

from pathlib import Path
from typing import Any

from made_trajectories import write_made


def test_good_files(tmp_path: Path, tad: Any, model: str, fitting: Any, run_of_model: Any) -> None:
    write_made(tmp_path, [fitting("a"), fitting("b")], wrong=[("c", 0)], **run_of_model)
    for words in ([], ["--model", model]):
        code, out, _ = tad("validate", "--trajectories", tmp_path, *words)
        assert (code, out) == (0, "1 files, 2 trajectories: no faults\n")


def test_every_fault_of_files(tmp_path: Path, tad: Any, fitting: Any, run_of_model: Any) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    good = write_made(one, [fitting("a"), fitting("b")], **run_of_model)
    cut = write_made(one, [fitting("c")], number=1, **run_of_model)
    cut.write_bytes(cut.read_bytes()[:-50])
    foreign = one / "part-9.parquet"
    foreign.write_text("no parquet")
    again = write_made(two, [fitting("b")], wrong=[("a", 0)], **run_of_model)
    other = write_made(two, [fitting("d")], number=1, tokenizer_hash="other", mask_token_id=0)
    masked = write_made(two, [fitting("e", response_ids=[3, 0, 4, 1])], number=2, **run_of_model)
    (tmp_path / "empty").mkdir()
    code, out, _ = tad("validate", "--trajectories", one, two, tmp_path / "empty")
    assert code == 1
    lines = out.splitlines()
    assert len(lines) == 8
    for path, text in (
        (tmp_path / "empty", "holds no trajectory files, part-*.parquet"),
        (cut, "expected a complete Parquet file"),
        (foreign, "expected a complete Parquet file"),
        (again, f"holds sample 0 of problem 'a', and so does {good}; expected it once"),
        (again, "holds sample 0 of problem 'b', and so does"),
        (other, f"does not belong with {good}: its tokenizer_hash is 'other', expected "),
        (masked, "record 'e', sample 0: is unfinished, response_ids holds the mask id 0"),
    ):
        assert any(line.startswith(f"{path}: {text}") for line in lines), (path, text, out)
    assert lines[-1] == "6 files, 5 trajectories: 7 faults in 6 of them"


def test_every_fault_against_a_model(tmp_path: Path, tad: Any, model: str, fitting: Any, run_of_model: Any) -> None:
    long = [fitting("long", prompt_ids=[3] * 21, teacher_prompt_ids=[3] * 22), fitting("odd", prompt_ids=[6])]
    write_made(tmp_path, [fitting("a"), *long], **run_of_model)
    write_made(tmp_path, [fitting("b", prompt_ids=[77])], number=1, **run_of_model | {"tokenizer_hash": "other"})
    code, out, _ = tad("validate", "--trajectories", tmp_path, "--model", model)
    assert code == 1
    assert "record 'long', sample 0: prompt_ids and response_ids need 25 positions together, the model has 24" in out
    assert "record 'long', sample 0: teacher_prompt_ids and response_ids need 26 positions" in out
    assert "record 'odd', sample 0: token id 6 is outside the vocabulary of 6" in out
    assert "trajectories were made with another tokenizer, of hash other, the model's is " in out
    assert "token id 77" not in out  # another tokenizer's ids mean nothing
    assert out.endswith("2 files, 4 trajectories: 5 faults in 2 of them\n")


def test_many_faults_of_a_file_are_counted(tmp_path: Path, tad: Any, fitting: Any) -> None:
    path = write_made(tmp_path, [fitting(str(number), response_ids=[3, 99, 4, 1]) for number in range(20)])
    code, out, _ = tad("validate", "--trajectories", tmp_path)
    assert code == 1
    assert out.splitlines()[5:] == [f"{path}: and 15 more", "1 files, 20 trajectories: 20 faults in 1 of them"]


def test_what_is_no_folder_and_no_model(tmp_path: Path, tad: Any) -> None:
    code, _, err = tad("validate", "--trajectories", tmp_path / "none")
    assert code == 2
    assert "expected a folder of trajectory files" in err
    assert tad("validate", "--trajectories", tmp_path, "--model", "nowhere")[0] == 2
