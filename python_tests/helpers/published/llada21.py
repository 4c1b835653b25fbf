"""LLaDA2.1's decoding: tokens that were revealed change while their block is decoded. In whole blocks, greedily.

A round reveals the block's masks of confidence > `threshold`, at least the most confident one, and replaces tokens of
the block that earlier rounds have revealed where another token is the best one and its confidence > `editing`. The
block ends with a round that found no mask and changed nothing, or the `most`-th round that found no mask. After a block
with an end of sequence in it, decoding stops.
"""

from collections.abc import Collection

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    threshold: float,
    editing: float,
    most: int,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """reveal_step is the forward that last wrote a position. As for tokens behind the end, see `sdar`."""
    blocks = -(-(len(prompt) + gen_length) // block_length)
    canvas = Canvas(prompt, blocks * block_length - len(prompt), mask_id, ())
    forwards = 0
    for block in range(len(prompt) // block_length, blocks):
        first, end = (max(edge * block_length - len(prompt), 0) for edge in (block, block + 1))
        without_mask = 0
        while True:
            masks = canvas.masks(first, end)
            forwards += 1
            said = Prediction.of(predict(canvas.ids[: len(prompt) + end]), canvas, suppress)
            written = [i for i in range(first, end) if i not in masks]
            current = {i: int(canvas.ids[len(prompt) + i]) for i in written}
            edits = [i for i in written if said.token[i] != current[i] and said.confidence[i] > editing]
            chosen = [i for i in masks if said.confidence[i] > threshold]
            if masks and not chosen:
                chosen = best(masks, said.confidence.__getitem__)
            canvas.reveal({i: said.token[i] for i in [*chosen, *edits]}, forwards)
            without_mask += not masks
            if not masks and (not edits or without_mask >= most):
                break
        if any(token in eos_ids for token in canvas.ids[len(prompt) : len(prompt) + end].tolist()):
            break
    return Decoded(canvas.ids[len(prompt) :].tolist(), canvas.reveal_step, forwards, forwards)
