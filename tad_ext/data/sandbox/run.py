"""Running model-written Python: a program, or a solution and its tests, within limits and behind walls."""

import dataclasses
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from tad_ext.data.sandbox.guards import GUARDS, OPTIONAL
from tad_ext.data.sandbox.pool import POOL
from tad_ext.settings import Between, Count, Positive, Settings, setting

_MIB = 2**20


class SandboxError(RuntimeError):
    """A program was not run: something that would have protected this machine from it cannot be had here."""


@dataclass(frozen=True)
class Limits(Settings):
    """How much a program may take. One that wants more fails; it does not slow down others."""

    wall_seconds: Positive = setting(30.0, help="seconds from its start to its end")
    cpu_seconds: Count = setting(15, help="seconds of a core's time; one of MBPP's own solutions takes 6")
    memory_bytes: Annotated[int, Between(64 * _MIB, 2**40)] = setting(
        512 * _MIB, help="address space, of which the interpreter takes some 30 MiB"
    )
    file_bytes: Count = setting(16 * _MIB, help="of one file, and of all together")
    open_files: Annotated[int, Between(16, 4096)] = setting(64, help="at a time")
    output_bytes: Count = setting(_MIB, help="that it prints")


@dataclass(frozen=True)
class Run:
    """What came of a program.

    passed: it reached its end, without an exception. reason: why not, in a line ("AssertionError: 2 (line 3 of the
    tests)", "exited before its end, with code 0", "time: more than 15 s of CPU", "killed by SIGSEGV"); empty if it did.
    output: what it printed, errors and their traceback included. Reason and output are the program's own words: show
    them, and trust them in nothing.
    """

    passed: bool
    reason: str
    output: str


@dataclass(frozen=True)
class Protection:
    """One wall. guards: what it keeps programs from. missing: why it does not hold here; empty if it does. needed: no
    program is run without it.
    """

    name: str
    guards: str
    missing: str
    needed: bool


def run_program(program: str, *, limits: Limits = Limits(), unprotected: bool = False) -> Run:
    """Runs a program, a solution with its tests for example. It passes if it runs to its end without an exception.

    It is one process with one thread, and has the standard library alone; its standard input is empty, its environment
    holds no variable of this process. An empty program passes: whether it tests anything is for the caller to know, or
    for `run_tests`. May be called from any thread; as many run at a time as there are cores. `unprotected`: runs it
    even if not all protections that are needed can be had here, with those that can.

    Raises TypeError for a program that is no text; SandboxError, without running it, if a protection is missing, which
    the message names.
    """
    return _run([_stage("program", program, "__main__")], limits, unprotected)


def run_tests(
    solution: str,
    tests: str,
    *,
    builtins: Collection[str] = (),
    limits: Limits = Limits(),
    unprotected: bool = False,
) -> Run:
    """Runs a solution as the module `solution`, then its tests, which see its names and may import from it.

    Tests that assert and call nothing do not pass. Their functions named test..., if they take no arguments, are called
    in their order. What the tests use of Python's builtins stays Python's, whatever the solution calls by such a name,
    but for the names in `builtins`, which the solution is asked to define (`sum`, in one problem of MBPP).

    The tests are handed over when the solution has been loaded, and what proves that they reached their end when they
    have: neither exiting early nor printing, threads, exit handlers, or other `assert`s, builtins and `exec` pass.
    Within one interpreter this cannot be proof against everything. A solution may answer with objects that equal
    everything, change modules that its tests use (`math.isclose`), find the tests behind an exception's traceback, or
    take the harness apart through its descriptors or ctypes. Of such a solution `passed` says nothing; the machine is
    as safe as ever. Otherwise as `run_program`.
    """
    if isinstance(builtins, str):
        raise TypeError(f"builtins must be names of builtins, got the text {builtins!r}")
    stages = [
        _stage("solution", solution, "solution", builtins=list(builtins)),
        _stage("tests", tests, "__main__", checks=True),
    ]
    return _run(stages, limits, unprotected)


def check_sandbox(*, unprotected: bool = False) -> None:
    """Raises SandboxError, as `run_program` would, if programs are not run on this machine."""
    run_program("", unprotected=unprotected)


def protections() -> tuple[Protection, ...]:
    """All protections, and which of them hold on this machine: they are tried with no program."""
    missing = _asked([], Limits(), unprotected=True)["missing"]
    return tuple(Protection(name, what, missing.get(name, ""), name not in OPTIONAL) for name, what in GUARDS.items())


def _stage(
    name: str, source: str, module: str, *, builtins: Sequence[str] = (), checks: bool = False
) -> dict[str, Any]:
    """See `tad_ext.data.sandbox.stages.run_stages`."""
    if not isinstance(source, str):
        raise TypeError(f"{name} must be a text of Python, got {type(source).__name__}")
    return {"name": name, "source": source, "module": module, "builtins": builtins, "checks": checks}


def _run(stages: list[dict[str, Any]], limits: Limits, unprotected: bool) -> Run:
    reply = _asked(stages, limits, unprotected)
    missing = {name: why for name, why in reply["missing"].items() if name not in OPTIONAL}
    if missing and not unprotected:
        named = "; ".join(f"{name} ({GUARDS[name]}): {why}" for name, why in missing.items())
        raise SandboxError(f"the program was not run, as these protections cannot be had here: {named}")
    return Run(reply["passed"], reply["reason"], reply["output"])


def _asked(stages: list[dict[str, Any]], limits: Limits, unprotected: bool) -> dict[str, Any]:
    if not hasattr(os, "fork"):
        raise SandboxError("programs run on Linux alone, or, unprotected, where processes can fork")
    try:
        reply = POOL.ask(dataclasses.asdict(limits), {"stages": stages, "unprotected": unprotected})
    except OSError as error:
        raise SandboxError(f"the program was not run: {error}") from error
    if reply["missing"] is None:  # its process ended before it could tell
        raise SandboxError(f"the program was not run: {reply['reason']}; {reply['output']}")
    return reply
