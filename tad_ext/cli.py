"""The `tad` command: one job of the method per subcommand.

Nothing heavy is imported until a command is known, so that help is instant.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tad_ext import interrupts
from tad_ext.options import OptionError, parse
from tad_ext.terminal import for_any_output


@dataclass(frozen=True)
class Command:
    """A subcommand: `job` and its settings dataclass `config`, by "module:name", and what --help says."""

    config: str
    job: str
    summary: str
    description: str
    example: str
    shared: bool = False  # several processes may run it together (torchrun): they share the work


COMMANDS = {
    "doctor": Command(
        "tad_ext.doctor:DoctorConfig",
        "tad_ext.doctor:doctor",
        "show what is installed, compiled and usable on this machine",
        """Shows the versions of everything tad_ext stands on, which kernels are compiled (and why others are not), the
        CPU's instruction set and threads, the GPUs, and what is missing for which command. Start here when something is
        slow or fails. Exit code 1 if tad_ext cannot work at all.""",
        "tad doctor",
    ),
    "pretrain": Command(
        "tad_ext.pretraining:PretrainConfig",
        "tad_ext.pretraining:pretrain",
        "train a tiny masked diffusion model from scratch",
        """Trains a masked diffusion language model small enough for a CPU on the embedded arithmetic task, and saves it
        as a checkpoint with its tokenizer. It is the base model of the demo and a quick subject for experiments.""",
        "tad pretrain --output runs/base",
    ),
    "collect": Command(
        "tad_ext.collection:CollectConfig",
        "tad_ext.collection:collect",
        "record how the teacher decodes: trajectories",
        """Step 1 of the method. The model answers the training problems one token per step, with the reference answer
        in its prompt (the privileged teacher). Right answers are kept as trajectories: the tokens, and the step at
        which each was revealed. A run that was stopped goes on where it was when the same command is given again. The
        task gsm8k reads the original problem file (--data) and puts problems into the tokenizer's chat template.""",
        "tad collect --model LLaDA-8B-Instruct --task gsm8k --data gsm8k_train.jsonl --output runs/trajectories",
        shared=True,
    ),
    "distill": Command(
        "tad_ext.distillation:DistillConfig",
        "tad_ext.distillation:distill",
        "train a LoRA adapter on trajectories with the TAD loss",
        """Step 2 of the method. At random states of the trajectories, tokens that the teacher reveals within the next
        delta steps are learned by cross-entropy, later ones by the divergence from the teacher's own distribution. The
        teacher is the same model with its adapter switched off. A small delta favours accuracy, a large one speed. The
        defaults are the published ones, made for models of billions of parameters.""",
        "tad distill --model runs/base --trajectories runs/trajectories --output runs/distill --delta 8",
        shared=True,
    ),
    "merge": Command(
        "tad_ext.merging:MergeConfig",
        "tad_ext.merging:merge",
        "merge an adapter into its model: one plain checkpoint",
        """Adds the adapter to the base model's weights and saves the result as a checkpoint that needs no adapter and
        decodes faster.""",
        "tad merge --model runs/base --adapter runs/distill/adapter --output runs/distilled",
    ),
    "generate": Command(
        "tad_ext.generation:GenerateConfig",
        "tad_ext.generation:generate",
        "answer a prompt, a file of prompts, or a chat",
        """Decodes responses, several tokens per forward pass where the policy allows it. One prompt (--prompt) and a
        chat (--interactive) are shown in the terminal while the canvas fills. The responses to a file (--prompts) are
        written as they finish, with --output to generations.jsonl with their tokens and forwards; a run that was
        stopped goes on where it was when the same command is given again. The defaults are the published decoding
        settings.""",
        'tad generate --model runs/distilled --prompt "..." --gen-length 256 --block-length 32 --policy entropy:0.5',
    ),
    "plot trace": Command(
        "tad_ext.generation.trace_plot:PlotTraceConfig",
        "tad_ext.generation.trace_plot:plot_trace",
        "draw the order in which tokens were revealed",
        """Draws what tad generate --trace has written as a heat map: a position per column, its colour the forward that
        revealed it. Several prompts are a row each, one prompt is wrapped by block.""",
        "tad plot trace --input runs/generated --output trace.png",
    ),
    "evaluate": Command(
        "tad_ext.evaluation.config:EvaluateConfig",
        "tad_ext.evaluation:evaluate",
        "measure accuracy, tokens per forward and AUP",
        """Answers a task's problems one token per step and at every threshold of a sweep, and reports accuracy, tokens
        per forward, tokens per second and AUP (accuracy under parallelism: the area under the accuracy curve). Writes
        evaluation.json, responses.jsonl (as they come) and accuracy_curve.png; an earlier evaluation there stands until
        this one is complete. With --trajectories also the curve from which delta is chosen: the model's confidence in a
        token against the steps until the teacher revealed it.""",
        "tad evaluate --model runs/distilled --task gsm8k --data gsm8k_test.jsonl --output runs/evaluation",
    ),
    "policies": Command(
        "tad_ext.policy_list:PoliciesConfig",
        "tad_ext.policy_list:list_policies",
        "list the unmasking policies and the published settings",
        """Lists every unmasking policy with the text that --policy takes, its rule and its source, and the published
        decoding settings that have a name.""",
        "tad policies",
    ),
    "demo": Command(
        "tad_ext.demo:DemoConfig",
        "tad_ext.demo:run_demo",
        "watch the whole method work, in minutes, on a CPU",
        """Runs the whole chain on a tiny model: pretrain, evaluate, collect, distill with LoRA, merge, evaluate again.
        Prints one table, base against distilled, and writes demo.json, curve.png and confidence_decay.png. Nothing in
        it is precomputed. --smoke runs the same chain in about a minute, too short to show the effect.""",
        "tad demo --output runs/demo",
    ),
}


