"""AdaBlock-dLLM's decoding in blocks that the model's own delimiters end, greedily.

A block's first forward decides its length. It looks at the next `window` of the canvas, a share, rounded down. If the
model's token is a delimiter at some of these positions, and the most confident of them has p >= `delimiter_threshold`,
the block ends with that one; else it is `block` positions long. What is left of the canvas limits both. The block is
then decoded as Fast-dLLM does, the first forward included: every p >= `threshold`, else the largest.
"""

from collections.abc import Collection

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    threshold: float,
    delimiter_threshold: float,
    delimiters: Collection[int],
    block: int,
    window: float,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """Blocks behind an end of sequence, which has filled them, need no forward."""
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    forwards = first = 0
    while first < gen_length and canvas.masks():
        length = None
        while length is None or canvas.masks(first, first + length):
            forwards += 1
            said = Prediction.of(predict(canvas.ids), canvas, suppress)
            if length is None:
                left = gen_length - first
                ahead = range(first, first + min(int(window * gen_length), left))
                found = best([i for i in ahead if said.token[i] in delimiters], said.confidence.__getitem__)
                ends = found and said.confidence[found[0]] >= delimiter_threshold
                length = found[0] - first + 1 if ends else min(block, left)
            masks = canvas.masks(first, first + length)
            chosen = [i for i in masks if said.confidence[i] >= threshold] or best(masks, said.confidence.__getitem__)
            canvas.reveal({i: said.token[i] for i in chosen}, forwards)
        first += length
    return canvas.decoded(forwards)
