"""`tad inspect` on small made folders, on one that is still written to, and one trajectory replayed."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from made_trajectories import made_metadata, write_made
from rich.console import Console

from tad_ext.data.trajectories.journal import Journal, Row
from tad_ext.jobs.inspect import replay
from tad_ext.sharing.claims import CLAIM


def test_the_numbers_of_every_run(tmp_path: Path, tad: Any, model: str, fitting: Any, run_of_model: Any) -> None:
    write_made(tmp_path / "one", [fitting("a"), fitting("b")], wrong=[("c", 0), ("d", 0)], **run_of_model)
    write_made(tmp_path / "two", [fitting("a", response_ids=[3, 1, 1, 1])], wrong=None, seed=7, **run_of_model)
    code, out, _ = tad(
        "inspect", "--trajectories", tmp_path / "one", tmp_path / "two", "--model", model, "--output", tmp_path / "out"
    )
    assert code == 0
    assert f"{tmp_path / 'one'}: 1 files, 2 trajectories\n" in out
    assert "run 1: toy train, topk:1 at temperature 0, 4 positions in blocks of 2, seed 0, by runs/base\n" in out
    assert "4 answers decoded, 2 right (50.0 % of the decoded), 2 kept, of 4 problems; 1 files\n" in out
    assert "run 2: toy train, topk:1 at temperature 0, 4 positions in blocks of 2, seed 7, by runs/base\n" in out
    assert "\n1 right, 1 kept, of 1 problems; 1 files\n" in out
    assert "behind the end of sequence: 50.0 % of the states, 50.0 % of the positions" in out
    report = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert [run["response_tokens"]["mean"] for run in report["runs"]] == [4, 2]
    assert [run["acceptance"] for run in report["runs"]] == [0.5, None]
    assert [run["run"]["seed"] for run in report["runs"]] == [0, 7]
    assert (tmp_path / "out" / "reveal_order.png").read_bytes()[:4] == b"\x89PNG"


def test_the_map_shows_blocks_from_left_to_right(tmp_path: Path, tad: Any, fitting: Any) -> None:
    write_made(tmp_path, [fitting(reveal_step=[1, 5, 6, 10], num_steps=10)])
    _, out, _ = tad("inspect", "--trajectories", tmp_path)
    rows = [line.partition("|")[2].rstrip("|") for line in out.splitlines() if " %  |" in line]
    assert rows == ["█   ", "    ", "    ", "    ", " █  ", "  █ ", "    ", "    ", "    ", "   █"]
    assert "tokens of the response" not in out  # nobody said what ends one


def test_a_collection_that_is_running(tmp_path: Path, tad: Any, fitting: Any) -> None:
    write_made(tmp_path, [fitting("a")], wrong=[("b", 0)])
    for run, names in ((made_metadata(), "abcd"), (made_metadata(seed=7), "a")):
        journal = Journal(tmp_path, run)
        for name in names:
            journal.add(Row(name, 0, "", [3], [1], 1, True, None))
    (tmp_path / f"{CLAIM}00000000-256").touch()
    _, out, _ = tad("inspect", "--trajectories", tmp_path)
    waiting = "3 answers are written down and not yet in a file, 1 pieces of work are claimed"
    assert f"1 files, 1 trajectories; a collection is not finished: {waiting}\n" in out
    (tmp_path / "new").mkdir()
    code, out, _ = tad("inspect", "--trajectories", tmp_path / "new")
    assert (code, out) == (0, f"{tmp_path / 'new'}: 0 files, 0 trajectories\n")


def test_a_replay_without_a_terminal_lists_the_steps(
    tmp_path: Path, tad: Any, model: str, fitting: Any, run_of_model: Any
) -> None:
    write_made(tmp_path, [fitting("a"), fitting("a", sample=1, reveal_step=[1, 4, 4, 4])], **run_of_model)
    code, out, _ = tad("inspect", "--trajectories", tmp_path, "--replay", "a", "--sample", 1, "--model", model)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("a, sample 1, of toy train, ")
    assert lines[0].endswith(": right answer '7'")
    assert lines[1:] == [
        "step    1: 0 'one'",
        "step    2: nothing",
        "step    3: nothing",
        "step    4: 1 'three', 2 'two', 3 '<eos>'",
        "one three two",
    ]


def test_a_replay_in_a_terminal_shows_the_canvas(
    tmp_path: Path, tad: Any, model: str, fitting: Any, run_of_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_made(tmp_path, [fitting("a")], **run_of_model)
    screen = Console(force_terminal=True, width=60, height=20, file=io.StringIO(), highlight=False, color_system=None)
    monkeypatch.setattr(replay, "terminal", lambda: screen)
    monkeypatch.setattr(replay, "_SECONDS", 0)
    tad("inspect", "--trajectories", tmp_path, "--replay", "a", "--model", model)
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    frames = ["░░░░", "░three░░", "one three░░", "one three░", "one three two"]
    places = [drawn.find(frame) for frame in frames]
    assert -1 not in places
    assert places == sorted(places)
    assert "step 4 of 4, 4 of 4 positions" in drawn


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replay", "a"], "replay is 'a' and needs model"),
        (["--replay", "z", "--model", "MODEL"], "replay is 'z' and sample 0, of which there is no trajectory in "),
        (["--replay", "a", "--sample", "3", "--model", "MODEL"], "expected one of 1 problems ('a', ...)"),
        (["--output", "/proc/x"], "output must be a folder that exists or can be made"),
        (["--model", "nowhere"], "model must be a checkpoint folder, got path 'nowhere'"),
    ],
)
def test_what_is_refused(tmp_path: Path, tad: Any, model: str, fitting: Any, words: list[str], message: str) -> None:
    write_made(tmp_path, [fitting("a")])
    code, _, err = tad("inspect", "--trajectories", tmp_path, *[model if word == "MODEL" else word for word in words])
    assert code == 2
    assert message in err


def test_a_folder_that_is_none(tmp_path: Path, tad: Any) -> None:
    code, _, err = tad("inspect", "--trajectories", tmp_path / "none")
    assert code == 2
    assert "expected a folder of trajectory files" in err
