"""Decodes of a random model, timed: tad_ext's under each cache scheme, and the published loop's.

All of them reveal the same numbers of tokens, those of a recorded schedule, and decode the whole canvas; but for those
whose policy is a built-in one, which reveals as many at every forward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from statistics import fmean, median
from typing import Any

import torch
from torch import Tensor

from tad_ext.decoding import DecodeConfig, TopK, decode_stream, parse_cache
from tad_ext.ops import Policy

from ..results import Line, failed
from ..stopwatch import Implementation, Stopwatch
from .clock import PARTS, StepClock
from .published_loop import published_loop
from .replay import ReplayedCounts, Schedule

PUBLISHED = "published loop"
_WARM_UP, _FORWARDS_FOR_MEMORY, _FEWEST_FORWARDS = 3, 2, 4


@dataclass(frozen=True)
class Sizes:
    """`forwards`: the most of one sequence's run without a cache, whose forwards are all alike, and of a batch's fewer;
    with a cache the canvas is finished.
    """

    block_length: int
    forwards: int
    prompt_length: int = 150
    gen_length: int = 256


@dataclass(frozen=True)
class DecodeCase:
    """`cache` is a scheme's name ("none" among them), or PUBLISHED; `rows` are decoded at a time; with `graphs` steps
    are recorded and replayed, else none is, whatever the default. With `top_k` so many tokens are revealed at a time:
    choosing and revealing them is one operator then, while replayed numbers are a policy in PyTorch.
    """

    cache: str
    rows: int = 1
    graphs: bool = False
    top_k: int | None = None

    @property
    def path(self) -> str:
        """What tables call it."""
        who = self.cache if self.cache == PUBLISHED else f"tad_ext, {self.cache.replace('none', 'no')} cache"
        return f"{who}, batch {self.rows}" + (f", topk:{self.top_k}" if self.top_k else "") + ", graphs" * self.graphs


@dataclass(frozen=True)
class Sample:
    """One run. `steps` are milliseconds of each part of each step; `seconds` are of all of it."""

    seconds: float
    steps: list[dict[str, float]]


class DecodeBench:
    """A model, and the runs it is measured by."""

    def __init__(self, model: Any, sizes: Sizes, schedule: Schedule) -> None:
        self.model, self.sizes, self.schedule = model, sizes, schedule
        self.device: torch.device = model.device
        self.clock = StepClock(model)
        with torch.no_grad():  # its logit is 0 and never the largest: no decoder chooses the mask, or spends time on it
            model.lm_head.weight[model.config.mask_token_id] = 0
        generator = torch.Generator().manual_seed(0)
        most = min(model.config.mask_token_id, *model.config.eos_token_ids)
        self._prompts = torch.randint(most, (1024, sizes.prompt_length), generator=generator)

    def measure(self, cases: list[DecodeCase], *, seconds: float, most: int = 7) -> Iterator[list[Line]]:
        """A line for each case, after every round: all cases run in turn, until `seconds` have passed."""
        samples: dict[DecodeCase, list[Sample]] = {case: [] for case in cases}
        peaks: dict[DecodeCase, int] = {}
        failures: dict[DecodeCase, Line] = {}

        def each(run: Callable[[DecodeCase], object]) -> None:
            for case in cases:
                if case not in failures:
                    try:
                        run(case)
                    except Exception as error:
                        failures[case] = failed(case.path, error)

        each(lambda case: self.run(case, _WARM_UP))
        stopwatch, few = Stopwatch(self.device, evict_bytes=4), _FORWARDS_FOR_MEMORY
        each(lambda case: peaks.update({case: stopwatch.peak_bytes(Implementation(partial(self.run, case, few)))}))
        started = time.perf_counter()
        for _ in range(most):
            each(lambda case: samples[case].append(self.run(case)))
            yield [failures.get(case) or self._line(case, samples[case], peaks[case]) for case in cases]
            if time.perf_counter() - started > seconds:
                break

    def run(self, case: DecodeCase, forwards: int | None = None) -> Sample:
        """One decode from the start, of at most so many forwards."""
        if forwards is None:
            few = max(_FEWEST_FORWARDS, self.sizes.forwards // case.rows)
            forwards = few if case.cache in (PUBLISHED, "none") else self._whole_canvas(case)
        with self.clock.watching(parts=not case.graphs):
            started = time.perf_counter()
            decode = self._published if case.cache == PUBLISHED else self._own
            decode(case, self._prompts[: case.rows], forwards)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            return Sample(time.perf_counter() - started, self.clock.steps_ms())

    def _own(self, case: DecodeCase, prompts: Tensor, forwards: int) -> None:
        left = forwards

        def watch(*_: object) -> None:
            nonlocal left
            self.clock.next_step()
            left -= 1
            if not left:
                raise _EnoughError

        policy: Policy = TopK(case.top_k) if case.top_k else ReplayedCounts(self.schedule, case.rows, self.device)
        config = DecodeConfig(
            gen_length=self.sizes.gen_length,
            block_length=self.sizes.block_length,
            policy=policy if case.top_k or case.graphs else self.clock.policy(policy),
            cuda_graphs=case.graphs,
            stop_at_eos=False,
            cache=parse_cache(case.cache),
            batch_size=case.rows,
        )
        rows = decode_stream(self.model, prompts, config, watch=watch)
        self.clock.next_step()
        with suppress(_EnoughError):
            for _ in rows:
                pass

    def _published(self, case: DecodeCase, prompts: Tensor, forwards: int) -> None:
        with torch.inference_mode():
            prompt = prompts[:1].to(self.device)
            loop = published_loop(self.model, prompt, self.schedule.blocks, block_length=self.sizes.block_length)
            self.clock.next_step()
            for _ in range(min(forwards, self.schedule.forwards)):
                next(loop)
                self.clock.next_step()

    def _whole_canvas(self, case: DecodeCase) -> int:
        """Forwards that finish it."""
        sizes = self.sizes
        if case.top_k:
            return sizes.gen_length // sizes.block_length * ceil(sizes.block_length / case.top_k)
        return self.schedule.forwards

    def _cache_bytes(self, case: DecodeCase) -> int:
        """Keys and values of every layer and column."""
        if case.cache in (PUBLISHED, "none"):
            return 0
        config, columns = self.model.config, self.sizes.prompt_length + self.sizes.gen_length
        width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
        return 2 * config.num_hidden_layers * case.rows * columns * width * self.model.dtype.itemsize

    def _line(self, case: DecodeCase, samples: list[Sample], peak_bytes: int) -> Line:
        # Step i is the same work in every round, so a disturbed one is outvoted before steps are averaged.
        same_steps = list(zip(*(sample.steps for sample in samples)))
        parts_ms = {
            part: fmean(median(step.get(part, 0.0) for step in steps) for steps in same_steps) for part in PARTS
        }
        steps_ms = [sum(step.values()) for steps in same_steps for step in steps]
        rate = median(len(sample.steps) / sample.seconds for sample in samples)
        if case.graphs:  # of a replay: every run records its graphs anew, which a long one would hardly notice
            rate, parts_ms = 1e3 / median(steps_ms), {}
        return {
            "path": case.path,
            "batch": case.rows,
            "median_ms": median(steps_ms),
            "best_ms": min(steps_ms),
            "forwards": len(same_steps),
            "rounds": len(samples),
            "forwards_per_second": rate,
            "tokens_per_second": rate * case.rows * self.sizes.gen_length / self._whole_canvas(case),
            "parts_ms": parts_ms,
            "cache_bytes": self._cache_bytes(case),
            "peak_bytes": peak_bytes,
        }


class _EnoughError(Exception):
    """The run has the forwards it was asked for."""
