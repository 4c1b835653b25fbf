"""Who works on what: processes of one or many machines that share a folder claim pieces of work by files in it.

A claim is made in one step of the file system, so one process gets it. Who holds claims keeps them fresh. A claim whose
process is gone from this machine, or that was not kept fresh on another, is free again: so work that a process has
left behind is taken up by whoever comes by, in the same run or a later one. (Should two processes still work on the
same, they do it twice, with the same result.)
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tad_ext.data.trajectories.journal import CLAIM

FRESHENED = 20.0  # seconds between two signs of life
STALE = 300.0  # seconds without one, after which a process of another machine counts as gone


class Claims:
    """The claims of this process in a folder; a context manager, which gives them all back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: set[Path] = set()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Claims":
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._heart.join()
        for claim in self._held:
            claim.unlink(missing_ok=True)
        with self._signed() as own:
            for left in [*self.folder.glob(f"{CLAIM}*"), *self.folder.glob(".tmp-*-claim")]:
                _remove_if_stale(left, now=own.stat().st_mtime)

    def take(self, name: str) -> bool:
        """Whether this process has the piece of work of this name from now on."""
        claim = self.folder / f"{CLAIM}{name}"
        with self._signed() as own:
            _remove_if_stale(claim, now=own.stat().st_mtime)
            try:
                os.link(own, claim)
            except FileExistsError:
                return False
        self._held.add(claim)
        return True

    def give_back(self, name: str) -> None:
        """The work is done, or left to others."""
        claim = self.folder / f"{CLAIM}{name}"
        self._held.discard(claim)
        claim.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _signed(self) -> Iterator[Path]:
        """A file that names this process, made now by the clock of the folder's machine."""
        path = self.folder / f".tmp-{uuid.uuid4().hex[:8]}-claim"
        path.write_text(json.dumps(_this_process()), encoding="utf-8")
        try:
            yield path
        finally:
            path.unlink()

    def _beat(self) -> None:
        while not self._ended.wait(FRESHENED):
            for claim in tuple(self._held):
                try:
                    os.utime(claim)
                except FileNotFoundError:  # given back meanwhile
                    continue


def _this_process() -> dict[str, Any]:
    return {"machine": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> str | None:
    """When a process began, in the system's words; None where none runs, or there is no /proc."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in ("Z", "X") else fields[18]  # dead, but not yet looked after


def _remove_if_stale(claim: Path, *, now: float) -> None:
    """Removes a claim whose process is gone."""
    try:
        age = now - claim.stat().st_mtime
        process = json.loads(claim.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:  # a kill has cut it short
        process = {"machine": None}
    if process["machine"] == socket.gethostname() and process["started"] is not None:
        gone = process["started"] != _started(process["pid"])
    else:
        gone = age > STALE
    if gone:
        claim.unlink(missing_ok=True)
