"""What of the machine is there at all: namespaces without a network, and a small file system in memory.

The server enters namespaces of its own once, as an unprivileged user may on most systems. In them it mounts an empty
file system for each program, and drops it behind it, whatever the program left there.
"""

import contextlib
import os
from pathlib import Path

from tad_ext.data.sandbox import kernel

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x40000000  # linux/sched.h
_RDONLY, _NOSUID, _NODEV, _REMOUNT, _REC, _PRIVATE = 1, 2, 4, 32, 1 << 14, 1 << 18  # linux/mount.h
_DETACH = 2
_INODES = 1000  # files and folders of a program


def enter(folder: str) -> None:
    """Moves this process to namespaces of its own, in which `folder` cannot be changed and holds the mount point.

    OSError if the system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.call("unshare", _NEWUSER | _NEWNS | _NEWNET | _NEWIPC | _NEWUTS)
    for name, text in {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}.items():
        Path("/proc/self", name).write_text(text)
    kernel.call("mount", None, b"/", None, _REC | _PRIVATE, None)  # what is mounted here is not seen outside
    path = os.fsencode(folder)
    kernel.call("mount", b"tmpfs", path, b"tmpfs", _NOSUID | _NODEV, b"size=64k,mode=755")
    mount_point(folder).mkdir()
    kernel.call("mount", None, path, None, _REMOUNT | _RDONLY | _NOSUID | _NODEV, None)


def mount_point(folder: str) -> Path:
    """The folder that is a program's own."""
    return Path(folder, "program")


def renew(folder: str, size: int) -> None:
    """Mounts an empty file system of so many bytes, in place of the last program's."""
    path = os.fsencode(mount_point(folder))
    with contextlib.suppress(OSError):  # the first program has none before it
        kernel.call("umount2", path, _DETACH)
    kernel.call("mount", b"tmpfs", path, b"tmpfs", _NOSUID | _NODEV, b"size=%d,nr_inodes=%d,mode=700" % (size, _INODES))


def leave(folder: str) -> None:
    """Unmounts everything, so that `folder` can be removed."""
    kernel.call("umount2", os.fsencode(folder), _DETACH)
