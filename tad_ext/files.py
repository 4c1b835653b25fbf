"""Writing files so that a reader, or a run killed at any moment, never meets half of one.

What is written goes to a temporary name in the same folder (the same file system, so that a rename is atomic), is
flushed to the disk, and is then renamed to its own name. A temporary name starts with a dot and keeps the original
name at its end: ``.tmp-<random>-<name>``, so that globs for finished files pass it by and writers that look at the
suffix still find it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PREFIX = ".tmp-"


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path to write one file to; on leaving the block the file takes its name ``path`` (replacing
    an older one).

    If the block raises, the temporary file is removed and ``path`` is as it was. Raises FileNotFoundError if the
    folder does not exist or the block wrote nothing, IsADirectoryError if ``path`` is a folder, ValueError
    if it is a device or a pipe.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: expected a file's name, but it is a folder")
    if path.exists() and not path.is_file():  # a rename would put a file in the place of /dev/null
        raise ValueError(f"cannot write {path}: expected a file's name, but it is a device or a pipe")
    temporary = _temporary(path)
    try:
        yield temporary
        if not temporary.is_file():
            raise FileNotFoundError(f"nothing was written for {path} (expected a file at {temporary})")
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a new temporary folder beside ``path``; on leaving the block it takes the name ``path``, complete with
    all its files.

    An existing non-empty ``path`` is refused with FileExistsError before the block runs, unless ``overwrite``: then
    the old folder stands until the new one is complete, and is replaced as a whole. (Two renames: a kill exactly
    between them leaves the old one under its temporary name, and nothing lost.) A file of that name is a
    NotADirectoryError. If the block raises, ``path`` is as it was.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"cannot write the folder {path}: a file of this name exists")
    if not overwrite and path.is_dir() and any(path.iterdir()):
        raise FileExistsError(f"cannot write the folder {path}: it exists and is not empty")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    temporary.mkdir()
    try:
        yield temporary
        for folder, _, names in os.walk(temporary):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        _replace_folder(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


def write_text(path: str | Path, text: str) -> None:
    """Writes ``text`` as UTF-8 to ``path``, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Writes ``value`` as indented JSON to ``path``, atomically; NaN and infinity, which JSON does not have, are a
    ValueError.
    """
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def output_folder(path: str | Path, *, argument: str = "output") -> Path:
    """Makes the folder a job writes into; a file in its way, or no permission to write, is a ValueError naming
    ``argument``.
    """
    folder = Path(path)
    if not str(path):
        raise ValueError(f"{argument} must be the path of a folder, got an empty string")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"{argument} must be a folder that exists or can be made, got {str(path)!r} ({reason})"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{argument} must be a folder that can be written to, got {str(path)!r}")
    return folder


def remove_leftovers(folder: str | Path, pattern: str) -> list[Path]:
    """Removes what killed writers left in ``folder`` of files and folders whose final name matches the glob
    ``pattern``.

    Only call it for names that no other living process writes (a rank's own parts). Returns what was removed.
    """
    leftovers = sorted(Path(folder).glob(f"{_PREFIX}{'[0-9a-f]' * 8}-{pattern}"))
    for path in leftovers:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return leftovers


def _temporary(path: Path) -> Path:
    return path.with_name(f"{_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")


def _replace_folder(new: Path, path: Path) -> None:
    """Renames ``new`` to ``path``, moving a non-empty older folder out of the way and back again if that fails."""
    if not path.is_dir() or not any(path.iterdir()):
        new.replace(path)
        return
    old = _temporary(path)
    path.replace(old)
    try:
        new.replace(path)
    except BaseException:
        old.replace(path)
        raise
    shutil.rmtree(old)


def _sync(path: Path) -> None:
    """Flushes a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
