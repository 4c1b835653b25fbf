"""Writing files so that neither a reader nor a run killed at any moment meets half of one, and no work is lost.

What is written goes to a temporary name on the same file system, is flushed to the disk, and is then renamed to its own
name. The temporary name is ``.tmp-<random>-<name>``: globs for finished files pass it by, and writers that look at the
suffix find it.

A job tries its output before it works (`output_folder`, `tried_folder`, `tried_file`), may ask to be the only one who
writes there (`sole_writer`), leaves an earlier run's files alone until its own are complete (`successor`), and where
its result cannot be written, puts it elsewhere (`rescued`).
"""

import contextlib
import fcntl
import glob
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tad_ext.interrupts import shielded

_PREFIX = ".tmp-"
_PROBE = b"\0" * 4096


class CompleteError(OSError):
    """What was to be written is complete, but could not take its place; the message says where it is."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write one file to, which takes its name ``path`` on leaving the block (replacing an
    older file, or that which a link points to). If the block raises, it is removed, and ``path`` is as it was.

    Raises FileNotFoundError if the folder does not exist or the block wrote nothing, IsADirectoryError if ``path`` is a
    folder, FileExistsError if it is a device or a pipe, CompleteError if only the last rename fails.
    """
    path = _checked_file(path)
    temporary = _temporary(path)
    with _gone_on_error(temporary, path):
        yield temporary
        if not temporary.is_file():
            raise FileNotFoundError(f"nothing was written for {path} (expected a file at {temporary})")
        _sync(temporary)
        _move([(temporary, path)], made=temporary)
    _sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a new temporary folder; on leaving the block all its files stand in the folder ``path``. If the block
    raises, ``path`` is as it was.

    A new ``path`` gets its name by a rename. In one that exists (it may be a link, a mounted disk or the current
    folder) the temporary folder is made, and the files move up. With ``overwrite`` older files stand until then; a kill
    between the renames leaves files under temporary names, and nothing lost.

    Raises, before the block, FileExistsError if ``path`` holds files and ``overwrite`` is off, NotADirectoryError if it
    is a file; CompleteError if a last rename fails.
    """
    path = _real(path)
    is_new = not path.exists()
    if not is_new and not path.is_dir():
        raise NotADirectoryError(f"cannot write the folder {path}: a file of this name exists")
    older = [] if is_new else _contents(path)
    if older and not overwrite:
        raise FileExistsError(f"cannot write the folder {path}: it exists and is not empty")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path if is_new else path / path.name)
    with _gone_on_error(temporary, path):
        temporary.mkdir()
        yield temporary
        readable = temporary.stat().st_mode & 0o666  # by whom the umask says; safetensors asks for the owner alone
        for made in [*temporary.rglob("*"), temporary]:
            if made.is_file():
                with contextlib.suppress(OSError):  # on a file system without modes
                    made.chmod(readable)
            _sync(made)
        if is_new:
            _move([(temporary, path)], made=temporary)
        else:
            _move_up(temporary, older)
    _sync(path.parent if is_new else path)


@contextlib.contextmanager
def successor(folder: Path, earlier: Sequence[Path]) -> Iterator[Path]:
    """Where a job writes what replaces ``earlier``, an older run's files in ``folder``: these stand until it is done.

    Yields ``folder`` itself if there are none, otherwise a temporary folder in it, whose contents then move up, in the
    place of the older ones. When the block raises, what it wrote stays there, and a note of the exception says where.
    """
    written = _temporary(folder / _real(folder).name) if earlier else folder
    written.mkdir(exist_ok=True)
    before = _contents(written)
    try:
        yield written
    except BaseException as error:
        with contextlib.suppress(OSError), shielded():
            if earlier:
                written.rmdir()  # if it is empty
        if written.is_dir() and _contents(written) != before:
            error.add_note(f"what this run has written is in {written}")
        raise
    if earlier:
        _move_up(written, earlier)


@contextlib.contextmanager
def set_aside(paths: Iterable[Path]) -> Iterator[None]:
    """Takes earlier files and folders (of one folder) out of the way of the block, which writes others of these names.

    When the block ends, the earlier ones are removed; when it raises, they are put back, in the place of what it wrote.
    Killed without notice, it leaves them in a temporary folder beside.
    """
    paths = list(paths)
    present = [path for path in paths if path.exists()]
    if not present:
        yield
        return
    aside = _temporary(present[0].with_name("earlier"))
    aside.mkdir()
    _move([(path, aside / path.name) for path in present])
    try:
        yield
    except BaseException:
        with shielded():
            for path in paths:
                _remove(path)
            _move([(aside / path.name, path) for path in present])
            aside.rmdir()
        raise
    with shielded():
        shutil.rmtree(aside)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Within the block nobody else who asks so writes into the folder: ValueError if somebody does already.

    A process that ends in any way has left the block. On a file system without locks everybody is let in.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"output {str(folder)!r} is being written by another run; wait for it, or choose another folder"
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def remove_folder(path: Path) -> None:
    """Removes a folder, which a kill leaves as it is or under a temporary name, and never as a part of itself."""
    shutil.rmtree(path.rename(_temporary(path)))


def rescued(write: Callable[[Path], None], path: Path) -> None:
    """Calls ``write(path)``; if that fails because nothing more can be written there (a full disk), writes to the
    system's temporary folder instead, so that no hours of work are lost. The error that follows says where it is.
    """
    try:
        write(path)
    except CompleteError:
        raise
    except OSError as error:
        elsewhere = Path(tempfile.gettempdir(), f"tad-{uuid.uuid4().hex[:8]}", _real(path).name)
        try:
            write(elsewhere)
            error.add_note(f"it was written to {elsewhere} instead")
        except OSError as second:
            error.add_note(f"nor could it be written elsewhere ({second})")
            with contextlib.suppress(OSError):
                elsewhere.parent.rmdir()
        raise


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` as UTF-8 to ``path``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON to ``path``, atomically; NaN and infinity, which it lacks, are a ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def json_lines(rows: Iterable[Any]) -> str:
    """One JSON value a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def add_json_line(path: Path, *rows: Any) -> None:
    """Adds lines to a file, from the first one on; when this returns, they outlive the process."""
    with _named(path), path.open("a", encoding="utf-8") as file:
        file.write(json_lines(rows))


