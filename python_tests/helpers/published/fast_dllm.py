"""Fast-dLLM: block by block, everything sure enough, and at least the surest position of the block.

Its caches are `models.BlockWindows`, a `predict` for LLaDA. On Dream its cached loops decode by another rule, because
there a window cannot predict its own first column: the forward in which a block begins reveals the block's first
position, whatever its confidence, and nothing else.
"""

from collections.abc import Callable, Collection

from .canvas import Canvas, Decoded, Predict, Prediction, best
from .models import Model

Choose = Callable[[Prediction, list[int]], list[int]]  # (prediction, masks of the block) -> those to reveal


def threshold(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    mask_id: int,
    threshold: float = 0.9,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """Every p >= threshold, else the largest."""
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    return _block_by_block(predict, canvas, block_length, suppress, lambda said, masks: _sure(said, masks, threshold))


def factor(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    mask_id: int,
    factor: float = 1.0,
    variant: str = "code",
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """The longest list of most confident masks of the block in which the n-th has p >= 1 - factor / (n + 1).

    The first is free. Variant "code", unlike "paper", does not test the block's last mask either: it passes as soon as
    all before it pass.
    """
    assert variant in ("code", "paper")

    def choose(said: Prediction, masks: list[int]) -> list[int]:
        ranked = best(masks, said.confidence.__getitem__, len(masks))
        accepted = 1
        while accepted < len(ranked) and said.confidence[ranked[accepted]] >= 1 - factor / (accepted + 2):
            accepted += 1
        if variant == "code" and accepted == len(ranked) - 1:
            accepted += 1
        return ranked[:accepted]

    return _block_by_block(predict, Canvas(prompt, gen_length, mask_id, eos_ids), block_length, suppress, choose)


def dream_cached(
    model: Model,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    kind: str,
    mask_id: int,
    threshold: float = 0.9,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """Dream with a cache, `kind` "prefix" or "dual".

    Windows begin with the block, so the column before it, which predicts the first position, keeps its keys and values
    from the forward in which the block began.
    """
    assert gen_length % block_length == 0
    assert kind in ("prefix", "dual")
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    length = len(canvas.ids)
    cache = model.cache(length)
    forwards = 0
    for first in range(0, gen_length, block_length):
        if not canvas.masks():
            break
        forwards += 1
        said = Prediction.of(model.forward(canvas.ids, None, cache), canvas, suppress)
        canvas.reveal({first: said.token[first]}, forwards)

        window_end = length if kind == "prefix" else canvas.start + first + block_length
        window = list(range(canvas.start + first, window_end))
        while masks := canvas.masks(first, first + block_length):
            forwards += 1
            said = Prediction.of(model.forward(canvas.ids, window, cache), canvas, suppress)
            canvas.reveal({i: said.token[i] for i in _sure(said, masks, threshold)}, forwards)
    return canvas.decoded(forwards)


def _sure(said: Prediction, masks: list[int], threshold: float) -> list[int]:
    return [i for i in masks if said.confidence[i] >= threshold] or best(masks, said.confidence.__getitem__)


def _block_by_block(
    predict: Predict, canvas: Canvas, block_length: int, suppress: Collection[int], choose: Choose
) -> Decoded:
    assert canvas.length % block_length == 0
    forwards = 0
    for first in range(0, canvas.length, block_length):
        while masks := canvas.masks(first, first + block_length):
            forwards += 1
            said = Prediction.of(predict(canvas.ids), canvas, suppress)
            canvas.reveal({i: said.token[i] for i in choose(said, masks)}, forwards)
    return canvas.decoded(forwards)
