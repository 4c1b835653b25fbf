"""Atomic writing: what a reader can see at each moment, and what is left when a writer fails or is killed."""

import errno
import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import pytest
from safetensors import SafetensorError

from python_tests.conftest import real_fsync
from tad_ext.files import (
    CompleteError,
    add_json_line,
    atomic_folder,
    atomic_path,
    output_folder,
    remove_leftovers,
    rescued,
    set_aside,
    sole_writer,
    successor,
    tried_file,
    tried_folder,
    write_json,
    write_text,
)


@pytest.fixture(autouse=True)
def synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", real_fsync)


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
        assert [name for name in names(target) if not name.startswith(".tmp-")] == ["old"]
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


def fill(path: Path) -> None:
    with atomic_folder(path, overwrite=True) as temporary:
        (temporary / "weights").write_text("large " * 100)
        (temporary / "config").write_text("new")


def test_the_current_folder_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path())
    assert names(Path()) == ["config", "weights"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_behind_a_link_is_filled_and_the_link_stays(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):  # the second time it replaces the first
        fill(tmp_path / "link")
        assert names(tmp_path / "real") == ["config", "weights"]
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "real"]


def test_a_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("sub/a.txt")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "sub" / "a.txt").read_text() == "x"


def test_who_may_read_the_files_is_what_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "checkpoint") as temporary:
            (temporary / "weights").touch(mode=0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "checkpoint" / "weights").stat().st_mode & 0o777 == 0o640


