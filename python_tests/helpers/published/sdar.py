"""SDAR's decoding, block by block from the first token of the prompt on, in whole blocks, greedily.

In a block, `steps` steps reveal an equal share each, the first ones one more where that leaves a remainder: the
leftmost masks ("sequential"), the most confident ones ("static"), or, if there are at least so many, all of confidence
> `threshold` ("dynamic"). After a block with an end of sequence in it, decoding stops. The forwards that do nothing but
store a finished block's keys and values, and those of the prompt, are not counted.
"""

from collections.abc import Collection

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    strategy: str,
    steps: int,
    threshold: float,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """Tokens behind the first end of sequence, and behind `gen_length`, are whatever stands there."""
    assert strategy in ("sequential", "static", "dynamic")
    blocks = -(-(len(prompt) + gen_length) // block_length)
    canvas = Canvas(prompt, blocks * block_length - len(prompt), mask_id, ())
    forwards = 0
    for block in range(len(prompt) // block_length, blocks):
        first, end = (edge * block_length - len(prompt) for edge in (block, block + 1))
        for step in range(steps):
            masks = canvas.masks(max(first, 0), end)
            if not masks:
                break
            forwards += 1
            said = Prediction.of(predict(canvas.ids[: len(prompt) + end]), canvas, suppress)
            share = block_length // steps + (1 if step < block_length % steps else 0)
            chosen = masks[:share] if strategy == "sequential" else best(masks, said.confidence.__getitem__, share)
            sure = [i for i in masks if said.confidence[i] > threshold]
            if strategy == "dynamic" and len(sure) >= share:
                chosen = sure
            canvas.reveal({i: said.token[i] for i in chosen}, forwards)
        written = canvas.ids[len(prompt) : len(prompt) + end].tolist()
        if any(token in eos_ids for token in written):
            break
    tokens = canvas.ids[len(prompt) :].tolist()
    return Decoded(tokens, canvas.reveal_step, forwards, forwards)
