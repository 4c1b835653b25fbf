"""Who works on what: processes of one or many machines that share a folder claim pieces of work by files in it.

A claim is made in one step of the file system, so one process gets it. Who holds claims keeps them fresh. A claim whose
process is gone from this machine, or that was not kept fresh on another, is free again: so work that a process has
left behind is taken up by whoever comes by, in the same run or a later one. (Should two processes still work on the
same, they do it twice, with the same result.) Processes that would cut other pieces, or make something else of them,
do not work in one folder at a time.
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

CLAIM = ".claim-"  # how the name of a file begins that says: a process works on this piece
FRESHENED = 20.0  # seconds between two signs of life
STALE = 300.0  # seconds without one, after which a process of another machine counts as gone
_OPEN: set[str] = set()  # of this process: the names of its `Claims`


class Claims:
    """The claims of this process in a folder; a context manager, which gives them all back.

    Args:
        folder: what is shared.
        work: says what the pieces are: the same for all who may share them.
    """

    def __init__(self, folder: Path, work: str) -> None:
        self.folder, self.work, self.name = folder, work, uuid.uuid4().hex
        self._held: set[Path] = set()
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> "Claims":
        _OPEN.add(self.name)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        _OPEN.discard(self.name)
        self._ended.set()
        self._heart.join()
        with contextlib.suppress(OSError):  # what stays is stale, as this object is closed
            for claim in self._held:
                claim.unlink(missing_ok=True)
            with self._signed() as own:
                now = own.stat().st_mtime  # asked once: it is among what is left, and may be the first to go
                for left in [*self.folder.glob(f"{CLAIM}*"), *self.folder.glob(".tmp-*-claim")]:
                    if _holder(left, now=now) is None:
                        left.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Whether this process has the piece of work of this name from now on.

        ValueError if another one works in this folder on something else.
        """
        claim = self.folder / f"{CLAIM}{name}"
        with self._signed() as own:
            now = own.stat().st_mtime
            taken = _linked(own, claim)
            if not taken and _holder(claim, now=now) is None:
                claim.unlink(missing_ok=True)
                taken = _linked(own, claim)
            if taken:
                self._held.add(claim)
            for other in self.folder.glob(f"{CLAIM}*"):
                holder = _holder(other, now=now)
                if holder is not None and holder["work"] != self.work:
                    raise ValueError(
                        f"output: another run, process {holder['pid']} on {holder['machine']}, works in "
                        f"'{self.folder}' on other problems or with other settings; wait for it, or give it the same"
                    )
        return taken

    def give_back(self, name: str) -> None:
        """The work is done, or left to others."""
        claim = self.folder / f"{CLAIM}{name}"
        self._held.discard(claim)
        claim.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _signed(self) -> Iterator[Path]:
        """A file that names this process, made now by the clock of the folder's machine."""
        path = self.folder / f".tmp-{uuid.uuid4().hex[:8]}-claim"
        signature = json.dumps({**_this_process(), "claims": self.name, "work": self.work}).encode()
        try:
            # At once: of a file that a kill leaves empty nobody knows whose it was, and so it stays until it is stale.
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                os.write(file, signature)
            finally:
                os.close(file)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(FRESHENED):
            for claim in tuple(self._held):
                with contextlib.suppress(OSError):  # given back meanwhile, or a file system that comes back
                    os.utime(claim)


def _linked(own: Path, claim: Path) -> bool:
    """Makes a claim in one step; False if there is one."""
    try:
        os.link(own, claim)
    except FileExistsError:
        return False
    return True


def _this_process() -> dict[str, Any]:
    """What tells a process from all others."""
    pid = os.getpid()
    return {"machine": socket.gethostname(), "space": _space(), "pid": pid, "started": _started(pid)}


def _space() -> str | None:
    """Within which process ids mean what they mean here: until the machine starts again, and in this container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process began, in the system's words; None where none runs, or there is no /proc."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in ("Z", "X") else fields[18]  # dead, but not yet looked after


def _holder(claim: Path, *, now: float) -> dict[str, Any] | None:
    """The process that holds a claim; None if there is no such claim, or its process is gone."""
    try:
        age = now - claim.stat().st_mtime
        process: dict[str, Any] = json.loads(claim.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:  # a kill has cut it short
        return None if age > STALE else {"machine": "?", "pid": "?", "work": None}
    here = process["space"] is not None and (process["machine"], process["space"]) == (socket.gethostname(), _space())
    if here and process["pid"] == os.getpid() and process["started"] == _started(os.getpid()):
        return process if process["claims"] in _OPEN else None
    gone = process["started"] != _started(process["pid"]) if here else age > STALE
    return None if gone else process
