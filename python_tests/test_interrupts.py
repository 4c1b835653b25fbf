"""Ctrl-C and SIGTERM at awkward moments: the command says that it stopped, and what it was writing is gone."""

import contextlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_jobs import add_job

from tad_ext import cli, interrupts
from tad_ext.cli import main
from tad_ext.files import atomic_folder, atomic_path
from tad_ext.jobs import JobSettings


@dataclass(frozen=True)
class NoSettings(JobSettings):
    """Writes."""

    summary = example = "tad job"

    output: str = "out"


@pytest.fixture(autouse=True)
def a_foreground_process():
    """A shell that starts the tests in the background makes them ignore Ctrl-C, as their own processes would then."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def run(monkeypatch):
    """run(job): the exit code of a command that is this function."""

    def run(job):
        add_job(monkeypatch, lambda settings: job(), NoSettings)
        return main(["job"])

    return run


def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "tad job: stopped"), (signal.SIGTERM, 143, "tad job: stopped by SIGTERM")],
)
def test_a_signal_stops_a_job_and_what_it_was_writing_is_gone(run, tmp_path, capsys, number, code, line):
    def writing():
        with atomic_path(tmp_path / "file") as file, atomic_folder(tmp_path / "folder") as folder:
            file.write_text("half")
            (folder / "weights").write_text("half")
            send(number)

    assert run(writing) == code
    assert capsys.readouterr().err == f"\n{line}\n"
    assert list(tmp_path.iterdir()) == []


def test_what_a_library_makes_of_it_does_not_matter(run, capsys):
    def cut_short():
        try:
            send()
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("Could not import module 'PreTrainedModel'") from error

    def swallowed_and_failing_later():
        with contextlib.suppress(BaseException):
            send()
        raise AttributeError("partially initialized module has no attribute 'Model'")

    for job in (cut_short, swallowed_and_failing_later):
        assert run(job) == 130
        assert capsys.readouterr().err == "\ntad job: stopped\n"


def test_an_import_that_swallows_it_is_the_last_one(monkeypatch, tmp_path, capsys):
    (tmp_path / "swallowing_library.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
        "def job(settings): return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    class Swallowing:
        name, settings, description = "job", NoSettings, "Does it."
        run = property(lambda self: importlib.import_module("swallowing_library").job)

    monkeypatch.setattr(cli, "jobs", lambda: {"job": Swallowing()})
    assert main(["job"]) == 130
    assert capsys.readouterr().err == "\ntad job: stopped\n"


def test_one_that_ends_in_a_callback_comes_again(run, capsys):
    class Thing:
        pass

    def in_a_callback():
        thing = Thing()
        keep = weakref.ref(thing, lambda _: send())
        del thing
        for _ in range(500):
            time.sleep(0.01)
        raise AssertionError(f"Ctrl-C in the callback of {keep} was forgotten")

    assert run(in_a_callback) == 130
    assert capsys.readouterr().err == "\ntad job: stopped\n"


def test_a_second_ctrl_c_does_not_cut_clean_up_short(run, tmp_path, capsys, monkeypatch):
    rmtree, seen = shutil.rmtree, []

    def interrupted(*arguments, **options):
        send()
        seen.append("interrupted")
        rmtree(*arguments, **options)

    def writing():
        with atomic_folder(tmp_path / "folder") as folder:
            (folder / "weights").write_text("half")
            send()

    monkeypatch.setattr("tad_ext.files.shutil.rmtree", interrupted)
    assert run(writing) == 130
    assert seen == ["interrupted"]
    assert capsys.readouterr().err == "\ntad job: stopped\n"
    assert list(tmp_path.iterdir()) == []


def test_one_that_was_meant_for_an_answer_does_not_excuse_a_later_error(run, capsys):
    def chat():
        try:
            send()
        except KeyboardInterrupt:
            interrupts.forget()
        raise FileNotFoundError("model is 'gone'")

    assert run(chat) == 2
    assert capsys.readouterr().err == "tad job: error: model is 'gone'\n"


def test_where_to_find_what_was_made_is_said(run, capsys):
    def failing(error):
        error.add_note("what was made is in /tmp/x")
        raise error

    assert run(lambda: failing(OSError("disk full"))) == 2
    assert capsys.readouterr().err == "tad job: error: disk full; what was made is in /tmp/x\n"
    assert run(lambda: failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\ntad job: stopped: what was made is in /tmp/x\n"


def test_handlers_are_as_before_afterwards_and_an_ignored_signal_stays_ignored(run):
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    hook = sys.unraisablehook
    assert run(lambda: None) == 0
    assert {number: signal.getsignal(number) for number in interrupts.SIGNALS} == before
    assert sys.unraisablehook is hook
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as nohup does with another signal
    try:
        assert run(lambda: send(signal.SIGTERM)) == 0
    finally:
        signal.signal(signal.SIGTERM, before[signal.SIGTERM])


def test_a_command_may_run_in_another_thread(run):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(run(lambda: None)))
    thread.start()
    thread.join()
    assert codes == [0]


# Ctrl-C while the command line itself is imported, and while anything else is.
INTERRUPTED_IMPORT = """
import os, signal, sys

fatal = sys.argv.pop(1)

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == fatal:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from tad_ext.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("tad_ext.cli", "tad: stopped"),
        ("argparse", "tad: stopped"),
        ("tad_ext.jobs.merge.run", "tad merge: stopped"),
        ("torch", "tad merge: stopped"),
        ("transformers", "tad merge: stopped"),
    ],
)
def test_ctrl_c_during_an_import(tmp_path, module, line):
    arguments = ["merge", "--model", "m", "--adapter", "a", "--output", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, *arguments],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, f"\n{line}\n")
    assert list(tmp_path.iterdir()) == []


def test_another_signal_while_a_lost_one_is_repeated_is_none_of_both_lost(tmp_path):
    program = """
import os, signal, threading, time
from tad_ext import interrupts
start = threading.Thread.start
def interrupted(thread):
    start(thread)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread.start = interrupted
class Callback:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
try:
    with interrupts.stoppable():
        Callback()
        time.sleep(20)
except KeyboardInterrupt:
    print("stopped")
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "stopped\n")


def test_nothing_else_is_imported_before_ctrl_c_is_met():
    program = (
        "import sys; before = set(sys.modules); import tad_ext.__main__; print(*sorted(set(sys.modules) - before))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(interrupts.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert set(done.stdout.split()) <= {"tad_ext", "tad_ext.__main__"}


def test_ctrl_c_while_the_interpreter_ends_is_late():
    program = (
        "import atexit, os, signal, sys; atexit.register(os.kill, os.getpid(), signal.SIGINT); "
        "sys.argv[1:] = ['--version']; from tad_ext.__main__ import main; sys.exit(main())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
