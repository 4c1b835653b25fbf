"""`tad generate`: responses to one prompt, to a file of prompts, or to what is typed in a chat."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from typing import Any

from tqdm import tqdm

from tad_ext.decoding import TOKENS_PER_FORWARD_DEFINITION, DecodedSequence
from tad_ext.decoding.traces import Trace
from tad_ext.jobs.generate.chat import chat
from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.jobs.generate.live_view import rates, terminal, view_of
from tad_ext.jobs.generate.output import OutputFolder
from tad_ext.jobs.generate.prompts import encode, read_prompts
from tad_ext.jobs.generate.session import Session

Responses = dict[int, dict[str, Any]]


def generate(config: GenerateConfig) -> list[dict[str, Any]]:
    """Answers every prompt; with an output folder, each response is written there as soon as it is finished.

    Responses are printed, but for those of a file that go into a folder. The folder of a run that was stopped is
    continued: only prompts that are not answered yet are decoded, with the random streams they would have had.

    Returns one dict per prompt: index, prompt, response, tokens (revealed ones, up to and including the first
        end-of-sequence token or stop string), forwards. None for a chat.

    Raises:
        ValueError, TypeError: a setting that is wrong, before the model is loaded; a folder with responses to other
            prompts or with other settings. FileNotFoundError: no such prompts file.
        KeyboardInterrupt: after Ctrl-C, with a message on what is finished.
    """
    session = Session(config)
    if config.interactive:
        chat(session)
        return []
    prompts = read_prompts(config)
    ids = [encode(session.tokenizer, prompt, chat=config.chat) for prompt in prompts]
    session.check(ids)
    output = None if config.output is None else OutputFolder(session, prompts)
    finished: Responses = {} if output is None else dict(output.finished)
    progress = _Progress(len(prompts), finished, is_file=config.prompts is not None)
    waiting = {index: prompt for index, prompt in enumerate(ids) if index not in finished}
    shown = config.prompts is None or output is None
    try:
        if waiting:
            _answer(session, prompts, waiting, finished, output, progress)
    except KeyboardInterrupt:
        if shown:
            _print(finished)
        saved = "with --output, the same command would continue"
        if output is not None:
            saved = f"they are in {output.path}, and the same command continues"
        raise KeyboardInterrupt(f"{len(finished)} of {len(prompts)} responses are finished; {saved}") from None
    if shown:
        _print(finished)
    progress.print_summary()
    return [finished[index] for index in range(len(prompts))]


def _answer(
    session: Session,
    prompts: list[str],
    waiting: dict[int, list[int]],
    finished: Responses,
    output: OutputFolder | None,
    progress: _Progress,
) -> None:
    """Decodes what waits; each response goes into `finished` and into the folder."""
    if output is not None:
        output.try_out()
    session.load()  # before anything is written or shown
    console = None if progress.is_file or session.decoding.infill else terminal()
    with ExitStack() as stack:
        if output is not None:
            stack.enter_context(output)
        stack.enter_context(progress)
        view = None if console is None else stack.enter_context(view_of(session, console))
        for row in session.stream(waiting, None if view is None else view.watch):
            response = {
                "index": row.number,
                "prompt": prompts[row.number],
                "response": session.text(row),
                "tokens": row.revealed,
                "forwards": row.forwards,
            }
            if output is not None:
                traced = session.config.trace
                output.add(
                    response, Trace.of(row, session.decoding.block_length, session.tokenizer) if traced else None
                )
            finished[row.number] = response
            progress.add(row)


def _print(responses: Responses) -> None:
    for index in sorted(responses):
        print(responses[index]["response"])


class _Progress:
    """A bar for a file of prompts, and the rates of what this run decodes."""

    def __init__(self, total: int, finished: Responses, *, is_file: bool) -> None:
        self.total, self.is_file = total, is_file
        self.done = len(finished)
        self.tokens = self.forwards = 0
        self.seconds = 0.0

    def __enter__(self) -> _Progress:
        if self.done:
            print(f"continuing: {self.done} of {self.total} prompts are answered already", file=sys.stderr)
        self._started = time.perf_counter()
        self._bar = tqdm(
            total=self.total, initial=self.done, unit="prompt", desc="generating", disable=not self.is_file
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._bar.close()

    def add(self, row: DecodedSequence) -> None:
        """Counts a response."""
        self.tokens += row.revealed
        self.forwards += row.forwards
        self._bar.set_postfix_str(rates(self.tokens, self.forwards, time.perf_counter() - self._started), refresh=False)
        self._bar.update()

    def print_summary(self) -> None:
        """For a file, or a person who looks at the terminal."""
        summary = rates(self.tokens, self.forwards, self.seconds)
        if self.is_file:
            print(f"{self.total} responses; this run: {summary}", file=sys.stderr)
            print(f"tokens per forward: {TOKENS_PER_FORWARD_DEFINITION}", file=sys.stderr)
        elif self.forwards and (console := terminal()):
            console.print(summary, style="dim")
