"""WINO's decoding: what is likely is revealed, and masked again where everything else makes it unlikely. Greedily.

Behind the canvas stands a mask for every position of the block, its shadow, which sees everything but that position of
the canvas. A forward reveals the block's masks of confidence > `threshold`, the most confident ones of them up to a
limit: 0.7 of the masks, rounded down, but at least 5 and at most 20. If there is none, it reveals the most confident
one. If it revealed two or more, what earlier forwards have revealed is asked about: tokens to which their shadow gives
a probability < `keep` become masks again. As many as the forward before has revealed may not; then all but the
lowest ones stay, one fewer than that. After a block with an end of sequence in it, decoding stops.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from .canvas import Canvas, Decoded, Prediction, best

PredictWithShadow = Callable[[Tensor, int, int], Tensor]
"""predict(ids, first, end) -> (L + end - first, V) logits: of the row, and of masks for its columns [first, end)."""


def loop(
    predict: PredictWithShadow,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    threshold: float,
    keep: float,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """reveal_step is the forward that last revealed a position; of masks behind the end it is 0."""
    canvas = Canvas(prompt, gen_length, mask_id, ())
    forwards = 0
    for first in range(0, gen_length, block_length):
        end, last = first + block_length, 30
        while masks := canvas.masks(first, end):
            forwards += 1
            logits = predict(canvas.ids, len(prompt) + first, len(prompt) + end)
            said = Prediction.of(logits[: len(canvas.ids)], canvas, suppress)
            chosen = [i for i in masks if said.confidence[i] > threshold]
            limit = min(max(len(masks) * 7 // 10, 5), 20)
            chosen = best(chosen or masks, said.confidence.__getitem__, limit if chosen else 1)
            of_shadow = logits[len(canvas.ids) :].detach().float().double().softmax(dim=-1)
            tokens = canvas.ids[len(prompt) + first : len(prompt) + end]
            seen = of_shadow[torch.arange(block_length), tokens].tolist()
            doubted = [i for i in range(first, end) if i not in masks and seen[i - first] < keep]
            if len(doubted) >= last:
                doubted = best(doubted, lambda i, seen=seen, first=first: -seen[i - first], last - 1)
            canvas.reveal({i: said.token[i] for i in chosen}, forwards)
            for i in doubted if len(chosen) > 1 else ():
                canvas.ids[len(prompt) + i], canvas.reveal_step[i] = mask_id, 0
            last = len(chosen)
        if any(token in eos_ids for token in canvas.ids[len(prompt) : len(prompt) + end].tolist()):
            break
    return Decoded(canvas.ids[len(prompt) :].tolist(), canvas.reveal_step, forwards, forwards)
