"""Which files a program can open: a Landlock ruleset. What no rule names cannot be opened, listed, made or removed.

A rule for a folder holds for everything below it, on whatever file system. Names, sizes and times are not guarded: who
guesses a path can ask whether it is there.
"""

import os
import struct
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tad_ext.data.sandbox import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every architecture
_VERSION, _PATH_BENEATH = 1, 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _EVERYTHING = 1 << 1, 1 << 2, 1 << 3, (1 << 13) - 1  # linux/landlock.h
_SINCE = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # version -> a right that it added: moving, truncating, device controls
_NETWORK, _SCOPES = 3, 3  # every right to a network; abstract sockets and signals of others

_FOREIGN = {"site-packages", "dist-packages"}
_LIBRARIES = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"]
_HARMLESS = ["/dev/zero", "/dev/urandom", "/dev/random", "/usr/share/zoneinfo"]


def ruleset(folder: str, *, writable: bool) -> int:
    """A descriptor for `restrict`: the Python installation can be read but for installed packages, so can the system's
    libraries; `folder` can be read and, if `writable`, changed. OSError if the kernel has no Landlock.
    """
    try:
        version = kernel.call("syscall", _CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        raise OSError(f"no Landlock, which is part of Linux since 5.13 but may be switched off ({error})") from error
    everything = _EVERYTHING | sum(right for since, right in _SINCE.items() if version >= since)
    # struct landlock_ruleset_attr, as far as this kernel knows it
    attributes = struct.pack("QQQ", everything, _NETWORK, _SCOPES)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = kernel.call("syscall", _CREATE_RULESET, attributes, len(attributes), 0)
    for path in [*_installation(), *_LIBRARIES, *_HARMLESS]:
        _allow(rules, path, _READ_FILE | _READ_DIR)
    for path in _standard_libraries():
        _allow(rules, path, _READ_DIR)  # imports list it
    _allow(rules, os.devnull, _READ_FILE | _WRITE_FILE)
    _allow(rules, folder, everything if writable else _READ_FILE | _READ_DIR)
    return rules


def restrict(rules: int) -> None:
    """Puts the rules on this process, for good."""
    kernel.call("syscall", _RESTRICT_SELF, rules, 0)


def _standard_libraries() -> set[str]:
    return {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}


def _installation() -> Iterator[str]:
    for library in _standard_libraries():
        yield from (entry.path for entry in os.scandir(library) if entry.name not in _FOREIGN)
    shared = sysconfig.get_config_var("LIBDIR")
    if shared and Path(shared).is_dir():
        yield from (entry.path for entry in os.scandir(shared) if ".so" in entry.name)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        end = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no rule
    try:
        if not Path(path).is_dir():
            rights &= _READ_FILE | _WRITE_FILE
        # struct landlock_path_beneath_attr, packed
        kernel.call("syscall", _ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, end), 0)
    finally:
        os.close(end)