def output_folder(path: str | Path) -> Path:
    """Makes the folder that a job writes into, and tries to write there: what stands in the way is a ValueError."""
    if not str(path):
        raise ValueError("output must be the path of a folder, got '' (an empty string)")
    with _refused(path, "a folder that exists or can be made, and that can be written to"):
        folder = _real(path)
        folder.mkdir(parents=True, exist_ok=True)
        _try_writing(folder / folder.name)
    return Path(path)


def tried_folder(path: str | Path, *, empty: bool = False) -> Path:
    """As `output_folder`, but leaves everything as it was: for jobs that write nothing if they fail.

    ``empty``: it is to be a new folder, or an empty one; one that holds files is a FileExistsError.
    """
    folder = _real(path)
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        output_folder(path)
    finally:
        for one in missing:
            with contextlib.suppress(OSError):
                one.rmdir()
    if empty and folder.is_dir() and (there := _contents(folder)):
        raise FileExistsError(f"output must be a new or empty folder, got {str(path)!r}, which holds {there[0].name}")
    return Path(path)


def tried_file(path: str | Path) -> Path:
    """The path of a file that can be written, as was tried; anything in the way is a ValueError."""
    with _refused(path, "a file that can be written"):
        _try_writing(_checked_file(path))
    return Path(path)


def remove_leftovers(folder: str | Path, pattern: str) -> None:
    """Removes what killed writers left of files that match the glob ``pattern``, which nobody alive may be writing."""
    for path in leftovers(folder, pattern):
        _remove(path)


def leftovers(folder: str | Path, pattern: str) -> list[Path]:
    """What writers have left of files and folders that match the glob ``pattern``, or are still writing."""
    return sorted(Path(folder).glob(f"{_PREFIX}{'[0-9a-f]' * 8}-{pattern}"))


def successor_pattern(folder: Path) -> str:
    """The glob pattern of what `successor` makes in a folder, for `leftovers`."""
    return f"*{glob.escape(_real(folder).name)}"


def _real(path: str | Path) -> Path:
    """The absolute path behind links; unlike pathlib's resolve(), links in a circle are left to whoever opens it."""
    return Path(os.path.realpath(path))


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")


def _contents(folder: Path) -> list[Path]:
    """What a folder holds, without what other writers have left under temporary names."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(_PREFIX))


def _checked_file(path: str | Path) -> Path:
    """The path of a file, behind links; an OSError if no file can be there."""
    path = _real(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: expected a file's name, but it is a folder")
    if path.exists() and not path.is_file():
        raise FileExistsError(f"cannot write {path}: expected a file's name, but it is a device or a pipe")
    return path


@contextlib.contextmanager
def _refused(path: str | Path, expected: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"output must be {expected}, got {str(path)!r} ({error.strerror or error})") from error


def _try_writing(path: Path) -> None:
    """Writes a nameless file beside ``path``, which no kill can leave there, and looks whether the name can be."""
    with contextlib.suppress(FileNotFoundError):
        _temporary(path).lstat()  # it may be too long, with what it has until it is complete
    with tempfile.TemporaryFile(dir=path.parent, prefix=_PREFIX) as file:
        file.write(_PROBE)
        file.flush()
        os.fsync(file.fileno())


def _move_up(new: Path, older: Iterable[Path]) -> None:
    """Moves what the folder ``new`` holds into its parent, in the place of ``older``."""
    # The largest last: without its weights a checkpoint that a kill cuts short is not taken for a whole one.
    contents = sorted(new.iterdir(), key=lambda path: (path.stat().st_size, path.name))
    with shielded():
        aside = _temporary(new)
        aside.mkdir()
        away = [(path, aside / path.name) for path in older]
        try:
            _move([*away, *((path, new.with_name(path.name)) for path in contents)], made=new)
        except CompleteError:
            with contextlib.suppress(OSError):
                aside.rmdir()
            raise
        new.rmdir()
        shutil.rmtree(aside, ignore_errors=True)


def _move(renames: list[tuple[Path, Path]], *, made: Path | None = None) -> None:
    """Does all renames or none; CompleteError, saying where what was made stays, if one fails."""
    done: list[tuple[Path, Path]] = []
    with shielded():
        try:
            for source, target in renames:
                source.replace(target)
                done.append((source, target))
        except OSError as error:
            for source, target in reversed(done):
                target.replace(source)
            stays = f"; what was made is complete, in {made}" if made else ""
            raise CompleteError(f"cannot rename {source} to {target} ({error.strerror or error}){stays}") from error


@contextlib.contextmanager
def _gone_on_error(temporary: Path, path: Path) -> Iterator[None]:
    """What is written to ``temporary`` for ``path`` is removed if the block raises, unless it is complete."""
    try:
        with _named(path):
            yield
    except BaseException as error:
        if not isinstance(error, CompleteError):
            with shielded(), contextlib.suppress(OSError):
                _remove(temporary, ignore_errors=True)
        raise


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of writing name what was written, which a full disk's do not."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise


def _remove(path: Path, *, ignore_errors: bool = False) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flushes a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
