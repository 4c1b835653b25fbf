"""KLASS, block by block: reveal what is sure and has stopped changing.

A position is accepted when p > threshold and its distribution has been stable in each of the last `forwards` forwards:
KL(p_t || p_(t-1)) < divergence. Every position of the canvas is watched from forward 1 on, whose divergence counts as
infinite. In its first `forwards` - 1 forwards a block accepts nothing; so the first block accepts in its
(forwards + 1)-th at the earliest, and a later one, which was watched before it began, in its `forwards`-th. Where
nothing is accepted the block's most confident position is revealed (the published loop with as many steps as tokens).
"""

from collections.abc import Collection

import torch

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    mask_id: int,
    threshold: float = 0.9,
    divergence: float = 0.01,
    forwards: int = 2,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    assert gen_length % block_length == 0
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    count = 0
    before = None
    history: list[list[float]] = []  # divergence of each position in each forward so far
    for first in range(0, gen_length, block_length):
        in_block = 0
        while masks := canvas.masks(first, first + block_length):
            count += 1
            in_block += 1
            logits = predict(canvas.ids)
            said = Prediction.of(logits, canvas, suppress)
            log_p = logits.float().double()[canvas.start :].log_softmax(dim=-1)
            if before is None:
                history.append([torch.inf] * gen_length)
            else:
                history.append((log_p.exp() * (log_p - before)).sum(dim=-1).tolist())
            before = log_p

            accepted = [
                i
                for i in masks
                if in_block >= forwards
                and said.confidence[i] > threshold
                and all(divergences[i] < divergence for divergences in history[-forwards:])
            ]
            accepted = accepted or best(masks, said.confidence.__getitem__)
            canvas.reveal({i: said.token[i] for i in accepted}, count)
    return canvas.decoded(count)