@for_any_output
def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tad` and returns its exit code.

    0, or what the job returned; 2 for bad input and 1 for a job that gave up, each with one line on stderr; 130 after
    Ctrl-C and 143 after SIGTERM. Errors from inside other libraries are bugs of ours and keep their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1  # tad plot trace
    name, rest = " ".join(arguments[:words]), arguments[words:]
    with interrupts.stoppable():
        try:
            if name in COMMANDS:
                return _run(name, COMMANDS[name], rest)
            return _without_command(name)
        except BaseException as error:
            return _explain(f"tad {name}" if name in COMMANDS else "tad", error)


def _without_command(argument: str) -> int:
    if argument in ("", "-h", "--help", "help"):
        print(overview())
        return 0
    if argument == "--version":
        print(_version())
        return 0
    raise OptionError(f"unknown command '{argument}'; expected one of {', '.join(COMMANDS)}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"tad_ext {version('tad_ext')}"
    except PackageNotFoundError:
        return "tad_ext, run from its source folder"


def _explain(program: str, error: BaseException) -> int:
    """Says in one line what ended the program, and returns its exit code; a bug of ours is raised again."""
    number = interrupts.received() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0)
    notes = getattr(error, "__notes__", [])  # where to find what was made
    if number:
        stopped = "stopped" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        told = error.args if isinstance(error, KeyboardInterrupt) else ()
        print("\n" + ": ".join([program, stopped, *map(str, told), *notes]), file=sys.stderr)
        return 128 + number
    if isinstance(error, BrokenPipeError):
        raise error  # for_any_output knows
    if not isinstance(error, Exception) or not raised_for_the_user(error):
        raise error
    hint = f" (see {program} --help)" if isinstance(error, OptionError) else ""
    print(f"{program}: error: {'; '.join([str(error), *notes])}{hint}", file=sys.stderr)
    return 2 if isinstance(error, (ValueError, TypeError, OSError)) else 1


def overview() -> str:
    """The text of `tad --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: tad <command> [--config FILE] [--key value ...]",
            "",
            "Makes masked diffusion language models decode several tokens per forward pass: collects a teacher's",
            "decoding trajectories, distils them into the same model with LoRA, decodes and evaluates the result.",
            "",
            "commands:",
            *lines,
            "",
            "`tad <command> --help` explains a command and every option of it. Options may also stand in a YAML file",
            "(--config); the command line overrides the file.",
            "",
            "first steps:",
            "  tad doctor",
            "  tad demo --output runs/demo",
        ]
    )


def raised_for_the_user(error: Exception) -> bool:
    """Whether an error's message is meant for the user: a file's error, something that is not installed, or one that
    this package's own code raised.

    A ValueError or TypeError from inside another library is a bug of ours, and its traceback is what one needs.
    """
    if isinstance(error, (OSError, ImportError)):
        return True
    traceback = error.__traceback__
    if traceback is None or not isinstance(error, (ValueError, TypeError, RuntimeError, ArithmeticError)):
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__", "").partition(".")[0] == __package__


def _run(name: str, command: Command, argv: Sequence[str]) -> int:
    description = textwrap.fill(" ".join(command.description.split()), width=100)
    try:
        settings = parse(
            _load(command.config), argv, program=f"tad {name}", description=description, example=f"  {command.example}"
        )
    except SystemExit as stop:
        if stop.code:
            raise
        return 0  # after --help
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes != "1" and hasattr(settings, "output") and not command.shared:  # each would write the same files
        together = ", ".join(f"tad {other}" for other, one in COMMANDS.items() if one.shared)
        raise OptionError(
            f"expected one process, got WORLD_SIZE={processes}: only {together} share their work among processes; "
            f"start this command without torchrun or accelerate, once for each GPU if you like (--device cuda:1)"
        )
    result = _load(command.job)(settings)
    return result if isinstance(result, int) else 0


def _load(reference: str) -> Any:
    module, _, name = reference.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    interrupts.check()  # not every library lets Ctrl-C through while it is imported
    return loaded
