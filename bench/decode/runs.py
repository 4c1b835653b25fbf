"""Decodes of a random model, timed: tad_ext's under each cache scheme, and the published loop's.

All of them reveal the same numbers of tokens, those of a recorded schedule, and decode the whole canvas; but for those
whose policy is a built-in one, which reveals as many at every forward.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from math import ceil
from statistics import fmean, median
from typing import Any

import torch

from tad_ext.decoding import DecodeConfig, TopK, decode_stream, parse_cache, parse_policy

from ..results import Line, Turns
from ..stopwatch import Implementation, Stopwatch
from .clock import PARTS, StepClock
from .published_loop import published_loop
from .replay import ReplayedCounts, Schedule

PUBLISHED = "published loop"
_WARM_UP, _FORWARDS_FOR_MEMORY, _FEWEST_FORWARDS = 3, 2, 4

Sample = tuple[float, list[dict[str, float]]]  # of a run: its seconds, milliseconds of each part of each step


@dataclass(frozen=True)
class Sizes:
    """Lengths in tokens. A run with a cache fills the canvas; one without, whose forwards are alike, ends before."""

    block_length: int
    forwards: int  # of one sequence's run without a cache; a batch's has fewer
    prompt_length: int = 150
    gen_length: int = 256


@dataclass(frozen=True)
class DecodeCase:
    """One way to decode."""

    cache: str  # a scheme's name ("none" among them), or PUBLISHED
    rows: int = 1  # decoded at a time
    graphs: bool = False  # steps are recorded and replayed; else none is, whatever the default
    top_k: int | None = None  # tokens revealed at a time, by one operator; None: replayed numbers, a policy in PyTorch
    policy: str | None = None  # a policy's text: what its step costs; what random weights let it reveal says nothing

    @property
    def path(self) -> str:
        """What tables call it."""
        who = self.cache if self.cache == PUBLISHED else f"tad_ext, {self.cache.replace('none', 'no')} cache"
        chosen = self.policy or (f"topk:{self.top_k}" if self.top_k else None)
        return f"{who}, batch {self.rows}" + (f", {chosen}" if chosen else "") + ", graphs" * self.graphs

    @property
    def has_cache(self) -> bool:
        """Whether keys and values are kept."""
        return self.cache not in (PUBLISHED, "none")


class DecodeBench:
    """A model, and the runs it is measured by."""

    def __init__(self, model: Any, sizes: Sizes, schedule: Schedule) -> None:
        self.model, self.sizes, self.schedule = model, sizes, schedule
        self.clock, self.stopwatch = StepClock(model), Stopwatch(model.device)
        with torch.no_grad():  # its logit is 0 and never the largest: no decoder chooses the mask, or spends time on it
            model.lm_head.weight[model.config.mask_token_id] = 0
        generator = torch.Generator().manual_seed(0)
        most = min(model.config.mask_token_id, *model.config.eos_token_ids)
        self._prompts = torch.randint(most, (1024, sizes.prompt_length), generator=generator)

    @property
    def description(self) -> dict[str, Any]:
        """What tables say of it."""
        config = self.model.config
        return {
            "sizes": {
                "layers": config.num_hidden_layers,
                "width": config.hidden_size,
                "heads": config.num_attention_heads,
                "vocabulary": config.vocab_size,
            },
            "parameters": self.model.num_parameters(),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            **vars(self.sizes),
            "schedule": self.schedule.source,
            "tokens_per_forward": self.sizes.gen_length / self.schedule.forwards,
        }

    def measure(self, cases: list[DecodeCase], *, seconds: float, most: int = 7) -> Iterator[list[Line]]:
        """A line for each case, after every round: all cases run in turn, until `seconds` have passed."""
        by_path = {case.path: case for case in cases}
        turns = Turns(by_path)
        turns.each(partial(self.run, forwards=_WARM_UP))
        few = partial(self.run, forwards=_FORWARDS_FOR_MEMORY)
        peaks = turns.each(lambda case: self.stopwatch.peak_bytes(Implementation(partial(few, case))))
        rounds: list[dict[str, Sample]] = []
        started = time.perf_counter()
        while not rounds or (len(rounds) < most and time.perf_counter() - started <= seconds):
            rounds.append(turns.each(self.run))
            yield turns.lines(lambda path: self._numbers(by_path[path], [of[path] for of in rounds], peaks[path]))

    def run(self, case: DecodeCase, forwards: int | None = None) -> Sample:
        """One decode from the start, of at most so many forwards."""
        started, device, sizes = time.perf_counter(), self.model.device, self.sizes
        few = max(_FEWEST_FORWARDS, sizes.forwards // case.rows)
        left = forwards or (self._whole_canvas(case) if case.has_cache else few)

        def after_forward(*_: object) -> None:
            nonlocal left
            self.clock.next_step()
            left -= 1
            if not left:
                raise _EnoughError

        prompts = self._prompts[: case.rows]
        if case.cache == PUBLISHED:
            loop = published_loop(self.model, prompts.to(device), self.schedule.blocks, block_length=sizes.block_length)
            decode: Iterator[object] = map(after_forward, loop)
        else:
            # One operator that chooses and reveals is no part of a step by itself.
            top_k = TopK(case.top_k) if case.top_k else None
            policy = parse_policy(case.policy) if case.policy else ReplayedCounts(self.schedule, case.rows, device)
            config = DecodeConfig(
                gen_length=sizes.gen_length,
                block_length=sizes.block_length,
                policy=top_k or (policy if case.policy else self.clock.policy(policy)),
                cuda_graphs=case.graphs,
                stop_at_eos=False,
                cache=parse_cache(case.cache),
                batch_size=case.rows,
            )
            decode = decode_stream(self.model, prompts, config, watch=after_forward)
        self.clock.start(parts=not case.graphs)
        with suppress(_EnoughError):
            for _ in decode:
                pass
        steps = self.clock.steps_ms()
        return time.perf_counter() - started, steps

    def _whole_canvas(self, case: DecodeCase) -> int:
        """Forwards that finish it."""
        blocks, length = self.sizes.gen_length // self.sizes.block_length, self.sizes.block_length
        return blocks * ceil(length / case.top_k) if case.top_k else self.schedule.forwards

    def _cache_bytes(self, case: DecodeCase) -> int:
        """Keys and values of every layer and column."""
        config, columns = self.model.config, self.sizes.prompt_length + self.sizes.gen_length
        width = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
        row_bytes = 2 * config.num_hidden_layers * columns * width * self.model.dtype.itemsize
        return case.rows * row_bytes if case.has_cache else 0

    def _numbers(self, case: DecodeCase, samples: list[Sample], peak_bytes: int) -> Line:
        # Step i is the same work in every round, so a disturbed one is outvoted before steps are averaged.
        same_steps = list(zip(*(steps for _, steps in samples)))
        parts_ms = {part: fmean(median(step[part] for step in steps) for steps in same_steps) for part in PARTS}
        steps_ms = [sum(step.values()) for steps in same_steps for step in steps]
        rate = median(len(steps) / seconds for seconds, steps in samples)
        tokens = self.sizes.gen_length
        if case.graphs:  # of a replay: every run records its graphs anew, which a long one would hardly notice
            rate, parts_ms = 1e3 / median(steps_ms), {}
        return {
            "batch": case.rows,
            "median_ms": median(steps_ms),
            "best_ms": min(steps_ms),
            "forwards": len(same_steps),
            "rounds": len(samples),
            "forwards_per_second": rate,
            **({} if case.policy else {"tokens_per_second": rate * case.rows * tokens / self._whole_canvas(case)}),
            "parts_ms": parts_ms,
            "cache_bytes": self._cache_bytes(case),
            "peak_bytes": peak_bytes,
        }


class _EnoughError(Exception):
    """The run has the forwards it was asked for."""
