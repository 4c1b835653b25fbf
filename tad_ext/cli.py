"""The `tad` command: one job of the method per subcommand.

Nothing heavy is imported until a command is known, so that help is instant.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence

import tad_ext
from tad_ext import interrupts
from tad_ext.jobs import Job, jobs
from tad_ext.settings import OptionError, explanation, parse
from tad_ext.terminal import for_any_output

_OVERVIEW = """\
usage: tad <command> [--config FILE] [--key value ...]

Makes masked diffusion language models decode several tokens per forward pass: collects a teacher's
decoding trajectories, distils them into the same model with LoRA, decodes and evaluates the result.

commands:
{commands}

`tad <command> --help` explains a command and every option of it. Options may also stand in a YAML file
(--config); the command line overrides the file.

first steps:
  tad doctor
  tad demo --output runs/demo"""


@for_any_output
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tad` and returns its exit code.

    0, or what the job returned; 2 for bad input and 1 for a job that gave up, each with one line on stderr; 130 after
    Ctrl-C and 143 after SIGTERM. Errors from inside other libraries are bugs of ours and keep their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    known = jobs()
    words = 2 if " ".join(arguments[:2]) in known else 1  # tad plot trace
    name, rest = " ".join(arguments[:words]), arguments[words:]
    with interrupts.stoppable():
        try:
            return _run(known[name], rest) if name in known else _without_command(name)
        except BaseException as error:
            return _explain(f"tad {name}" if name in known else "tad", error)


def _without_command(argument: str) -> int:
    known = jobs()
    if argument in ("", "-h", "--help", "help"):
        width = max(map(len, known))
        commands = [f"  {name.ljust(width)}  {job.settings.summary}" for name, job in known.items()]
        print(_OVERVIEW.format(commands="\n".join(commands)))
    elif argument == "--version":
        print(f"tad_ext {tad_ext.__version__}")
    else:
        raise OptionError(f"unknown command '{argument}'; expected one of {', '.join(known)}")
    return 0


def _run(job: Job, argv: Sequence[str]) -> int:
    if "--help" in argv or "-h" in argv:
        print(explanation(job.settings, f"tad {job.name}", description=job.description, example=job.settings.example))
        return 0
    settings = parse(job.settings, argv)
    processes = os.environ.get("WORLD_SIZE", "1")
    # Each process would write the same files, or listen at the same port.
    alone = any(hasattr(settings, name) for name in ("output", "port")) and not job.settings.shared
    if processes != "1" and alone:
        together = ", ".join(f"tad {other.name}" for other in jobs().values() if other.settings.shared)
        raise OptionError(
            f"expected one process, got WORLD_SIZE={processes}: only {together} share their work among processes; "
            f"start this command without torchrun or accelerate, once for each GPU if you like (--device cuda:1)"
        )
    run = job.run
    interrupts.check()  # not every library lets Ctrl-C through while it is imported
    result = run(settings)
    return result if isinstance(result, int) else 0


def _explain(program: str, error: BaseException) -> int:
    """Says in one line what ended the program, and returns its exit code; a bug of ours is raised again."""
    number = interrupts.received() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0)
    notes = getattr(error, "__notes__", [])  # where to find what was made
    if number:
        stopped = "stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        told = error.args if isinstance(error, KeyboardInterrupt) else ()
        more = "; ".join(notes)
        print("\n" + ": ".join([program, stopped, *map(str, told), *filter(None, [more])]), file=sys.stderr)
        return 128 + number
    if isinstance(error, BrokenPipeError) or not _is_for_the_user(error):  # for_any_output knows of the pipe
        raise error
    hint = f" (see {program} --help)" if isinstance(error, OptionError) else ""
    print(f"{program}: error: {'; '.join([str(error), *notes])}{hint}", file=sys.stderr)
    return 2 if isinstance(error, (ValueError, TypeError, OSError)) else 1


def _is_for_the_user(error: BaseException) -> bool:
    """Whether it is: a file's error, a missing package's or this package's own. Those of other libraries are bugs."""
    if isinstance(error, (OSError, ImportError)):
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    ours = frame.f_globals.get("__name__", "").partition(".")[0] == __package__
    return ours and isinstance(error, (ValueError, TypeError, RuntimeError, ArithmeticError))
