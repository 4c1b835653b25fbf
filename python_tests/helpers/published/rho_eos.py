"""rho-EOS: a canvas that grows and shrinks by the density of predicted ends among its masks, greedily.

Every forward reveals p > `threshold` in the current block, else the largest, and goes on behind blocks that are full.
The block begins where the last one ended and is at most `block` long. Then the share of the masks, as they were before
these reveals, whose best token is an end decides: below `low`, masks come in before the first end on the canvas, or
behind it all; above `high`, so many positions at the end go, revealed or not. There are `unit` times 1, 2, 4, 8 of them
("exp"; 1 to 8 "linear", 1 "const"), by tenths of the share beyond the bound. Nothing changes at `gen_length`, nor after
`adjustments` forwards.

In the published code masks that come in before the current block stay masks; here the block moves back to them. There,
too, a canvas without masks grows when it has not been seen to end, by one more forward; here it is finished.
"""

from collections.abc import Collection
from fractions import Fraction
from math import ceil

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    initial: int,
    block: int,
    threshold: float,
    low: float,
    high: float,
    unit: int,
    schedule: str,
    adjustments: int,
    ends: Collection[int],
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """Where `eos_ids` are given, a row whose end stands behind no mask does not grow."""
    canvas = Canvas(prompt, min(initial, gen_length), mask_id, eos_ids)
    few, many = Fraction(str(low)), Fraction(str(high))
    forwards = first = 0

    def positions(gap: Fraction) -> int:
        tenths = ceil(gap * 10)
        return unit * min({"exp": 2 ** (tenths - 1), "linear": tenths, "const": 1}[schedule], 8)

    while masks := canvas.masks():
        forwards += 1
        settled = canvas.length >= gen_length or forwards > adjustments
        said = Prediction.of(predict(canvas.ids), canvas, suppress)
        inside = [i for i in masks if i < first + block]
        chosen = [i for i in inside if said.confidence[i] > threshold] or best(inside, said.confidence.__getitem__)
        canvas.reveal({i: said.token[i] for i in chosen}, forwards)
        while first < canvas.length and not canvas.masks(first, min(first + block, canvas.length)):
            first = min(first + block, canvas.length)
        tokens = canvas.ids[canvas.start :].tolist()
        if settled or (not canvas.masks() and set(tokens) & set(eos_ids)):
            continue
        density = Fraction(sum(said.token[i] in ends for i in masks), len(masks))
        if density < few:
            place = next((i for i, token in enumerate(tokens) if token in ends), canvas.length)
            canvas.put_in(place, [mask_id] * min(positions(few - density), gen_length - canvas.length))
            first = min(first, place)
        elif density > many:
            canvas.cut(max(canvas.length - positions(density - many), 0))
    return canvas.decoded(forwards)
