"""Every protection of a program: what the server prepares once, and what each child puts on before it meets one."""

import contextlib
import os
import resource
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tad_ext.data.sandbox import kernel, landlock, namespaces, seccomp

_LAST_MEMORY = 16 * 2**20  # for telling that there was no more


class Protection:
    """What one server protects its children with. A protection that fails is remembered with the reason."""

    def __init__(self) -> None:
        self._failed: dict[str, str] = {}
        self._rules = -1
        self._folder = tempfile.mkdtemp(prefix="tad-sandbox-")
        with self._noting("namespaces"):
            namespaces.enter(self._folder)
        own = namespaces.mount_point(self._folder)
        own.mkdir(exist_ok=True)
        with self._noting("files"):
            self._rules = landlock.ruleset(self._folder, writable="namespaces" not in self._failed)
        os.environ.clear()
        os.environ.update(HOME=str(own), TMPDIR=str(own), LANG="C.UTF-8", TZ="UTC")
        tempfile.tempdir = None  # it remembers where the folder was made

    def renew(self, limits: Mapping[str, Any]) -> None:
        """An empty folder for the next program, nothing kept from the last one."""
        if "namespaces" not in self._failed:
            with self._noting("namespaces"):
                namespaces.renew(self._folder, limits["file_bytes"])

    def put_on(self, limits: Mapping[str, Any], server: int) -> dict[str, str]:
        """Everything, on this process and for good; which protections failed, and why."""
        os.chdir(namespaces.mount_point(self._folder))
        with self._noting("limits"):
            _limit(limits)
        with self._noting("privileges"):
            kernel.give_up_capabilities()
        with self._noting("limits"):
            kernel.call("prctl", kernel.PR_SET_PDEATHSIG, 9, 0, 0, 0)
            if os.getppid() != server:  # which ended before that
                os._exit(1)
        if "files" not in self._failed:
            with self._noting("files"):
                landlock.restrict(self._rules)
        with self._noting("system calls"):
            seccomp.restrict()
        return self._failed

    def remove(self) -> None:
        """Leaves nothing behind."""
        with contextlib.suppress(OSError):
            namespaces.leave(self._folder)
        with contextlib.suppress(OSError):
            namespaces.mount_point(self._folder).rmdir()
        with contextlib.suppress(OSError):
            Path(self._folder).rmdir()

    @contextlib.contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: of a limit above the one that this process has
            self._failed[name] = str(error)


def _limit(limits: Mapping[str, Any]) -> None:
    # Behind a limit that can be noticed there is one that cannot be ignored.
    memory, seconds = limits["memory_bytes"], limits["cpu_seconds"]
    for kind, noticed, most in [
        (resource.RLIMIT_AS, memory, memory + _LAST_MEMORY),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_FSIZE, limits["file_bytes"], limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"], limits["open_files"]),
        (resource.RLIMIT_NPROC, 1, 1),
        (resource.RLIMIT_CORE, 0, 0),
    ]:
        _, already = resource.getrlimit(kind)
        allowed = [limit if already == resource.RLIM_INFINITY else min(limit, already) for limit in (noticed, most)]
        resource.setrlimit(kind, (allowed[0], allowed[1]))
    with contextlib.suppress(OSError):  # short of memory, the system is to choose this process
        Path("/proc/self/oom_score_adj").write_text("1000")


def give_last_memory() -> int:
    """For an error's last words, which take memory, too; the bytes that there were until now."""
    until_now, most = resource.getrlimit(resource.RLIMIT_AS)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    return until_now
