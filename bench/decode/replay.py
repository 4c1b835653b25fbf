"""Replays how many tokens each forward of a recorded decode revealed.

A model with random weights is never confident, so no threshold would reveal several of its tokens at a time. Here the
number is the recorded one, and only which tokens they are is the model's choice: its most confident ones.
"""

from dataclasses import dataclass
from itertools import chain, cycle
from pathlib import Path

import torch
from torch import Tensor

from tad_ext import DecodeState, TokenStatistics
from tad_ext.decoding.policies.rows import candidates, leading

from ..results import read_json


@dataclass(frozen=True)
class Schedule:
    """Tokens revealed by each forward, block by block; a block's numbers add up to its length."""

    source: str  # of the numbers, in words
    blocks: tuple[tuple[int, ...], ...]

    @classmethod
    def recorded(cls, gen_length: int, block_length: int) -> "Schedule":
        """For a canvas of any size: the recorded forwards again and again. The one that fills a block reveals what is
        left, so blocks of a multiple of the recorded length have exactly the recorded numbers.
        """
        document = read_json(Path(__file__).with_name("schedule.json"))
        counts = cycle(chain.from_iterable(document["blocks"]))
        blocks = []
        for _ in range(gen_length // block_length):
            block: list[int] = []
            while (left := block_length - sum(block)) > 0:
                block.append(min(next(counts), left))
            blocks.append(tuple(block))
        return cls(document["source"], tuple(blocks))

    @property
    def forwards(self) -> int:
        """The forwards of one canvas."""
        return sum(map(len, self.blocks))

    def of_row(self, row: int) -> list[int]:
        """Row r starts at block r, and has block 0 after the last: rows enter new blocks at different forwards."""
        first = row % len(self.blocks)
        return list(chain.from_iterable((*self.blocks[first:], *self.blocks[:first])))


class ReplayedCounts:
    """A policy: forward t reveals the n_t most confident eligible positions of a row; ties go to the lowest position.

    Row b of the batch has row b's schedule, so no row may take another's place: decode no more prompts than a batch
    holds. Never waits for the host.
    """

    def __init__(self, schedule: Schedule, rows: int, device: torch.device | str) -> None:
        self.counts = torch.tensor([schedule.of_row(row) for row in range(rows)], device=device)

    def __call__(self, statistics: TokenStatistics, state: DecodeState) -> tuple[Tensor, Tensor]:
        """Score by confidence; accept the n_t best."""
        now = state.forwards.clamp(max=self.counts.shape[1] - 1)[:, None]  # forwards before this one
        count = self.counts[: len(now)].gather(1, now)
        return statistics.confidence, leading(statistics.confidence, candidates(statistics, state), count)
