"""CD4LM's confidence-adaptive decoding, block by block, greedily.

A forward reveals the k most confident masks of the first unfinished block: k is how many have confidence >=
`threshold`, at least 1 and at most `most`. Until `share` of the canvas is revealed, ends of sequence are impossible:
their logits are taken away before all else.
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
    threshold: float,
    most: int,
    share: float,
    forbidden: Collection[int],
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """`forbidden` are the ends of sequence, also where decoding does not stop at them."""
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    forwards = 0
    for first in range(0, gen_length, block_length):
        while masks := canvas.masks(first, first + block_length):
            forwards += 1
            logits = predict(canvas.ids).clone()
            if sum(step > 0 for step in canvas.reveal_step) < share * gen_length:
                logits[:, list(forbidden)] = -torch.inf
            said = Prediction.of(logits, canvas, suppress)
            sure = sum(said.confidence[i] >= threshold for i in masks)
            chosen = best(masks, said.confidence.__getitem__, min(max(sure, 1), most))
            canvas.reveal({i: said.token[i] for i in chosen}, forwards)
    return canvas.decoded(forwards)
