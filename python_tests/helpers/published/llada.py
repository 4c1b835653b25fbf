"""LLaDA's own loop: block by block, a fixed number of tokens in each step.

`steps` are shared out evenly over the blocks. A block with M masks and S steps reveals M // S of them in each step, and
one more in each of the first M % S steps; with more steps than masks the later ones reveal nothing. M counts the masks
when the block begins. The order is by confidence, or random: `random(forward, position)` gives a number for each mask,
and the largest are revealed.
"""

from collections.abc import Callable, Collection

import torch

from .canvas import Canvas, Decoded, Forwards, Predict, best

Random = Callable[[int, int], float]  # (1-based forward, canvas position) -> a number in [0, 1)


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    steps: int,
    mask_id: int,
    random: Random | None = None,
    logits_eos_inf: Collection[int] = (),
    confidence_eos_eot_inf: Collection[int] = (),
    eos_and_eot_have_no_mass: bool = False,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """Decode by confidence, or in random order.

    logits_eos_inf: ids (published: the end of sequence) left out of the choice and of the probabilities.
    confidence_eos_eot_inf: ids (published: the ends of sequence and of turn); positions that predict one of them come
        last in the order.
    eos_and_eot_have_no_mass: what the published code does besides when greedy, because its noisy logits are its logits:
        the probabilities that the others are ranked by are taken without these ids.
    """
    assert gen_length % block_length == 0
    blocks = gen_length // block_length
    assert steps % blocks == 0
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    said_now = Forwards(_without(predict, logits_eos_inf), canvas, suppress)
    ranked_now = Forwards(_without(predict, [*logits_eos_inf, *confidence_eos_eot_inf]), canvas, suppress)
    step = 0
    for first in range(0, gen_length, block_length):
        for count in transfers(len(canvas.masks(first, first + block_length)), steps // blocks):
            masks = canvas.masks(first, first + block_length)
            if not canvas.masks():
                break
            step += 1
            if count == 0:
                continue
            said = said_now()
            scores = (ranked_now() if eos_and_eot_have_no_mass else said).confidence
            if random is not None:
                scores = [random(said_now.count, i) for i in range(gen_length)]
            scores = [
                -torch.inf if token in confidence_eos_eot_inf else score
                for token, score in zip(said.token, scores, strict=True)
            ]
            canvas.reveal({i: said.token[i] for i in best(masks, scores.__getitem__, count)}, said_now.count)
    return canvas.decoded(said_now.count, step)


def transfers(masks: int, steps: int) -> list[int]:
    """How many of a block's masks each of its steps reveals."""
    return [masks // steps + (step < masks % steps) for step in range(steps)]


def _without(predict: Predict, ids: Collection[int]) -> Predict:
    def changed(tokens: torch.Tensor) -> torch.Tensor:
        logits = predict(tokens).clone()
        logits[:, list(ids)] = -torch.inf
        return logits

    return changed if ids else predict
