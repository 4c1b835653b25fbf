"""The servers behind the sandbox: when they start and end, who shares them, what they do where walls are missing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sandbox_walls import needs_every_wall

from tad_ext.data.sandbox import pool
from tad_ext.data.sandbox.guards import GUARDS, OPTIONAL
from tad_ext.data.sandbox.pool import POOL
from tad_ext.data.sandbox.run import Limits, SandboxError, protections, run_program

pytestmark = needs_every_wall
HELLO = "print('hello')"
# A process that runs a program for a long time, and tells when it has begun.
PARENT = """
import threading, time
from tad_ext.data.sandbox.run import Limits, run_program
threading.Thread(target=run_program, args=("import time; time.sleep(600)",), kwargs={"limits": Limits(600.0)}).start()
"""


@pytest.fixture
def new_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None from before this test, none after it; what a killed one leaves, an empty folder, goes with the test's."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    POOL.close()
    yield
    POOL.close()


def descendants(process: int) -> set[int]:
    """The ids of all processes below this one."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
    found = {process}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def wait_for(condition: Callable[[], object]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen within 20 seconds")


def is_gone(process: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True


@pytest.mark.parametrize("more", ["", "import os; os.fork()"], ids=["alone", "with a fork that holds the pipes"])
def test_a_killed_process_takes_its_servers_and_programs_with_it(tmp_path, more):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    code = PARENT + f"time.sleep(1)\n{more}\ntime.sleep(600)"
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    wait_for(lambda: len(descendants(parent.pid)) >= 2 + bool(more))
    below = descendants(parent.pid)
    forks = {one for one in below if Path(f"/proc/{one}/cmdline").read_text().count("server") == 0}
    parent.kill()
    parent.wait()
    try:
        wait_for(lambda: all(is_gone(one) for one in below - forks))
    finally:
        for fork in forks:
            os.kill(fork, signal.SIGKILL)
    wait_for(lambda: list(tmp_path.iterdir()) == [])


def test_the_servers_of_a_process_end_with_it(tmp_path):
    code = "from tad_ext.data.sandbox.run import run_program; run_program(''); print(__import__('os').getpid())"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_was_killed_is_replaced(new_servers):
    run_program(HELLO)
    for server in POOL.idle():
        os.kill(server, signal.SIGKILL)
        wait_for(lambda: is_gone(server))  # noqa: B023
    assert run_program(HELLO).output == "hello\n"


def test_a_server_that_is_killed_during_a_run_is_replaced(new_servers):
    runs = []
    program = "import time; time.sleep(1); print('hello')"
    before = descendants(os.getpid())
    thread = threading.Thread(target=lambda: runs.append(run_program(program)))
    thread.start()
    wait_for(lambda: len(descendants(os.getpid()) - before) >= 2)
    (server,) = [one for one in descendants(os.getpid()) if descendants(one)]
    os.kill(server, signal.SIGKILL)
    thread.join()
    assert runs[0].output == "hello\n"


def test_a_server_that_does_not_start_is_an_error(monkeypatch, new_servers):
    monkeypatch.setattr(pool, "_START", "raise SystemExit(3)")
    with pytest.raises(SandboxError, match="the program was not run: "):
        run_program(HELLO)


def test_runs_one_after_the_other_share_a_server_and_runs_at_once_do_not(new_servers):
    for _ in range(5):
        run_program(HELLO)
    assert len(POOL.idle()) == 1
    with ThreadPoolExecutor(8) as threads:
        runs = list(threads.map(lambda number: run_program(f"print({number})"), range(40)))
    assert [run.output for run in runs] == [f"{number}\n" for number in range(40)]
    assert len(POOL.idle()) <= len(os.sched_getaffinity(0))


def test_a_fork_of_this_process_has_servers_of_its_own():
    run_program(HELLO)
    servers = POOL.idle()
    read, write = os.pipe()
    fork = os.fork()
    if fork == 0:
        told = b"failed"
        try:
            run = run_program(HELLO)
            told = str(run.passed and run.output == "hello\n" and not set(POOL.idle()) & set(servers)).encode()
        finally:
            POOL.close()
            os.write(write, told)
            os._exit(0)
    os.waitpid(fork, 0)
    assert os.read(read, 100) == b"True"
    assert run_program(HELLO).output == "hello\n"
    assert set(POOL.idle()) >= set(servers)
    os.close(read)
    os.close(write)


def test_a_run_that_is_interrupted_leaves_nothing_for_the_next():
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(KeyboardInterrupt):
            run_program("print('the first'); import time; time.sleep(5)")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert run_program(HELLO).output == "hello\n"


def without(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """As if the system did not allow what a function of the sandbox asks for."""
    module = function.partition(".")[0]
    fail = f"def fail(*_, **__): raise OSError('not on this system')\nfrom tad_ext.data.sandbox import {module}\n"
    served = pool._START.replace("del sys.path[0]", f"{fail}{function} = fail\ndel sys.path[0]")
    monkeypatch.setattr(pool, "_START", served)


WALLS = {
    "limits": "protection._limit",
    "privileges": "kernel.give_up_capabilities",
    "files": "landlock.ruleset",
    "system calls": "seccomp.restrict",
}


@pytest.mark.parametrize("name", WALLS)
def test_no_program_runs_where_a_wall_is_missing_unless_told_so(monkeypatch, new_servers, tmp_path, name):
    without(monkeypatch, WALLS[name])
    assert [one.name for one in protections() if one.missing] == [name]
    with pytest.raises(SandboxError, match=rf"{name} \(.*: not on this system"):
        run_program(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert not (tmp_path / "ran").exists()
    assert run_program(HELLO, unprotected=True).output == "hello\n"


def test_a_child_that_cannot_even_start_is_no_verdict(monkeypatch, new_servers):
    without(monkeypatch, "protection.os.chdir")
    with pytest.raises(SandboxError, match=r"not run: exited before its end, with code 1;(.|\n)*not on this system"):
        run_program(HELLO)


def test_without_namespaces_programs_run_but_make_no_files(monkeypatch, new_servers):
    without(monkeypatch, "namespaces.enter")
    (wall,) = [one for one in protections() if one.missing]
    assert (wall.name, wall.missing, wall.needed) == ("namespaces", "not on this system", False)
    program = "import os\nprint(os.listdir('.'))\ntry: open('x', 'w')\nexcept PermissionError: print('no')"
    assert run_program(program).output == "[]\nno\n"
    assert "Operation not permitted" in run_program("import socket; socket.socket()").reason


def test_protections_are_named():
    assert {one.name for one in protections()} == set(GUARDS)
    assert {one.name for one in protections() if not one.needed} == OPTIONAL


def test_limits_stay_within_those_of_this_process():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "from tad_ext.data.sandbox.run import run_program\n"
        "print(run_program('import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))').output)"
    )
    assert "(40, 40)" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert Limits().open_files > 40