@pytest.fixture
def unrenamable(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing can be renamed to the names that are put into the list."""
    replace = os.replace
    targets: list[str] = []

    def refusing(source: Path, target: Path) -> None:
        if Path(target).name in targets:
            raise OSError(16, "Device or resource busy")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    return targets


def test_what_is_complete_stays_when_only_its_last_rename_fails(tmp_path: Path, unrenamable: list[str]) -> None:
    unrenamable.append("a.txt")
    with pytest.raises(
        CompleteError, match=r"a\.txt .*Device or resource busy.*; what was made is complete, in "
    ) as one:
        write_text(tmp_path / "a.txt", "x")
    assert Path(str(one.value).rpartition(" in ")[2]).read_text() == "x"
    unrenamable.append("checkpoint")
    with pytest.raises(CompleteError, match="what was made is complete, in ") as other:
        fill(tmp_path / "checkpoint")
    assert names(Path(str(other.value).rpartition(" in ")[2])) == ["config", "weights"]


def test_an_older_folder_is_whole_again_when_a_rename_fails(tmp_path: Path, unrenamable: list[str]) -> None:
    fill(tmp_path)
    (tmp_path / "config").write_text("old")
    unrenamable.append("weights")
    with pytest.raises(CompleteError, match="what was made is complete, in ") as error:
        fill(tmp_path)
    made = Path(str(error.value).rpartition(" in ")[2])
    assert names(made) == ["config", "weights"]
    assert (tmp_path / "config").read_text() == "old"
    assert names(tmp_path) == [made.name, "config", "weights"]
    unrenamable.clear()
    fill(tmp_path)  # what was left does not count as its contents
    assert (tmp_path / "config").read_text() == "new"
    assert made.is_dir()


def full_disk(path: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
def test_a_full_disk_names_the_file(tmp_path: Path, error: Exception) -> None:
    for writer in (atomic_path, atomic_folder):
        with pytest.raises(OSError, match=r"No space left on device.*") as found, writer(tmp_path / "name"):
            raise error
        assert str(tmp_path / "name") in str(found.value)
    assert names(tmp_path) == []
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        add_json_line(Path("/dev/full"), {"a": 1})


def test_a_row_is_in_the_file_as_soon_as_it_is_added(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    add_json_line(file, {"text": "\u00e9\u2028"})
    assert file.read_bytes() == '{"text": "\u00e9\u2028"}\n'.encode()
    add_json_line(file, 2)
    assert len(file.read_text(encoding="utf-8").split("\n")) == 3


def test_an_output_is_tried_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    for path in ("a/b", "dangling", ".", "a/../b"):
        assert tried_folder(path, empty=path != ".") == Path(path)
        assert names(tmp_path) == ["dangling"]
    assert tried_file("a.png") == Path("a.png")
    assert names(tmp_path) == ["dangling"]
    (tmp_path / ".tmp-0123abcd-x").mkdir()  # a leftover is no content
    (tmp_path / "dangling").unlink()
    tried_folder(tmp_path, empty=True)
    (tmp_path / "precious").write_text("")
    with pytest.raises(FileExistsError, match=r"output must be a new or empty folder, got .*, which holds precious"):
        tried_folder(tmp_path, empty=True)
    assert output_folder(tmp_path) == tmp_path
    assert names(tmp_path) == [".tmp-0123abcd-x", "precious"]


@pytest.mark.parametrize("path", ["file", "file/sub", "/proc/x/y", "/proc", "loop", "n" * 250, ""])
def test_an_output_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to("loop")
    for check in (tried_folder, output_folder):
        with pytest.raises(ValueError, match=f"^output must be .*, got '{path}' "):
            check(path)
    assert names(tmp_path) == (["file", "loop"] if len(path) < 250 else ["file", "loop", path])


@pytest.mark.parametrize("path", ["folder", "nowhere/a.png", "/proc/a.png", "pipe", "n" * 250])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # stands for devices, which a rename would replace, too
    with pytest.raises(ValueError, match=f"^output must be a file that can be written, got '{path}' "):
        tried_file(path)
    with pytest.raises(OSError), atomic_path(path) as temporary:
        temporary.write_text("")
    assert names(tmp_path) == ["folder", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_earlier_files_stand_until_their_successors_are_complete(tmp_path: Path) -> None:
    for name in ("a", "b", "notes"):
        (tmp_path / name).write_text("old")
    with successor(tmp_path, [tmp_path / "a", tmp_path / "b"]) as folder:
        (folder / "a").write_text("new")
        (folder / "c").mkdir()
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"
    assert names(tmp_path) == ["a", "c", "notes"]
    assert ((tmp_path / "a").read_text(), (tmp_path / "notes").read_text()) == ("new", "old")
    with successor(tmp_path / "other", []) as folder:
        assert folder == tmp_path / "other"


def test_a_folder_has_one_writer_until_that_one_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holding = (
        "import sys; from tad_ext.files import sole_writer\nwith sole_writer(sys.argv[1]): print(flush=True), input()"
    )
    command = [sys.executable, "-c", holding, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ValueError, match="is being written by another run"), sole_writer(tmp_path):
            pass
        other.kill()
    for _ in range(2):
        with sole_writer(tmp_path):
            pass
    monkeypatch.setattr(fcntl, "flock", mock.Mock(side_effect=OSError(errno.ENOLCK, "No locks available")))
    with sole_writer(tmp_path):
        assert not names(tmp_path)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_the_note_of_an_error_says_what_a_failed_successor_has_written(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def write(earlier: list[Path], written: Iterable[str]) -> None:
        with successor(tmp_path, earlier) as folder:
            seen.append(folder)
            for name in written:
                (folder / name).write_text("new")
            raise error

    def fail(earlier: list[Path], *written: str) -> tuple[Path, list[str]]:
        with pytest.raises(error) as found:
            write(earlier, written)
        return seen[-1], getattr(found.value, "__notes__", [])

    seen: list[Path] = []

    assert fail([]) == (tmp_path, [])
    assert fail([], "a") == (tmp_path, [f"what this run has written is in {tmp_path}"])
    folder, notes = fail([tmp_path / "a"], "b")
    assert notes == [f"what this run has written is in {folder}"]
    assert (names(folder), names(tmp_path)) == (["b"], [folder.name, "a"])
    folder, notes = fail([tmp_path / "a"])
    assert (folder.exists(), notes) == (False, [])


def test_files_set_aside_come_back_unless_the_block_ends_well(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    paths[0].write_text("old")
    paths[1].mkdir()

    def fail(error: type[BaseException]) -> None:
        with set_aside(paths):
            assert [path.exists() for path in paths] == [False] * 3
            paths[0].mkdir()
            paths[2].write_text("new")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
        assert names(tmp_path) == ["a", "b"]
        assert paths[0].read_text() == "old"
    with set_aside(paths):
        paths[2].write_text("new")
    assert names(tmp_path) == ["c"]


def test_what_cannot_be_written_is_written_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "elsewhere"))

    def write(path: Path) -> None:
        if path == tmp_path / "full" / "adapter":
            full_disk(path)
        fill(path)

    with pytest.raises(OSError, match="No space left") as error:
        rescued(write, tmp_path / "full" / "adapter")
    [note] = error.value.__notes__
    folder = Path(note.removeprefix("it was written to ").removesuffix(" instead"))
    assert (names(folder), folder.name) == (["config", "weights"], "adapter")
    assert folder.parents[1] == tmp_path / "elsewhere"

    with pytest.raises(OSError, match="No space left") as error:
        rescued(full_disk, tmp_path / "adapter")
    assert error.value.__notes__ == ["nor could it be written elsewhere ([Errno 28] No space left on device)"]
    assert names(tmp_path / "elsewhere") == [folder.parent.name]


def test_what_is_complete_is_not_written_twice(tmp_path: Path, unrenamable: list[str]) -> None:
    unrenamable.append("adapter")
    with pytest.raises(CompleteError) as error:
        rescued(fill, tmp_path / "adapter")
    assert not hasattr(error.value, "__notes__")
    assert len(names(tmp_path)) == 1


def test_only_leftovers_of_the_named_files_are_removed(tmp_path: Path) -> None:
    kept = [".tmp-0123abcd-part-1.parquet", ".tmp-hello", "part-0.parquet"]
    for name in [*kept, ".tmp-0123abcd-part-0.parquet"]:
        (tmp_path / name).write_text("")
    (tmp_path / ".tmp-89abcdef-part-0.parquet").mkdir()
    remove_leftovers(tmp_path, "part-0*")
    assert names(tmp_path) == sorted(kept)
