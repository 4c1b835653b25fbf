"""What passes in the sandbox, what does not, and what is said of it."""

import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_walls import needs_every_wall

from tad_ext.data.sandbox import seccomp
from tad_ext.data.sandbox.run import Limits, Run, run_program, run_tests

pytestmark = needs_every_wall
MIB = 2**20
ADD = "def add(a, b):\n    return a + b\n"


def reason(program: str, **limits: float) -> str:
    run = run_program(textwrap.dedent(program), limits=Limits(**limits))
    assert not run.passed
    return run.reason


def test_a_program_that_reaches_its_end_passes():
    assert run_program(ADD + "assert add(1, 2) == 3\nprint('done')") == Run(True, "", "done\n")
    assert run_program("") == Run(True, "", "")


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("assert 1 == 2", "AssertionError (line 1 of the program)"),
        ("\nassert 1 == 2, 'no'", "AssertionError: no (line 2 of the program)"),
        ("import os\nos._exit(0)", "exited before its end, with code 0"),
        ("import sys\nsys.exit(0)", "exited before its end: SystemExit: 0 (line 2 of the program)"),
        ("raise SystemExit", "exited before its end: SystemExit (line 1 of the program)"),
        ("exit()", "NameError: name 'exit' is not defined (line 1 of the program)"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("import os\nos.abort()", "killed by SIGABRT"),
        ("import os\nos.kill(os.getpid(), 40)", "killed by signal 40"),
        ("import ctypes\nctypes.string_at(0)", "killed by SIGSEGV"),
        ("def f(:", "SyntaxError: invalid syntax (line 1 of the program)"),
        ("x = 'a\0b'", "source code string cannot contain null bytes"),
        ("x = '\ud800'", "UnicodeEncodeError"),
        ("input()", "EOFError"),
        ("def f(): f()\nf()", "RecursionError"),
        ("import torch", "No module named 'torch'"),
        ("import tad_ext", "No module named 'tad_ext'"),
        ("class E(BaseException):\n    def __str__(self): raise self\nraise E", "E"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    ],
)
def test_any_other_end_is_a_failure_that_says_why(program, expected):
    assert expected in reason(program)


def test_time_is_limited():
    assert reason("while True: pass", cpu_seconds=1) == "time: more than 1 s of CPU"
    assert reason("import time; time.sleep(60)", wall_seconds=0.3) == "time: more than 0.3 s"
    ignores = "import signal\nfor n in range(1, 32):\n    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n"
    assert reason(ignores + "while True: pass", wall_seconds=0.3) == "time: more than 0.3 s"
    assert reason("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", wall_seconds=0.3).startswith("time")


def test_memory_is_limited():
    hoard = "kept = []\nwhile True: kept.append(bytearray(10**6))"
    assert reason(hoard, memory_bytes=100 * MIB).startswith("memory: more than 100 MiB")
    assert reason("x = [0] * 10**10").startswith("memory: more than 512 MiB")
    deep = "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f() + 1\nf()"
    assert reason(deep, memory_bytes=100 * MIB)


def test_files_are_limited():
    assert "File too large" in reason("open('a', 'wb').write(b'x' * 3 * 10**6)", file_bytes=2 * MIB)
    several = "for i in range(9): open(str(i), 'wb').write(b'x' * 10**6)"
    assert "No space left" in reason(several, file_bytes=2 * MIB)
    assert "No space left" in reason("for i in range(10**5): open(str(i), 'w')")
    assert "Too many open files" in reason("kept = [open(str(i), 'w') for i in range(100)]")
    limits = "import resource as r\nr.setrlimit(r.RLIMIT_FSIZE, (2**40, 2**40))"
    assert "not allowed to raise maximum limit" in reason(limits)


def test_output_is_limited_and_kept():
    run = run_program("while True: print('x' * 1000)", limits=Limits(output_bytes=5000))
    assert run.reason == "output: more than 5,000 bytes"
    assert len(run.output) == 5000
    run = run_program("import sys\nprint('a\\ud800ä')\nsys.stdout.buffer.write(b'\\xff')")
    assert (run.passed, run.output) == (True, "a\\ud800ä\n\\xff")
    assert run_program("import os\nprint('before')\nos._exit(1)").output == "before\n"
    assert "ZeroDivisionError" in run_program("1 / 0").output


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_is_printed_as_it_is(text):
    assert run_program(f"print({text!a}, end='')").output == text


