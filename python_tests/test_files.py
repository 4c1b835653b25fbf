"""Atomic writing: what a reader can see at each moment, and what is left when a writer fails or is killed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tad_ext.files import atomic_folder, atomic_path, output_folder, remove_leftovers, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "curve.png"
    with atomic_path(target) as temporary:
        temporary.write_text("half")
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".png"
        assert not target.exists()
    assert target.read_text() == "half"
    assert names(tmp_path) == ["curve.png"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("new")
            raise error

    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_files_are_on_the_disk_before_they_get_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(str(Path(f"/proc/self/fd/{fd}").readlink())), fsync(fd))[1]
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b))[1])
    write_text(tmp_path / "a.txt", "x")
    assert len(events) == 3
    assert events[0].endswith("-a.txt")
    assert events[1:] == ["rename", str(tmp_path)]


def test_atomic_path_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"), atomic_path(tmp_path / "missing" / "a"):
        pass
    with pytest.raises(IsADirectoryError, match="expected a file"), atomic_path(tmp_path):
        pass
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_path(tmp_path / "a"):
        pass


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1.5}
    with pytest.raises(ValueError):
        write_json(tmp_path / "b.json", float("nan"))
    assert names(tmp_path) == ["a.json"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "checkpoint"
    with atomic_folder(target) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "weights").write_text("w")
        assert not target.exists()
    assert (target / "sub" / "weights").read_text() == "w"
    assert names(target.parent) == ["checkpoint"]


def test_an_existing_folder_is_refused_or_replaced(tmp_path: Path) -> None:
    target = tmp_path / "checkpoint"
    target.mkdir()
    with atomic_folder(target) as temporary:  # an empty one is no loss
        (temporary / "old").write_text("")
    with pytest.raises(FileExistsError, match="not empty"), atomic_folder(target):
        raise AssertionError("the work must not start")
    with pytest.raises(RuntimeError, match="planted"), atomic_folder(target, overwrite=True):
        raise RuntimeError("planted")
    assert names(target) == ["old"]
    assert names(tmp_path) == ["checkpoint"]
    with atomic_folder(target, overwrite=True) as temporary:
        (temporary / "new").write_text("")
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["checkpoint"]


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(NotADirectoryError, match="taken"), atomic_folder(tmp_path / "taken"):
        pass
    for path in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(ValueError, match=r"output must be a folder .*taken"):
            output_folder(path)
    with pytest.raises(ValueError, match="empty string"):
        output_folder("")
    assert output_folder(tmp_path / "a" / "b").is_dir()


def test_only_leftovers_of_the_named_files_are_removed(tmp_path: Path) -> None:
    kept = [".tmp-0123abcd-part-1.parquet", ".tmp-hello", "part-0.parquet"]
    for name in [*kept, ".tmp-0123abcd-part-0.parquet"]:
        (tmp_path / name).write_text("")
    (tmp_path / ".tmp-89abcdef-part-0.parquet").mkdir()
    removed = remove_leftovers(tmp_path, "part-0*")
    assert [path.name for path in removed] == [".tmp-0123abcd-part-0.parquet", ".tmp-89abcdef-part-0.parquet"]
    assert names(tmp_path) == sorted(kept)


def test_a_pipe_or_a_device_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match="pipe: expected a file's name, but it is a device or a pipe"):
        write_text(pipe, "text")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
