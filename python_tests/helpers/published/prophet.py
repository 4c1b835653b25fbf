"""Prophet: LLaDA's loop that reveals all that is left once an answer span is sure enough.

In step n of N (from 1, over all blocks) the mean gap between the two best logits over the span, revealed positions
included, must be at least `early` while n / N < 0.33, `mid` while it is < 0.67, and `late` after that. Then every mask
of the whole canvas takes its best token. Otherwise the step reveals what LLaDA's would. A step that reveals nothing is
followed by one with the same predictions, which needs no forward, and may exit by a lower threshold.
"""

from collections.abc import Collection

from . import llada
from .canvas import Canvas, Decoded, Forwards, Predict, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    steps: int,
    span: tuple[int, int],
    mask_id: int,
    early: float = 7.5,
    mid: float = 5.0,
    late: float = 2.5,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """The span is [first, end) in positions of the canvas, 5 of them as published, and cut where the canvas ends."""
    assert gen_length % block_length == 0
    blocks = gen_length // block_length
    assert steps % blocks == 0
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    now = Forwards(predict, canvas, suppress)
    watched = range(span[0], min(span[1], gen_length))
    step = 0
    for first in range(0, gen_length, block_length):
        for count in llada.transfers(len(canvas.masks(first, first + block_length)), steps // blocks):
            if not canvas.masks():
                break
            step += 1
            said = now()
            least = early if step / steps < 0.33 else mid if step / steps < 0.67 else late
            if sum(said.gap[i] for i in watched) / len(watched) >= least:
                revealed = canvas.masks()
            else:
                revealed = best(canvas.masks(first, first + block_length), said.confidence.__getitem__, count)
            canvas.reveal({i: said.token[i] for i in revealed}, now.count)
    return canvas.decoded(now.count, step)
