"""DMax's soft parallel decoding, greedily and for one row: tokens of a block stay mixtures with the mask until it ends.

`embed(ids)` gives (L, D) embeddings and `predict(embeddings)` (L, V) logits FOR each position, with block-causal
attention. A forward of a block sees, at its tokens that were masks at first, a mixture of the token's embedding and
the mask's by the probability that the last forward gave the token; elsewhere embeddings as they are. In whole blocks
from the first token of the prompt on; after a block with an end of sequence in it, decoding stops. The mask is never
chosen, which the published code does not prevent.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor

from .canvas import Canvas, Decoded, Prediction


def loop(
    model: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]],
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    threshold: float,
    sure: float,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """reveal_step is the forward that last changed a position. As for tokens behind the end, see `sdar`."""
    embed, predict = model
    blocks = -(-(len(prompt) + gen_length) // block_length)
    canvas = Canvas(prompt, blocks * block_length - len(prompt), mask_id, ())
    forwards = 0
    for block in range(len(prompt) // block_length, blocks):
        first, end = (max(edge * block_length - len(prompt), 0) for edge in (block, block + 1))
        active, soft = range(first, end), {}
        for _ in range(block_length):
            forwards += 1
            seen = embed(canvas.ids[: len(prompt) + end]).clone()
            mask = embed(torch.tensor([mask_id]))[0]
            for i, p in soft.items():
                token = embed(canvas.ids[len(prompt) + i : len(prompt) + i + 1])[0]
                mixture = p * token + (1 - p) * mask
                length = p * token.norm() + (1 - p) * mask.norm()
                seen[len(prompt) + i] = mixture * length / (mixture.norm() + 1e-6)
            said = Prediction.of(predict(seen), canvas, suppress)
            masks = canvas.masks(first, end)
            unsure = [i for i in masks if said.confidence[i] < threshold]
            chosen = [i for i in masks if not unsure or i < unsure[0]] or masks[:1]
            replaced = [*chosen, *(i for i in active if i not in masks)]
            changed = {i: said.token[i] for i in replaced if said.token[i] != int(canvas.ids[len(prompt) + i])}
            canvas.reveal(changed, forwards)
            if all(said.confidence[i] >= sure for i in active) or not changed:
                break
            soft = {i: said.confidence[i] for i in active if i not in canvas.masks(first, end)}
        assert not canvas.masks(first, end)
        if any(token in eos_ids for token in canvas.ids[len(prompt) : len(prompt) + end].tolist()):
            break
    return Decoded(canvas.ids[len(prompt) :].tolist(), canvas.reveal_step, forwards, forwards)
