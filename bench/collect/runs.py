"""Trajectories collected in different ways, in turns: what one costs, and how far it is the exact one.

Exact is one token per step with nothing kept between forwards: what the published loop collects, too. A forward takes
as long in one block as in the next then, so one block is timed, and of the published loop a few forwards; a decode with
a cache or with responses that end is timed as a whole.
"""

import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from math import ceil
from statistics import fmean, median
from typing import Any

import torch

from tad_ext import DecodeConfig, DecodeResult, decode, decode_stream

from ..decode.published_loop import published_loop
from ..results import Line, Turns
from .subjects import Subject

PUBLISHED_FORWARDS, _WARM_UP = 2, 2

Sample = tuple[float, float]  # seconds and forwards of a trajectory


@dataclass(frozen=True)
class CollectCase:
    """One way to collect."""

    rows: int = 1  # decoded at a time
    temperature: float = 0.0
    top_k: int = 1  # tokens per step
    cache: str = "none"
    stop_at_eos: bool = False
    published: bool = False
    wide: bool = True  # the published loop's softmax, which at temperature 0 is in float64

    @property
    def path(self) -> str:
        """What tables call it."""
        words = ["published loop"] if self.published else ["tad_ext", f"batch {self.rows}"]
        words += [f"topk:{self.top_k}"] * (self.top_k > 1) + [f"{self.cache} cache"] * (self.cache != "none")
        words += ["stop at EOS"] * self.stop_at_eos + [f"temperature {self.temperature}"] * (self.temperature > 0)
        words += ["softmax in the model's dtype"] * (not self.wide)
        return ", ".join(words)

    @property
    def is_whole(self) -> bool:
        """Whether it is timed from the first forward to the last."""
        return self.cache != "none" or self.stop_at_eos

    @property
    def is_exact(self) -> bool:
        """Whether the published loop would collect the same."""
        return self.top_k == 1 and not self.is_whole


class CollectBench:
    """A subject, of which the first `compared` prompts are answered exactly and inexactly, and compared."""

    def __init__(self, subject: Subject, *, compared: int) -> None:
        self.subject, self.compared = subject, compared
        self.on_gpu = subject.model.device.type == "cuda"

    def measure(self, cases: list[CollectCase], turns: int) -> Iterator[list[Line]]:
        """A line for each case, after every turn of all of them; they are compared after the first."""
        by_path = {case.path: case for case in cases}
        rivals, samples, compared = Turns(by_path), list[dict[str, Sample]](), dict[str, Line]()

        def line(path: str) -> Line:
            seconds, forwards = zip(*(turn[path] for turn in samples), strict=True)
            return {
                "temperature": by_path[path].temperature,
                "median_ms": 1e3 * median(seconds),
                "best_ms": 1e3 * min(seconds),
                "turns": len(samples),
                "forwards": forwards[0],
                "trajectories_per_hour": 3600 / median(seconds),
                **compared.get(path, {}),
            }

        rivals.each(lambda case: self.run(case, forwards=_WARM_UP))
        samples.append(rivals.each(self.run))
        yield rivals.lines(line)
        compared |= rivals.each(self.compare)
        yield rivals.lines(line)
        for _ in range(turns - 1):
            samples.append(rivals.each(self.run))
            yield rivals.lines(line)

    def run(self, case: CollectCase, forwards: int | None = None) -> Sample:
        """One turn, or its first `forwards` alone."""
        blocks = self.subject.sizes.gen_length // self.subject.sizes.block_length
        if case.published:
            seconds = self._published_seconds(case, forwards or PUBLISHED_FORWARDS)
            return seconds, self.subject.sizes.gen_length
        of_block = ceil(self.subject.sizes.block_length / case.top_k)
        most = forwards or (None if case.is_whole else of_block)
        rows = case.rows * (2 if case.stop_at_eos else 1)  # so that some take the place of others
        prompts = self.subject.prompts[:rows]

        def after_forward(*_: object) -> None:
            nonlocal most
            if most is not None:
                most -= 1
                if not most:
                    raise _EnoughError

        done = []
        with self.subject.ending() if case.stop_at_eos else nullcontext():
            began = self._now()
            with suppress(_EnoughError):
                for one in decode_stream(self.subject.model, prompts, self._config(case), watch=after_forward):
                    done.append(one.forwards)
            seconds = self._now() - began
        if case.is_whole:
            return seconds / len(prompts), fmean(done) if done else 0.0
        return seconds * blocks / len(prompts), of_block * blocks

    def compare(self, case: CollectCase) -> Line:
        """How much of what the exact way collects another way collects differently, and how much of it is right.

        Choice number s of the exact way, a position and its token, is the same if the other reveals both at the forward
        that is to make this choice: at forward s, and with k tokens a step at the forward that reveals the block's
        tokens number s - k + 1 to s. Whatever follows another choice is decoded from another canvas.
        """
        if case.published or case.temperature or (self.subject.is_random and case.stop_at_eos):
            return {}
        result = self._exact if case.is_exact else self._answers(case)
        line: Line = {} if self.subject.right is None else {"right": self.subject.right(result)}
        if case.is_exact:
            return line
        exact, other = (torch.tensor(one.canvases()) for one in (self._exact, result))
        line["tokens_differ"] = (exact != other).float().mean().item()
        if not case.stop_at_eos:  # which has no choices behind the end
            length = self.subject.sizes.block_length
            choice = self._exact.reveal_step - 1
            due = choice // length * ceil(length / case.top_k) + choice % length // case.top_k + 1
            line["choices_differ"] = ((exact != other) | (result.reveal_step != due)).float().mean().item()
        return line

    @cached_property
    def _exact(self) -> DecodeResult:
        return self._answers(CollectCase(rows=min(self.compared, 16)))

    def _answers(self, case: CollectCase) -> DecodeResult:
        return decode(self.subject.model, self.subject.prompts[: self.compared], self._config(case))

    def _config(self, case: CollectCase) -> DecodeConfig:
        return DecodeConfig(
            **vars(self.subject.sizes),
            policy=f"topk:{case.top_k}",
            temperature=case.temperature,
            stop_at_eos=case.stop_at_eos,
            cache=case.cache,
            batch_size=case.rows,
        )

    def _published_seconds(self, case: CollectCase, forwards: int) -> float:
        """Of a whole canvas, from so many forwards."""
        sizes, model = self.subject.sizes, self.subject.model
        prompt = torch.tensor(self.subject.prompts[:1], device=model.device)
        blocks = ((1,) * sizes.block_length,) * (sizes.gen_length // sizes.block_length)
        dtype = torch.float64 if case.wide else None
        options: dict[str, Any] = {
            "block_length": sizes.block_length, "temperature": case.temperature, "dtype": dtype
        }  # fmt: skip
        began = self._now()
        for _ in islice(published_loop(model, prompt, blocks, **options), forwards):
            pass
        return (self._now() - began) * sizes.gen_length / forwards

    def _now(self) -> float:
        """Seconds: on a GPU the clock's; on a CPU this process's own, as others may be at work beside it."""
        if not self.on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


class _EnoughError(Exception):
    """Ends a decode."""
