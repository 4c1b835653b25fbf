"""Fast-dLLM v2's decoding, greedily, in whole blocks from the first token on.

A block's first token is the best one after the block before, as in autoregressive decoding. Then its parts, from left
to right: until a part has no mask, forwards of the whole block reveal the part's masks of confidence > `threshold`, and
its most confident one in any case. Decoding stops when an end of sequence stands there with no mask before it. A
forward that stores a finished block, and gives the next one's first token, counts; storing the prompt does not, unless
it gives that token.

With its cache within a block (`cached`), keys and values of the block are kept besides. There are none when a block
begins. A forward computes the whole block, and keeps it, when there are none, or when the first position of the part is
a mask. Otherwise it computes the part alone, whose new keys and values are kept in place of the old ones; it says
nothing of the part's first position.
"""

from collections.abc import Collection
from typing import Any

from torch import Tensor

from .canvas import Canvas, Decoded, Predict, Prediction, best
from .models import Model


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    part: int,
    threshold: float,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """`predict` gives logits FOR each position, from the position before. As for tokens behind the end, see `sdar`."""
    blocks = -(-(len(prompt) + gen_length) // block_length)
    canvas = Canvas(prompt, blocks * block_length - len(prompt), mask_id, ())
    forwards = 0

    def ended() -> bool:
        written = canvas.ids[len(prompt) :].tolist()
        written = written[: written.index(mask_id)] if mask_id in written else written
        return any(token in eos_ids for token in written)

    def decoded() -> Decoded:
        return Decoded(canvas.ids[len(prompt) :].tolist(), canvas.reveal_step, forwards, forwards)

    for block in range(len(prompt) // block_length, blocks):
        first, end = (edge * block_length - len(prompt) for edge in (block, block + 1))
        if first >= 0:
            forwards += 1
            said = Prediction.of(predict(canvas.ids[: len(prompt) + first + 1]), canvas, suppress)
            canvas.reveal({first: said.token[first]}, forwards)
            if ended():
                return decoded()
        for start in range(first, end, part):
            while masks := canvas.masks(max(start, 0), max(min(start + part, end), 0)):
                forwards += 1
                said = Prediction.of(predict(canvas.ids[: len(prompt) + end]), canvas, suppress)
                chosen = {i for i in masks if said.confidence[i] > threshold}
                chosen |= set(best(masks, said.confidence.__getitem__))
                canvas.reveal({i: said.token[i] for i in chosen}, forwards)
                if ended():
                    return decoded()
    return decoded()


class PartWindows:
    """A `predict` for `loop` with both caches; `windows` are the columns [first, end) that the forwards computed."""

    def __init__(self, model: Model, *, length: int, block_length: int, part: int, mask_id: int) -> None:
        self.model, self.block_length, self.part, self.mask_id = model, block_length, part, mask_id
        self.windows: list[tuple[int, int]] = []
        self._cache = model.cache(length)
        self._stored = 0  # columns of finished blocks
        self._block: int | None = None  # the first column of the block of which there are keys and values

    def __call__(self, ids: Tensor) -> Tensor:
        block = (len(ids) - 1) // self.block_length * self.block_length
        if self._stored < block:
            said = self._forward(ids[: block + 1], self._stored, block)
            self._stored = block
            if len(ids) == block + 1:
                return said
        start = int((ids == self.mask_id).nonzero()[0])
        start -= (start - block) % self.part
        if self._block != block or ids[start] == self.mask_id:
            self._block = block
            return self._forward(ids, block, len(ids))
        return self._forward(ids, start, min(start + self.part, len(ids)))

    def _forward(self, ids: Tensor, first: int, end: int) -> Tensor:
        self.windows.append((first, end))
        return self.model.forward(ids, list(range(first, end)), self._cache)


def cached(
    model: Model, prompt: list[int], *, gen_length: int, block_length: int, part: int, mask_id: int, **rule: Any
) -> Decoded:
    """`loop` with the cache within a block."""
    length = -(-(len(prompt) + gen_length) // block_length) * block_length
    predict = PartWindows(model, length=length, block_length=block_length, part=part, mask_id=mask_id)
    lengths = {"gen_length": gen_length, "block_length": block_length, "part": part}
    return loop(predict, prompt, mask_id=mask_id, **lengths, **rule)
