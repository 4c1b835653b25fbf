"""Programs that try to get out of the sandbox, or to stay in it, and the program that runs after each."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_walls import needs_every_wall

from tad_ext.data.sandbox.run import Limits, run_program

SECRET = "a-secret-of-the-parent"
QUICK = Limits(wall_seconds=3.0, cpu_seconds=1, memory_bytes=128 * 2**20)

pytestmark = needs_every_wall


@pytest.fixture
def victims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file, a secret variable and a bystander process, which must all be there afterwards."""
    monkeypatch.setenv("API_TOKEN", SECRET)
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "inner" / "file").write_text(SECRET)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env=os.environ | {"T": SECRET})
    monkeypatch.setenv("BYSTANDER", str(bystander.pid))
    hit: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: hit.append(number)) for number in (1, 2, 10, 15)}
    before = listing(tmp_path)
    yield tmp_path
    assert bystander.poll() is None
    assert hit == []
    for number, handler in handlers.items():
        signal.signal(number, handler)
    bystander.kill()
    bystander.wait()
    assert listing(tmp_path) == before
    assert (tmp_path / "tree" / "inner" / "file").read_text() == SECRET


def listing(folder: Path) -> list[tuple[Path, tuple[int, ...]]]:
    """Everything in a folder, with mode, owner, size and time of its last change."""
    stats = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(path, (one.st_mode, one.st_uid, one.st_size, one.st_mtime_ns)) for path, one in stats]


def attempt(victims: Path, action: str) -> str:
    """What came of an action that must not succeed: its exception, or the reason why the program did not pass. The
    next program finds the sandbox as if nothing had been.
    """
    program = f"""
import os, sys
TREE, PARENT, BYSTANDER = {str(victims / "tree")!r}, {os.getpid()}, {os.environ["BYSTANDER"]}
SECRET = {SECRET[::-1]!r}[::-1]
def action():
{textwrap.indent(textwrap.dedent(action), "    ")}
try:
    action()
except BaseException as error:
    print("refused:", type(error).__name__, error)
else:
    print("done")
"""
    run = run_program(program, limits=QUICK)
    assert "done" not in run.output, run
    assert SECRET not in run.output
    clean = run_program(
        "import os, sys, math\nassert os.listdir('.') == []\nassert sum([1, 2]) == 3 == math.floor(3.5)"
    )
    assert clean.passed, clean
    return run.output if run.passed else run.reason


NETWORK = {
    "tcp": "import socket; socket.create_connection(('127.0.0.1', PORT), 1)",
    "udp": "import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', PORT))",
    "unix": "import socket; socket.socket(socket.AF_UNIX).connect(PATH)",
    "abstract": "import socket; socket.socket(socket.AF_UNIX).connect('\\0tad-test')",
    "datagram pair": "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "pair to others": "import socket; socket.socketpair()[0].sendto(b'x', PATH)",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "raw": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "name": "import socket; socket.getaddrinfo('localhost', 80)",
    "listen": "import socket; socket.create_server(('127.0.0.1', 0))",
    "http": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:PORT')",
}


@pytest.mark.parametrize("action", NETWORK.values(), ids=NETWORK)
def test_no_network(victims, action):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0tad-test")
        abstract.listen()
        names = action.replace("PORT", str(server.getsockname()[1])).replace("PATH", repr(str(victims / "socket")))
        assert attempt(victims, names).startswith("refused: ")


