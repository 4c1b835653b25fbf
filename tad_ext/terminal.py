"""A command's output, whatever it goes to: a terminal that knows only ASCII, a pipe that is closed, nothing at all."""

import codecs
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec

P = ParamSpec("P")

CLOSED_PIPE = 141  # 128 + SIGPIPE, the exit code of other programs whose reader has gone
_PLAIN = {"±": "+-", "≥": ">=", "≤": "<=", "−": "-", "‖": "||", "…": "...", "░": "_", "▒": "=", "▓": "#", "█": "@"}  # noqa: RUF001 - a minus sign


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Codec error handler: an ASCII spelling of what an encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char) or char.encode("ascii", "backslashreplace").decode() for char in lost), error.end


codecs.register_error("tad_ext.plain", _plain)


def for_any_output(command: Callable[P, int]) -> Callable[P, int]:
    """A command that returns an exit code, made to write to any kind of standard output and error stream.

    Characters that a stream cannot write are spelled in ASCII. A stream that was closed before the program began
    swallows what is written. A reader that goes away (``tad policies | head -1``) ends the command without a word. A
    full disk is named. What is typed in another encoding than the terminal's arrives in surrogates, as it does on a
    command line.
    """

    @functools.wraps(command)
    def guarded(*arguments: P.args, **named: P.kwargs) -> int:
        for name, errors in (("stdout", "tad_ext.plain"), ("stderr", "tad_ext.plain"), ("stdin", "surrogateescape")):
            stream = getattr(sys, name)
            if stream is None and name != "stdin":
                _discard(name)
            elif getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
                stream.reconfigure(errors=errors)
        code = 0
        try:
            code = command(*arguments, **named)
            sys.stdout.flush()
        except OSError as error:  # standard output's: a command names those of files itself
            _discard("stdout")  # or the interpreter complains when it flushes at its end
            if isinstance(error, BrokenPipeError):
                return code or CLOSED_PIPE
            if not code:
                print(f"tad: error: standard output: {error.strerror}", file=sys.stderr)
            return code or 2
        return code

    return guarded


def _discard(name: str) -> None:
    setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open to the end


def printable(text: str) -> str:
    """`text` without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
