"""`tad select`: what is merged, filtered, drawn and split, and what it leaves alone."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from made_trajectories import made_trajectory, write_made

from tad_ext.data.trajectories.files import read_parts, read_trajectories
from tad_ext.data.trajectories.metadata import Coverage


@pytest.fixture
def folders(tmp_path: Path, fitting: Any, run_of_model: Any) -> list[Path]:
    """Two runs of one task, the second of two samples, and one of another task."""
    write_made(tmp_path / "greedy", [fitting(name, correct=name != "b") for name in "abc"], wrong=[("d", 0)],
               **run_of_model)  # fmt: skip
    hot = [fitting(name, sample=sample, response_ids=[3, 1, 1, 1]) for name in "ab" for sample in (0, 1)]
    write_made(tmp_path / "hot", hot, temperature=0.7, **run_of_model)
    write_made(tmp_path / "code", [made_trajectory("a", task="code", num_steps=9)], task="code", **run_of_model)
    return [tmp_path / name for name in ("greedy", "hot", "code")]


def names(folder: Path) -> list[tuple[str, str, int]]:
    return [(item.task, *item.key) for item in read_trajectories(folder)[1]]


def test_folders_are_merged_and_runs_stay_apart(tmp_path: Path, tad: Any, folders: list[Path]) -> None:
    code, out, _ = tad("select", "--trajectories", *folders, "--output", tmp_path / "out")
    assert (code, out) == (
        0,
        f"{tmp_path / 'out'}: 8 trajectories of 4 problems and 3 runs (7 of 7 of toy, 1 of 1 of code)\n",
    )
    parts = read_parts(tmp_path / "out")
    assert [part.metadata.temperature for part in parts] == [0.0, 0.7, 0.0]
    assert parts[0].coverage == Coverage((("d", 0),), "0")
    assert [item for part in parts for item in part.trajectories] == read_trajectories(*folders)[1]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--correct"], 7),
        (["--task", "code"], 1),
        (["--task", "code", "toy"], 8),
        (["--max-steps", "4"], 7),
        (["--ids", "IDS"], 4),
        (["--max-length", "2", "--model", "MODEL"], 4),
        (["--min-length", "3", "--model", "MODEL"], 4),
        (["--samples", "1"], 4),
        (["--samples", "2", "--limit", "3"], 3),
        (["--limit", "100"], 8),
    ],
)
def test_every_option_leaves_what_it_says(
    tmp_path: Path, tad: Any, folders: list[Path], model: str, words: list[str], kept: int
) -> None:
    (tmp_path / "ids.txt").write_text("b\n\nc \nz\n")
    stands_for = {"IDS": str(tmp_path / "ids.txt"), "MODEL": model}
    words = [stands_for.get(word, word) for word in words]
    code, out, _ = tad("select", "--trajectories", *folders, "--output", tmp_path / "out", *words)
    assert code == 0
    assert f": {kept} trajectories of " in out
    assert len(names(tmp_path / "out")) == kept


def test_of_a_run_that_lost_something_nothing_says_what_was_decoded(
    tmp_path: Path, tad: Any, folders: list[Path]
) -> None:
    tad("select", "--trajectories", *folders, "--output", tmp_path / "out", "--correct")
    coverage = {part.metadata.temperature: part.coverage for part in read_parts(tmp_path / "out")[:2]}
    assert coverage == {0.0: None, 0.7: Coverage((), "0")}


def test_a_holdout_is_of_other_problems(tmp_path: Path, tad: Any, folders: list[Path]) -> None:
    code, out, _ = tad("select", "--trajectories", *folders, "--output", tmp_path / "out", "--holdout", "0.5")
    assert code == 0
    train, holdout = names(tmp_path / "out" / "train"), names(tmp_path / "out" / "holdout")
    assert len(train) + len(holdout) == 8
    problems = [{name[:2] for name in side} for side in (train, holdout)]
    assert list(map(len, problems)) == [2, 2]
    assert not problems[0] & problems[1]
    assert out.count("trajectories of 2 problems and ") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "math"], "task is 'math', expected one that trajectories are of: toy, code"),
        (["--max-steps", "1"], "hold 8 trajectories, of which none is as the options ask"),
        (["--min-length", "3"], "min_length is 3 and needs model"),
        (["--min-length", "3", "--max-length", "2", "--model", "m"], "min_length is 3, expected at most max_length, 2"),
        (["--ids", "nowhere"], "ids is 'nowhere', which is not a file"),
        (["--holdout", "0.5", "--task", "code"], "holdout is 0.5: expected trajectories of at least 2 problems, got 1"),
        (["--holdout", "1"], "holdout must be a finite number in (0, 1)"),
    ],
)
def test_what_is_refused_leaves_no_folder(
    tmp_path: Path, tad: Any, folders: list[Path], words: list[str], message: str
) -> None:
    code, _, err = tad("select", "--trajectories", *folders, "--output", tmp_path / "out", *words)
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_files_and_folders_that_overlap(tmp_path: Path, tad: Any, folders: list[Path]) -> None:
    code, _, err = tad("select", "--trajectories", folders[0], "--output", folders[1])
    assert code == 2
    assert "output must be a new or empty folder" in err
    shutil.copytree(folders[0], tmp_path / "copy")
    for other, message in (
        (folders[0], "trajectories must name different folders, got "),
        (tmp_path / "copy", "holds sample 0 of problem 'a', and so does "),
    ):
        code, _, err = tad("select", "--trajectories", folders[0], other, "--output", tmp_path / "out")
        assert code == 2
        assert message in err


def test_trajectories_of_two_tokenizers_do_not_mix(tmp_path: Path, tad: Any, folders: list[Path], fitting: Any) -> None:
    write_made(tmp_path / "other", [fitting("q")], tokenizer_hash="other")
    code, _, err = tad("select", "--trajectories", folders[0], tmp_path / "other", "--output", tmp_path / "out")
    assert code == 2
    assert "its mask_token_id is 99, expected 0" in err