FILES = {
    "users": "print(open('/etc/passwd').read())",
    "a file outside": "print(open(f'{TREE}/inner/file').read())",
    "through a link": "os.symlink(TREE, 'link'); print(open('link/inner/file').read())",
    "through a hard link": "os.link(f'{TREE}/inner/file', 'link'); print(open('link').read())",
    "up": "print(open('../' * 20 + TREE + '/inner/file').read())",
    "a folder outside": "os.listdir(TREE)",
    "the root": "os.listdir('/')",
    "packages": f"sys.path.append({str(Path(pytest.__file__).parents[1])!r}); import pytest",
    "the package": f"sys.path.append({str(Path(__file__).parents[2])!r}); import tad_ext",
    "write": "open(f'{TREE}/new', 'w')",
    "append": "open(f'{TREE}/inner/file', 'a').write('x')",
    "truncate": "os.truncate(f'{TREE}/inner/file', 0)",
    "delete": "os.remove(f'{TREE}/inner/file')",
    "delete all": "import shutil; shutil.rmtree(TREE)",
    "rename": "os.rename(f'{TREE}/inner', f'{TREE}/other')",
    "move in": "os.rename(f'{TREE}/inner/file', 'file')",
    "new folder": "os.mkdir(f'{TREE}/new')",
    "new link": "os.symlink('a', f'{TREE}/new')",
    "mode": "os.chmod(f'{TREE}/inner/file', 0o777)",
    "owner": "os.chown(f'{TREE}/inner/file', 1, 1)",
    "times": "os.utime(f'{TREE}/inner/file', (0, 0))",
    "attributes": "os.setxattr(f'{TREE}/inner/file', 'user.a', b'x')",
    "device": "os.mknod('device', 0o20666, os.makedev(1, 1))",
    "memory": "open('/dev/mem', 'rb').read(1)",
    "shared memory": "from multiprocessing import shared_memory; shared_memory.SharedMemory('x', True, 10)",
    "terminal": "open('/dev/tty', 'w').write('x')",
    "kernel": "open('/proc/sysrq-trigger', 'w')",
    "group of processes": "os.mkdir('/sys/fs/cgroup/tad')",
    "own memory limit": "open('/proc/self/oom_score_adj', 'w').write('-1000')",
    "new root": "os.chroot('.')",
    "as root": "os.open('locked', os.O_CREAT, 0); open('locked')",  # root's capabilities would open it
}


@pytest.mark.parametrize("action", FILES.values(), ids=FILES)
def test_no_file_outside(victims, action):
    assert attempt(victims, action).startswith("refused: ")


SECRETS = {
    "environment": "assert SECRET in str(os.environ)",
    "a variable": "os.environ['API_TOKEN']",
    "parent": "print(open(f'/proc/{PARENT}/environ').read())",
    "server": "print(open(f'/proc/{os.getppid()}/environ').read())",
    "bystander": "print(open(f'/proc/{BYSTANDER}/environ').read())",
    "processes": "print(os.listdir('/proc'))",
    "parent's memory": "open(f'/proc/{PARENT}/mem', 'rb').read(1)",
    "parent's files": "os.listdir(f'/proc/{PARENT}/fd')",
    "open descriptors": "found = [e for e in range(5, 4096) if os.path.exists(f'/dev/fd/{e}') or os.isatty(e)]\n"
    "for end in range(5, 4096):\n    os.fstat(end); break",
}  # fmt: skip


@pytest.mark.parametrize("action", SECRETS.values(), ids=SECRETS)
def test_no_secret(victims, action):
    assert attempt(victims, action).startswith("refused: ")


PROCESSES = {
    "fork": "os.fork()",
    "forks of forks": "for _ in range(6): os.fork()",  # would end, if nothing else stopped it
    "daemon": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        import time; time.sleep(600)",
    "shell": "import subprocess; subprocess.run(['true'], check=True)",
    "shell by name": "assert os.system('true') == 0",
    "spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "exec": "os.execv('/bin/true', ['true'])",
    "exec of its own": "open('x', 'w').write('#!/bin/true'); os.execv('./x', ['x'])",
    "thread": "import threading; threading.Thread(target=print).start()",
    "threads": "import _thread\nfor _ in range(99): _thread.start_new_thread(print, ())",
    "pool": "from multiprocessing import Pool; Pool(2).map(abs, [1])",
    "executor": "from concurrent.futures import ThreadPoolExecutor; ThreadPoolExecutor().submit(abs, 1).result()",
    "stop the parent": "os.kill(PARENT, 15)",
    "interrupt the parent": "os.kill(PARENT, 2)",
    "kill the server": "os.kill(os.getppid(), 9)",
    "kill a bystander": "os.kill(BYSTANDER, 9)",
    "signal everything": "os.kill(-1, 0)",
    "kill groups": "os.killpg(os.getppid(), 9)",
    "kill by descriptor": "import signal; signal.pidfd_send_signal(os.pidfd_open(BYSTANDER), 9)",
    "priorities": "os.setpriority(os.PRIO_PROCESS, BYSTANDER, 19)",
    "limits of others": "import resource; resource.prlimit(BYSTANDER, resource.RLIMIT_CPU, (1, 1))",
    "cores of others": "os.sched_setaffinity(BYSTANDER, {0})",
    "user": "os.setuid(1)",
    "session": "os.setsid()",
    "signal of a pipe": "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, BYSTANDER)",
}


