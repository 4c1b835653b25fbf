"""The child process that compares mathematics: it may hang, ask for all memory, and die, and the next works."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tad_ext.data.answers import math_equivalence
from tad_ext.data.answers.math_answers import same_math_answer
from tad_ext.data.answers.math_equivalence import check_math_verify, equivalent

pytest.importorskip("math_verify", reason="needs math-verify, which the extra 'math' installs")

ENDLESS = "9^{9^{9^9}}"
IMPATIENT = math_equivalence._Comparer()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that gives up sooner than others do."""
    monkeypatch.setattr(math_equivalence, "_CPU_SECONDS", 0.5)
    monkeypatch.setattr(math_equivalence, "_comparer", IMPATIENT)


def works() -> bool:
    return equivalent(r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}") and not equivalent("x^2", "x^3")


def run(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_what_does_not_end_is_wrong_and_the_next_comparison_works() -> None:
    assert not equivalent(ENDLESS, "1")
    assert works()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "endless", [ENDLESS, "10000000!!!", "99999999!", "(x+1)^{100000}", r"\binom{10^9}{5\cdot10^8}"]
)
def test_of_what_does_not_end_no_more_is_waited_for(endless: str) -> None:
    assert not same_math_answer("2x+1", endless)
    assert IMPATIENT._process is None
    assert works()


@pytest.mark.slow
@pytest.mark.parametrize(
    "hostile",
    [
        r"\sqrt{" * 150 + "2" + "}" * 150,
        "(" * 400,
        r"\frac{" * 150,
        "2^{10^{10}}",
        "x^" * 300 + "2",
        r"\prod_{i=1}^{10^9} i",
    ],
)
def test_hostile_answers(hostile: str) -> None:
    assert not same_math_answer("2x+1", hostile)
    assert works()


def test_text_is_not_run(tmp_path: Path) -> None:
    for text in ("open('{}', 'w')", r"\text{{open('{}', 'w')}}", "__import__('os').mkdir('{}')"):
        assert not equivalent(text.format(tmp_path / "written"), "5")
    assert not list(tmp_path.iterdir())


def test_threads_get_their_own_answers() -> None:
    numbers = [(f"{base}^2", str(given**2)) for base in range(2, 12) for given in range(2, 12)]
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda pair: equivalent(*pair), numbers)) == 10


@pytest.mark.usefixtures("impatient")
def test_an_interrupted_comparison_leaves_no_answer_for_the_next() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    check_math_verify()
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            equivalent(ENDLESS, "1")
    finally:
        signal.signal(signal.SIGALRM, before)
    assert works()


def test_a_process_that_was_killed_is_replaced() -> None:
    check_math_verify()
    process = math_equivalence._comparer._process
    assert process is not None
    process.kill()
    process.wait()
    assert works()


def test_a_process_may_be_forked_in_the_middle_of_a_comparison() -> None:
    process = run(f"""
        import os, signal, threading, time
        from tad_ext.data.answers import math_equivalence
        from tad_ext.data.answers.math_equivalence import check_math_verify, equivalent
        math_equivalence._CPU_SECONDS = 0.5
        check_math_verify()
        threading.Thread(target=equivalent, args=({ENDLESS!r}, "1")).start()
        time.sleep(0.3)
        forked = os.fork()
        signal.alarm(60)  # a lock of that thread would be held for ever
        answers = [equivalent(f"{{n}}^2", "25") for n in range(100)]
        assert [n for n in range(100) if answers[n]] == [5], answers
        assert forked == 0 or os.waitpid(forked, 0)[1] == 0
    """)
    process.communicate()
    assert process.returncode == 0


@pytest.mark.slow
def test_the_child_ends_after_a_parent_that_was_killed() -> None:
    process = run(f"""
        from tad_ext.data.answers import math_equivalence
        math_equivalence.check_math_verify()
        print(math_equivalence._comparer._process.pid, flush=True)
        math_equivalence.equivalent({ENDLESS!r}, "1")
    """)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    time.sleep(0.5)
    process.kill()
    process.communicate()
    for _ in range(600):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if "\nState:\tZ" in Path(f"/proc/{child}/status").read_text():
            return  # where nobody waits for orphans
        time.sleep(0.1)
    pytest.fail("the child still runs")


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math_verify.py").write_text("raise ModuleNotFoundError('no math_verify')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(math_equivalence, "_comparer", math_equivalence._Comparer())
    with pytest.raises(RuntimeError, match=r"extra 'math'.*pip install 'math-verify.*no math_verify"):
        check_math_verify()
    assert same_math_answer(r"\frac12", "0.5")  # needs no library
