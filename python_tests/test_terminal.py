"""Commands write to any output: without Unicode, without a reader, without a stream at all."""

import io
import os
import subprocess
import sys

import pytest

from tad_ext.cli import main
from tad_ext.terminal import CLOSED_PIPE, for_any_output


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


@pytest.mark.parametrize(
    ("encoding", "written"),
    [
        ("ascii", b"1.5 +- 0.5 >= x <= y, -1 || __ ... \\xe9 \\u65e5 \\udcff"),
        ("latin-1", b"1.5 \xb1 0.5 >= x <= y, -1 || __ ... \xe9 \\u65e5 \\udcff"),
        ("utf-8", "1.5 ± 0.5 ≥ x ≤ y, \N{MINUS SIGN}1 ‖ ░░ … é 日 \\udcff".encode()),
    ],
)
def test_what_an_encoding_lacks_is_spelled_in_ascii(monkeypatch, encoding, written):
    out, err = stream(encoding), stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    @for_any_output
    def command() -> int:
        for where in (sys.stdout, sys.stderr):
            print("1.5 ± 0.5 ≥ x ≤ y, \N{MINUS SIGN}1 ‖ ░░ … é 日 \udcff", file=where, end="")
        return 7

    assert command() == 7
    assert out.buffer.getvalue() == err.buffer.getvalue() == written


def test_what_is_typed_in_another_encoding_is_no_crash(monkeypatch):
    typed = io.TextIOWrapper(io.BytesIO("hällo\n".encode()), encoding="ascii")
    monkeypatch.setattr(sys, "stdin", typed)
    assert for_any_output(lambda: len(input()))() == 6  # two bytes for the umlaut


def test_streams_that_were_closed_swallow_what_is_written(monkeypatch):
    for name in ("stdout", "stderr", "stdin"):
        monkeypatch.setattr(sys, name, None)

    @for_any_output
    def command() -> int:
        print("seen by nobody")
        return sys.stdout.isatty() + sys.stderr.write("")

    assert command() == 0


def tad(*arguments, stdout=subprocess.PIPE, **environment):
    command = [sys.executable, "-m", "tad_ext", *arguments]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=os.environ | environment, check=False)


def test_a_reader_that_has_gone_ends_the_command_without_a_word():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = tad("generate", "--help", stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, b"")


def test_a_job_whose_reader_has_gone(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(["evaluate", "--help"]) == CLOSED_PIPE
    assert sys.stdout.write("nothing") == 7, "what comes later is swallowed"


def test_a_full_disk_is_named():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = tad("--help", stdout=full)
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


def test_help_in_ascii():
    done = tad("evaluate", "--help", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii()
