"""`tad generate`: responses to one prompt, to a file of prompts, or to what is typed in a chat."""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tad_ext.data.jsonl import read_jsonl, read_lines
from tad_ext.decoding import TOKENS_PER_FORWARD_DEFINITION
from tad_ext.files import tried_folder
from tad_ext.jobs.generate.chat import chat
from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.jobs.generate.live_view import live_view, print_rates, rates
from tad_ext.jobs.generate.output import OutputFolder
from tad_ext.jobs.generate.session import Session

Responses = dict[int, dict[str, Any]]


def generate(config: GenerateConfig) -> list[dict[str, Any]]:
    """Answers every prompt; with an output folder, each response is written there as soon as it is finished.

    Responses are printed, but for those of a file that go into a folder. The folder of a run that was stopped is
    continued: only prompts that are not answered yet are decoded, with the random streams they would have had.

    Returns one dict per prompt: index, prompt, response, tokens (revealed ones, up to and including the first
        end-of-sequence token or stop string), forwards. None for a chat. Without an output folder the finished ones are
        printed, whatever ends the command.

    Raises ValueError, TypeError for a wrong setting and for a folder of other prompts or settings, before the model is
        loaded; FileNotFoundError for no such prompts file; KeyboardInterrupt that says what is finished.
    """
    session = Session(config)
    if config.interactive:
        chat(session)
        return []

    # 1. The prompts, and which of them are answered already.
    prompts = read_prompts(config)
    ids = [session.encode(prompt) for prompt in prompts]
    session.check(ids)
    output = None if config.output is None else OutputFolder(session, prompts)
    finished: Responses = {} if output is None else output.finished
    waiting = {index: prompt for index, prompt in enumerate(ids) if index not in finished}

    # 2. The others, each finished as soon as it is decoded.
    summary = rates(0, 0, 0.0)
    try:
        if waiting:
            summary = _answer(session, prompts, waiting, finished, output)
    except KeyboardInterrupt:
        saved = "with --output, the same command would continue"
        if output is not None:
            saved = f"they are in {output.path}, and the same command continues"
        raise KeyboardInterrupt(f"{len(finished)} of {len(prompts)} responses are finished; {saved}") from None
    finally:
        if config.prompts is None or output is None:
            for index in sorted(finished):
                print(finished[index]["response"])

    # 3. What they took.
    if config.prompts is not None:
        print(f"{len(prompts)} responses; this run: {summary}", file=sys.stderr)
        print(f"tokens per forward: {TOKENS_PER_FORWARD_DEFINITION}", file=sys.stderr)
    elif waiting:
        print_rates(summary)
    return [finished[index] for index in range(len(prompts))]


def read_prompts(config: GenerateConfig) -> list[str]:
    """The prompts that the settings name. Raises ValueError (naming file and line), FileNotFoundError."""
    if config.prompt is not None:
        return [config.prompt]
    path = Path(str(config.prompts))
    if path.suffix != ".jsonl":
        prompts = [line for _, line in read_lines(path, argument="prompts")]
        if not prompts:
            raise ValueError(f"prompts is '{path}', which holds no prompts")
        return prompts
    records = read_jsonl(path, argument="prompts")
    for place, record in records:
        if not isinstance(record.get("prompt"), str):
            raise ValueError(f'{place}: expected {{"prompt": "..."}}, got {json.dumps(record)[:80]}')
    return [record["prompt"] for _, record in records]


def _answer(
    session: Session,
    prompts: list[str],
    waiting: dict[int, list[int]],
    finished: Responses,
    output: OutputFolder | None,
) -> str:
    """Decodes what waits; each response goes into `finished` and into the folder. Returns the rates of it all."""
    if output is not None:
        tried_folder(output.path)
    _ = session.model  # loaded before anything is written or shown
    is_file, done, total = session.config.prompts is not None, len(finished), len(prompts)
    tokens, forwards, summary = 0, 0, ""
    with ExitStack() as stack:
        if output is not None:
            stack.enter_context(output.writing())
        if done:
            print(f"continuing: {done} of {total} prompts are answered already", file=sys.stderr)
        bar = stack.enter_context(
            tqdm(total=total, initial=done, unit="prompt", desc="generating", disable=not is_file)
        )
        watch = None if is_file or session.decoding.infill else stack.enter_context(live_view(session))
        started = time.perf_counter()
        for sequence in session.stream(waiting, watch):
            response = {
                "index": sequence.number,
                "prompt": prompts[sequence.number],
                "response": session.text(sequence),
                "tokens": sequence.revealed,
                "forwards": sequence.forwards,
            }
            if output is not None:
                output.add(response, session.trace(sequence))
            finished[sequence.number] = response
            tokens, forwards = tokens + sequence.revealed, forwards + sequence.forwards
            summary = rates(tokens, forwards, time.perf_counter() - started)
            bar.set_postfix_str(summary, refresh=False)
            bar.update()
    return summary