def test_large_programs():
    assert run_program("x = 1\n" * 200_000).passed
    assert run_tests("x = '" + "a" * 10**6 + "'", "assert len(x) == 10**6\n" * 50_000).passed
    assert not run_program("(" * 10**6).passed
    assert not run_program("-" * 10**6 + "1").passed


def test_a_program_is_its_main_module():
    assert reason("if __name__ == '__main__': raise ValueError('it is')").startswith("ValueError: it is")
    dataclass = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int'\nassert A(1) == A(1)\n"
    assert run_program(dataclass).passed
    assert run_program("import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))").passed


def test_the_standard_library_works():
    modules = (
        "asyncio csv ctypes datetime difflib email.message hashlib json logging sqlite3 tempfile unittest zoneinfo"
    )
    program = f"import {', '.join(modules.split())}\n" + textwrap.dedent("""
        from collections import namedtuple
        from enum import Enum
        from typing import NamedTuple
        P = namedtuple("P", "x y")
        E = Enum("E", "a b")
        class N(NamedTuple): x: int
        async def two(): await asyncio.sleep(0); return 2
        assert asyncio.run(two()) == P(2, 0).x
        logging.warning("seen")
        with tempfile.TemporaryFile() as file: file.write(b"x")
        sqlite3.connect("base").execute("create table t (x)")
        assert datetime.datetime.now(zoneinfo.ZoneInfo("UTC")).year > 2000
        try: 1 / 0
        except ZeroDivisionError: import traceback; assert "1 / 0" or traceback.format_exc()
        """)
    run = run_program(program)
    assert run.passed, run


def test_sets_have_the_same_order_in_every_run():
    program = "print({'a', 'b', 'c', 'd', 'e'})"
    assert run_program(program).output == run_program(program).output == fresh_process(program)


def fresh_process(program: str) -> str:
    code = f"from tad_ext.data.sandbox.run import run_program; print(run_program({program!r}).output, end='')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_solution_is_judged_by_its_tests():
    assert run_tests(ADD, "assert add(1, 2) == 3").passed
    assert run_tests(ADD, "from solution import add as plus\ndef test_it(): assert plus(1, 2) == 3").passed
    assert run_tests(ADD, "assert add(1, 2) == 4").reason == "AssertionError (line 1 of the tests)"
    assert run_tests(ADD, "def test_it():\n    assert add(1, 2) == 4").reason == "AssertionError (line 2 of the tests)"
    assert run_tests("def add(a, b):\n    return c", "assert add(1, 2) == 3").reason.endswith(
        "(line 2 of the solution)"
    )
    assert run_tests("add = ", "assert add(1, 2) == 3").reason == "SyntaxError: invalid syntax (line 1 of the solution)"
    assert run_tests(ADD + "if __name__ == '__main__': raise ValueError", "assert add(1, 2) == 3").passed


@pytest.mark.parametrize(
    "tests",
    ["", "pass", "# assert", "add", "x = 1", "def check(): assert add(1, 2) == 4", "def test_it(a): assert a",
     "def test_it(): pass", "class Tests:\n    def test_it(self): assert False", "async def test_it(): assert False"],
)  # fmt: skip
def test_tests_that_test_nothing_do_not_pass(tests):
    run = run_tests(ADD, tests)
    assert (run.passed, run.reason) == (False, "ValueError: the tests assert nothing and call nothing")


