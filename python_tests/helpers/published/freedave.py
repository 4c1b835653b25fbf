"""FreeDave: one position per step, block by block, with several steps verified by one forward.

What is known of a canvas, its prediction, ranks the masks of the first unfinished block. Draft j reveals the best j of
them, up to `drafts` and to all. One forward, a row for each draft, predicts the single next step of each. The first
draft is right. From one that is right, decoding goes to the largest draft that is the same as its next step; with one
position per step that can only be the next one. The last that is right is the new canvas, and its prediction is known.
A canvas without masks needs none.

Published code asks again for the prediction of a canvas whose block is finished, because it keeps keys and values. Here
it is known, if the draft that fills the block was verified. `reveal_step` counts single steps.
"""

from collections.abc import Collection
from copy import deepcopy

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    drafts: int,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """`forwards` counts one over all drafts once; the first one has the empty canvas alone."""

    def first_block(canvas: Canvas) -> tuple[int, int]:
        first = canvas.masks()[0] // block_length * block_length
        return first, first + block_length

    def ask(canvas: Canvas) -> Prediction | None:
        return Prediction.of(predict(canvas.ids), canvas, suppress) if canvas.masks() else None

    def after(canvas: Canvas, said: Prediction, step: int) -> Canvas:
        """The canvas with the best mask of its first unfinished block revealed."""
        canvas = deepcopy(canvas)
        (i,) = best(canvas.masks(*first_block(canvas)), said.confidence.__getitem__)
        canvas.reveal({i: said.token[i]}, step)
        return canvas

    now, steps, forwards = Canvas(prompt, gen_length, mask_id, eos_ids), 0, 1
    said = ask(now)
    while said is not None:
        block = first_block(now)
        drafted = [after(now, said, steps + 1)]
        while len(drafted) < drafts and drafted[-1].masks(*block):
            drafted.append(after(drafted[-1], said, steps + len(drafted) + 1))
        asked = [ask(draft) for draft in drafted]
        forwards += asked[0] is not None
        right = 0
        for number, draft in enumerate(drafted[1:], start=1):
            target = after(drafted[number - 1], asked[number - 1], steps + number + 1)
            if target.ids.tolist() != draft.ids.tolist():
                break
            right = number
        now, said, steps = drafted[right], asked[right], steps + right + 1
    return now.decoded(forwards, steps)
