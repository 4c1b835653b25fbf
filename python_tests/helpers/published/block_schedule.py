"""Decoding several blocks at once, as TAD, d3LLM and D2F do it; with both thresholds at 1, block by block.

The first block exists at the start. After each forward at most one more is created: when the revealed share of the
newest is at least `block_add_threshold`, as it is when that block is complete. The masks of created blocks are
eligible, and a rule accepts some of them. A block is fully active when it is the first or when its predecessor's
revealed share, before this forward, is at least `decoded_token_threshold`. So that decoding goes on, something is
revealed in any case, by one of three published ways of forcing:

- "row-and-block" (TAD, d3LLM for LLaDA): if the rule accepts nothing of the whole row, the row's best eligible position
  is revealed, AND then the first fully active block that has masks reveals its best, if it got none by either way. When
  tokens are sampled, the block's forced token is the most probable one all the same.
- "block" (d3LLM for Dream): the first fully active block that has masks reveals its best if the rule accepts none of
  it.
- "every-block" (D2F): every fully active block that has masks reveals its best if the rule accepts none of it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from .canvas import Canvas, Decoded, Predict, Prediction, best

Sample = Callable[[int, int, Tensor], int]  # (1-based forward, canvas position, (V,) logits) -> token


@dataclass(frozen=True)
class Rule:
    """accepts: whether a position is revealed at once. score: which position is the best, the higher the better."""

    accepts: Callable[[Prediction, int], bool]
    score: Callable[[Prediction, int], float]


def entropy_below(threshold: float) -> Rule:
    """TAD, d3LLM, dParallel."""
    return Rule(lambda said, i: said.entropy[i] < threshold, lambda said, i: -said.entropy[i])


def confidence_above(threshold: float) -> Rule:
    """D2F."""
    return Rule(lambda said, i: said.confidence[i] > threshold, lambda said, i: said.confidence[i])


def confidence_from(threshold: float) -> Rule:
    """Fast-dLLM."""
    return Rule(lambda said, i: said.confidence[i] >= threshold, lambda said, i: said.confidence[i])


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    rule: Rule,
    forced: str,
    mask_id: int,
    block_add_threshold: float = 1.0,
    decoded_token_threshold: float = 1.0,
    hide_future_blocks: bool = False,
    sample: Sample | None = None,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """With `hide_future_blocks` the model sees created blocks only: the canvas grows."""
    assert gen_length % block_length == 0
    assert forced in ("row-and-block", "block", "every-block")
    assert block_add_threshold <= 1
    assert decoded_token_threshold <= 1
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    blocks = [(first, first + block_length) for first in range(0, gen_length, block_length)]
    created = 1
    forwards = 0

    def share(block: int) -> float:
        return (block_length - len(canvas.masks(*blocks[block]))) / block_length

    while canvas.masks():
        forwards += 1
        seen = canvas.start + blocks[created - 1][1] if hide_future_blocks else len(canvas.ids)
        logits = predict(canvas.ids[:seen])
        said = Prediction.of(logits, canvas, suppress)
        eligible = canvas.masks(0, blocks[created - 1][1])
        assert all(said.token[i] >= 0 for i in eligible), "a position that this forward did not compute"
        greedy = said.token
        if sample is not None:
            said = _sampled(said, {i: sample(forwards, i, logits[canvas.start + i]) for i in eligible}, logits, canvas)

        def best_of(positions: list[int], said: Prediction = said) -> int:
            return best(positions, partial(rule.score, said))[0]

        revealed = {i: said.token[i] for i in eligible if rule.accepts(said, i)}
        if forced == "row-and-block" and not revealed:
            position = best_of(eligible)
            revealed[position] = said.token[position]

        active = [
            masks
            for block in range(created)
            if (masks := canvas.masks(*blocks[block])) and (block == 0 or share(block - 1) >= decoded_token_threshold)
        ]
        for masks in active if forced == "every-block" else active[:1]:
            if not revealed.keys() & set(masks):
                position = best_of(masks)
                revealed[position] = (greedy if forced == "row-and-block" else said.token)[position]
        canvas.reveal(revealed, forwards)

        if created < len(blocks) and share(created - 1) >= block_add_threshold:
            created += 1
    return canvas.decoded(forwards)


def _sampled(said: Prediction, tokens: dict[int, int], logits: Tensor, canvas: Canvas) -> Prediction:
    """With these tokens instead of the most probable ones, and their probabilities."""
    token, confidence = list(said.token), list(said.confidence)
    for i, chosen in tokens.items():
        token[i] = chosen
        confidence[i] = logits[canvas.start + i].float().double().softmax(dim=-1)[chosen].item()
    return replace(said, token=token, confidence=confidence)