@pytest.mark.parametrize(
    "cheat",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "def add(a, b): import os; os._exit(0)",
        "def add(a, b): raise SystemExit(0)",
        "import sys\nprint('passed'); sys.stdout.flush()\nsys.exit()",
        "import builtins\nclass AssertionError(Exception): pass\nbuiltins.AssertionError = AssertionError",
        "import builtins\nfor name in dir(builtins):\n    if not name.startswith('__'):\n"
        "        setattr(builtins, name, lambda *a, **k: True)",
        "exec = compile = len = print = isinstance = type = abs = BaseException = lambda *a, **k: True",
        "import builtins\nbuiltins.BaseException = builtins.Exception = ZeroDivisionError",
        "import ast, traceback\nast.parse = lambda *a: compile('1', '', 'eval')\ntraceback.print_exception = print",
        "import os\nos.write = os.read = lambda *a: b''",
        "import os\nfor end in range(64):\n    try: os.write(end, b'passed' * 4)\n    except OSError: pass",
        "import os\nos.write(4, bytes(7) + b'\\x10' + bytes(16))",
        "import os\nos.closerange(0, 64)",
        "import builtins\ndef add(a, b):\n    builtins.abs = lambda x: 0\n    return 0",
        "import os, atexit\natexit.register(os._exit, 0)",
        "import os, signal\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\nsignal.setitimer(0, 0.02)\n"
        "def add(a, b):\n    while True: pass",
        "import sys\nsys.settrace(lambda *a: None)",
        "import sys\ndef add(a, b): return sys._getframe(1).f_code.co_consts[-1]",
        "import gc\ndef add(a, b): return gc.get_objects()",
        "import sys\nsys.excepthook = lambda *a: None\nsys.modules.clear()",
        "import sys\nsys.stdout = sys.stderr = None",
        "import sys\nsys.stdout.close()",
        "import threading\nthreading.Thread(target=lambda: None).start()",
        "def check(candidate): pass",
        "import sys\nsys.setrecursionlimit(30)",
    ],
)
def test_cheats_do_not_pass(cheat):
    wrong = "def add(a, b): return 0\n" * ("def add" not in cheat) + cheat
    check = "def check(candidate):\n    candidate(1, 2)\n    assert abs(candidate(1, 2) - 3) < 1\ncheck(add)"
    for tests in ("assert add(1, 2) == 3", check):
        run = run_tests(wrong, tests)
        assert not run.passed
        assert run.reason
    assert run_tests(ADD, "assert add(1, 2) == 3").passed


def test_a_right_solution_may_do_with_builtins_what_it_likes():
    solution = "import builtins\nbuiltins.len = builtins.print = builtins.bytes = builtins.set = None\n" + ADD
    assert run_tests(solution, "assert add(1, 2) == 3").passed


def test_builtins_are_pythons_in_the_tests_unless_they_are_asked_for():
    solution = "def sum(a, b):\n    return a + b"
    assert not run_tests(solution, "assert sum(1, 2) == 3").passed
    assert run_tests(solution, "assert sum(1, 2) == 3", builtins=["sum"]).passed


def test_a_solution_does_not_see_its_tests_while_it_is_loaded():
    reads = "import os\nos.set_blocking(3, False)\nos.read(3, 16)\nprint(os.read(3, 10**6))"
    run = run_tests(reads, "assert 'SECRET'")
    assert not run.passed
    assert "SECRET" not in run.output


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match="program must be a text of Python, got bytes"):
        run_program(b"")
    with pytest.raises(TypeError, match="tests must be a text of Python, got NoneType"):
        run_tests("", None)
    with pytest.raises(TypeError, match="builtins must be names of builtins, got the text 'sum'"):
        run_tests("", "", builtins="sum")
    with pytest.raises(ValueError, match="cpu_seconds must be an integer in"):
        Limits(cpu_seconds=0)


def test_it_imports_without_torch():
    code = "import sys, tad_ext.data.sandbox.run; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_program_ends_with_its_run():
    start = time.monotonic()
    run_program("import time; time.sleep(60)", limits=Limits(wall_seconds=0.1))
    assert time.monotonic() - start < 30


HEADERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}


@pytest.mark.parametrize("machine", HEADERS)
def test_the_numbers_of_system_calls_are_the_kernels(machine):
    header = Path(HEADERS[machine])
    if not header.is_file():
        pytest.skip(f"no {header}")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    official = {name: int(number) for name, number in lines}
    official["newfstatat"] = official.get("newfstatat", official.get("fstatat", 0))
    assert {name: official.get(name) for name in seccomp.numbers(machine)} == seccomp.numbers(machine)
    never = (
        "fork vfork clone clone3 execve execveat socket connect bind ptrace mount unshare setns chmod io_uring_setup"
    )
    assert not set(never.split()) & set(seccomp.numbers(machine))