@pytest.mark.parametrize("action", PROCESSES.values(), ids=PROCESSES)
def test_no_other_process(victims, action):
    assert attempt(victims, action).startswith("refused: ")


# Name -> number on x86-64, arguments: what the standard library has no function for.
CALLS = {
    "ptrace": "101, 16, BYSTANDER, 0, 0",
    "ptrace of itself": "101, 0, 0, 0, 0",
    "process_vm_readv": "310, PARENT, 0, 0, 0, 0, 0",
    "tkill": "200, BYSTANDER, 9",
    "rt_sigqueueinfo": "129, BYSTANDER, 9, 0",
    "clone": "56, 17, 0, 0, 0, 0",
    "clone3": "435, 0, 0",
    "vfork": "58",
    "unshare": "272, 0x10000000",
    "setns": "308, 0, 0",
    "mount": "165, 0, b'/', 0, 0, 0",
    "umount": "166, b'.', 2",
    "bpf": "321, 0, 0, 0",
    "userfaultfd": "323, 0",
    "io_uring_setup": "425, 1, 0",
    "perf_event_open": "298, 0, 0, 0, 0, 0",
    "keyctl": "250, 0, 0",
    "memfd_create": "319, b'a', 0",
    "prctl of the parent's death": "157, 1, 0, 0, 0, 0",
    "prctl of seccomp": "157, 22, 2, 0, 0, 0",
    "seccomp": "317, 1, 0, 0",
    "capset": "126, 0, 0",
    "reboot": "169, 0, 0, 0",
    "a call of 32 bits": "0x40000000 + 57",
    "kill with a full register": "62, (1 << 32) + BYSTANDER, 9",
    "a call that is not there yet": "999",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")
@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
def test_no_other_call_of_the_kernel(victims, arguments):
    action = f"""
    import ctypes, errno
    library = ctypes.CDLL(None, use_errno=True)
    if library.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in ({arguments},)]) < 0:
        number = ctypes.get_errno()
        assert number not in (errno.EPERM, errno.ENOSYS), "not allowed"
    """
    assert attempt(victims, action) == "refused: AssertionError not allowed\n"


LEFT = {
    "files": "for i in range(900): open(str(i), 'w').write('x')\nraise ValueError",
    "deep folders": "for i in range(900):\n    os.mkdir('d'); os.chdir('d')\nraise ValueError",
    "locked folders": "os.mkdir('d', 0o000)\nraise ValueError",
    "modules": "import builtins, math, random\nbuiltins.sum = math.floor = None\nsys.path.clear()\nraise ValueError",
    "handlers": "import atexit, signal\natexit.register(os._exit, 0)\nsignal.alarm(1)\nraise ValueError",
    "no memory": "kept = []\nwhile True: kept.append(bytearray(10**6))",
    "no memory, later": "for i in range(10**9): sys.modules[str(i)] = bytearray(10**4)",
    "recursion": "sys.setrecursionlimit(10**9)\ndef f(x): return f([x])\nf(0)",
    "a crash": "import ctypes; ctypes.memset(1, 0, 8)",
    "an endless loop": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "much output": "while True: print('x' * 10**6)",
    "much output in one": "sys.stdout.buffer.raw.write(b'x' * 10**8); raise ValueError",
    "no descriptors": "os.closerange(0, 99); raise ValueError",
    "a stop": "os.kill(os.getpid(), 19)",
    "pipes": "kept = []\nwhile True: kept.append(os.pipe())",
    "noise in every descriptor": "for end in range(99):\n    try: os.write(end, b'\\0' * 7 + b'\\1' + b'x')\n"
    "    except OSError: pass\nraise ValueError",
}  # fmt: skip


@pytest.mark.parametrize("action", LEFT.values(), ids=LEFT)
def test_nothing_is_left_for_the_next(victims, action):
    attempt(victims, action)


def test_many_at_once_do_not_meet():
    def one(number: int) -> None:
        program = f"open('same', 'x').write('{number}')\nprint(open('same').read(), end='')"
        run = run_program(program)
        if run.output != str(number):
            wrong.append(run)

    wrong: list[object] = []
    threads = [threading.Thread(target=one, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
