"""Which system calls a program may make: a seccomp filter that names them; all others are errors.

There is none that makes a process or a thread, opens a socket, signals, traces or examines another process, changes
modes, owners or times of a file (which Landlock does not guard), mounts, or loads into the kernel; and none that is
newer than this list.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tad_ext.data.sandbox import kernel

# Name, and number on x86-64 and on AArch64 (asm/unistd_64.h, asm-generic/unistd.h); -: there it is not.
_LISTED = """
read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68, preadv 295 69, pwritev 296 70,
lseek 8 62, close 3 57, close_range 436 436, dup 32 23, dup2 33 -, dup3 292 24, open 2 -, openat 257 56,
creat 85 -, access 21 -, faccessat 269 48, faccessat2 439 439, stat 4 -, lstat 6 -, fstat 5 80,
newfstatat 262 79, statx 332 291, statfs 137 43, fstatfs 138 44, readlink 89 -, readlinkat 267 78, getcwd 79 17,
chdir 80 49, fchdir 81 50, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35, rename 82 -,
renameat 264 38, renameat2 316 276, link 86 -, linkat 265 37, symlink 88 -, symlinkat 266 36, ftruncate 77 46,
getdents64 217 61, umask 95 166, fsync 74 82, fdatasync 75 83, flock 73 32, fadvise64 221 223, sendfile 40 71,
copy_file_range 326 285, pipe 22 -, pipe2 293 59, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
epoll_create 213 -, epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
eventfd2 290 19,
brk 12 214, mmap 9 222, munmap 11 215, mremap 25 216, mprotect 10 226, madvise 28 233,
time 201 -, gettimeofday 96 169, clock_gettime 228 113, clock_getres 229 114, nanosleep 35 101,
clock_nanosleep 230 115, times 100 153, getrusage 98 165, alarm 37 -, getitimer 36 102, setitimer 38 103,
rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139, rt_sigpending 127 136, rt_sigtimedwait 128 137,
rt_sigsuspend 130 133, sigaltstack 131 132, pause 34 -,
exit 60 93, exit_group 231 94, futex 202 98, set_robust_list 273 99, set_tid_address 218 96, rseq 334 293,
sched_yield 24 124, sched_getaffinity 204 123, getpid 39 172, gettid 186 178, getppid 110 173, getpgrp 111 -,
getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158, getresuid 118 148,
getresgid 120 150, getrlimit 97 163, getcpu 309 168, uname 63 160, sysinfo 99 179, getrandom 318 278,
arch_prctl 158 -, restart_syscall 219 128, wait4 61 260,
recvfrom 45 207, recvmsg 47 212, sendmsg 46 211, shutdown 48 210, getsockname 51 204, getsockopt 55 209,
fcntl 72 25, ioctl 16 29, kill 62 129, tgkill 234 131, prctl 157 167, prlimit64 302 261, sendto 44 206,
socketpair 53 199
"""
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # linux/audit.h, and the column of numbers
_FIRST_RECENT = 424  # later ones have the same number everywhere, and C libraries expect that they may not exist

_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # classic BPF, linux/bpf_common.h


@dataclass(frozen=True)
class Condition:
    """What an argument must be; the kernel takes the lower half of a register for these."""

    argument: int
    values: Sequence[int]
    mask: int = 0xFFFFFFFF
    upper: bool = False  # the upper half instead

    @property
    def place(self) -> int:
        """In struct seccomp_data, on a little-endian processor."""
        return 16 + 8 * self.argument + 4 * self.upper


def restrict() -> None:
    """Installs the filter for this process, for good. OSError if the kernel or the processor has no such thing."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {machine}")
    code = b"".join(_filter(machine, os.getpid()))
    instructions = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: how many instructions, and where
    program = struct.pack("HP", len(code) // 8, ctypes.addressof(instructions))
    kernel.call("prctl", kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER, program)


def numbers(machine: str) -> dict[str, int]:
    """The listed calls that this processor has."""
    column = _ARCHITECTURES[machine][1]
    entries = (entry.split() for entry in _LISTED.split(","))
    return {name: int(listed[column]) for name, *listed in entries if listed[column] != "-"}


def _conditions(own_id: int) -> dict[str, list[Condition]]:
    """Calls that are allowed with some arguments alone."""
    itself = [Condition(0, [own_id])]
    return {
        "kill": itself,
        "tgkill": itself,
        "prlimit64": [Condition(0, [0])],  # the caller; without capabilities limits can only be lowered
        "prctl": [Condition(0, [15, 16])],  # a thread's name
        # Duplicates, flags, locks, a pipe's size; none that has another process signalled.
        "fcntl": [Condition(1, [*range(8), 36, 37, 38, 1030, 1032])],
        # Is it a terminal, blocking, close on exec, bytes to read, size of the window.
        "ioctl": [Condition(1, [0x5401, 0x5421, 0x5450, 0x5451, 0x541B, 0x5413])],
        # AF_UNIX, SOCK_STREAM: the pair that asyncio wakes itself with. A datagram could be sent to others.
        "socketpair": [Condition(0, [1]), Condition(1, [1], mask=0xF)],
        "sendto": [Condition(4, [0]), Condition(4, [0], upper=True)],  # no address
    }


def _filter(machine: str, own_id: int) -> Iterator[bytes]:
    """The instructions, for a process of this id."""
    conditions = _conditions(own_id)
    yield _load(4)  # the architecture: another one of the same processor has other numbers
    yield _instruction(_IF_EQUAL, _ARCHITECTURES[machine][0], 1, 0)
    yield _refuse(errno.EPERM)
    yield _load(0)  # the number of the call
    for name, number in numbers(machine).items():
        checks = [step for condition in conditions.get(name, ()) for step in _check(condition)]
        yield _instruction(_IF_EQUAL, number, 0, len(checks) + 1)
        yield from checks
        yield _instruction(_RETURN, 0x7FFF0000)  # SECCOMP_RET_ALLOW
    yield _instruction(_IF_AT_LEAST, _FIRST_RECENT, 0, 1)
    yield _refuse(errno.ENOSYS)
    yield _refuse(errno.EPERM)


def _check(condition: Condition) -> Iterator[bytes]:
    """Goes on behind itself where the condition holds."""
    yield _load(condition.place)
    yield _instruction(_AND, condition.mask)
    count = len(condition.values)
    for position, value in enumerate(condition.values):
        yield _instruction(_IF_EQUAL, value, count - position, 0)
    yield _refuse(errno.EPERM)


def _instruction(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """struct sock_filter; the jumps are how many instructions to leave out."""
    return struct.pack("HBBI", code, if_true, if_false, operand)


def _load(place: int) -> bytes:
    return _instruction(_LOAD, place)


def _refuse(number: int) -> bytes:
    return _instruction(_RETURN, 0x00050000 | number)  # SECCOMP_RET_ERRNO
