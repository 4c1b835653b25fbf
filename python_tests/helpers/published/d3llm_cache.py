"""d3LLM's delayed cache, of its LLaDA code: a `predict` that keeps a growing prefix of the row.

Kept is always a prefix of whole blocks, the prompt being the first. A forward computes the columns behind it, up to the
end of the row, or the whole row, which refreshes the prefix:

- A finished block waits for `delay` forwards, and in each of them the whole row is computed. In the next forward its
  delay is over: it is computed once more, from the end of the prefix on, and with that forward it is kept.
- Blocks wait one after the other. A block that is finished while one before it waits begins to wait in the forward that
  keeps that one, which is a forward over the columns behind the prefix all the same.
- The prompt waits as well, as if finished in forward 0: the first `delay` forwards are whole, and the last of these
  keeps it. With a delay of 0 forward 1 keeps it.
- Forwards whose number is a multiple of `refresh_interval` are whole, unless they keep a block (that comes first).

A finished block begins to wait in the forward after the one that finished it, if no other waits then: finished in
forward f, it is computed in whole rows in f + 1 .. f + delay and kept in f + delay + 1. Until the prompt is kept there
is nothing to read, and forwards are whole whatever else holds.
"""

from typing import Any

from torch import Tensor

from . import block_schedule
from .canvas import Decoded
from .models import Model


class DelayedPrefix:
    """The `predict`; `windows` are the first columns that the forwards computed."""

    def __init__(
        self,
        model: Model,
        *,
        prompt_length: int,
        block_length: int,
        delay: int,
        refresh_interval: int | None,
        mask_id: int,
    ) -> None:
        self.model, self.prompt_length, self.block_length, self.mask_id = model, prompt_length, block_length, mask_id
        self.delay, self.refresh_interval = delay, refresh_interval
        self.windows: list[int] = []
        self._kept = 0  # blocks that are kept, of which the prompt is block 0
        self._waits_since = {0: 0}  # block -> forward in which it began to wait

    def __call__(self, ids: Tensor) -> Tensor:
        forward = len(self.windows) + 1
        if forward == 1:
            self._cache = self.model.cache(len(ids))
        behind_prefix = self._end(self._kept - 1)

        kept, waiting = self._kept, False
        while self._end(kept - 1) < len(ids) and self._is_finished(ids, kept):
            since = self._waits_since.setdefault(kept, forward)
            if forward - since < self.delay:
                waiting = True
                break
            kept += 1

        keeps = kept > self._kept
        refresh = self.refresh_interval is not None and forward % self.refresh_interval == 0
        first = 0 if not keeps and (waiting or refresh) else behind_prefix
        self._kept = kept
        self.windows.append(first)
        columns = None if first == 0 else list(range(first, len(ids)))
        return self.model.forward(ids, columns, self._cache)

    def _end(self, block: int) -> int:
        """The column behind a block; before the prompt, 0."""
        return 0 if block < 0 else self.prompt_length + block * self.block_length

    def _is_finished(self, ids: Tensor, block: int) -> bool:
        return not (ids[self._end(block - 1) : self._end(block)] == self.mask_id).any()


def loop(
    model: Model,
    prompt: list[int],
    *,
    block_length: int,
    delay: int,
    refresh_interval: int | None,
    mask_id: int,
    **schedule: Any,
) -> Decoded:
    """`block_schedule.loop` with this cache; no refreshing where `refresh_interval` is None."""
    predict = DelayedPrefix(
        model,
        prompt_length=len(prompt),
        block_length=block_length,
        delay=delay,
        refresh_interval=refresh_interval,
        mask_id=mask_id,
    )
    return block_schedule.loop(predict, prompt, block_length=block_length, mask_id=mask_id, **schedule)
