"""Calls to the Linux kernel that Python has no functions for, through the C library."""

import ctypes
import errno
import os
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38  # linux/prctl.h
SECCOMP_MODE_FILTER = 2


def call(function: str, *arguments: int | bytes | None) -> int:
    """What a function of the C library returns. OSError where it reports one, and on anything but Linux."""
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "needs Linux")
    # Whole registers: an int would leave their upper halves undefined where the kernel reads longs.
    passed = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    ctypes.set_errno(0)
    result = int(getattr(_library(), function)(*passed))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def give_up_capabilities() -> None:
    """Whatever the user is, root included, is nothing but the owner of files from here on; no program changes that."""
    version = (0x20080522).to_bytes(4, sys.byteorder)  # _LINUX_CAPABILITY_VERSION_3, then this thread
    call("capset", version + bytes(4), bytes(24))
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
