"""DAEDAL: a canvas that grows until the model is sure of its end, and again where it is unsure, greedily.

The end is as sure as the sum of the probabilities of the last `watched` positions whose best token is an end, divided
by `watched`. First each forward that is less sure than `enough` puts `masks` masks behind a canvas of `initial`, up to
`gen_length`. Then `watched` / 2 ends of sequence are put behind it, up to `gen_length`.

From then on every forward reveals p > `threshold` in the first block with masks, else the largest. If it is less sure
than `full`, the block's least confident mask that is left, of p < `low`, becomes `masks` of them. Beyond `gen_length`
the canvas is cut; once it is that long, nothing comes in.
"""

from collections.abc import Collection

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    initial: int,
    masks: int,
    threshold: float,
    low: float,
    enough: float,
    full: float,
    watched: int,
    ends: list[int],
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """The ends that are put behind have no reveal step."""
    canvas = Canvas(prompt, min(initial, gen_length), mask_id, eos_ids)
    forwards = 0

    def forward() -> tuple[Prediction, float]:
        said = Prediction.of(predict(canvas.ids), canvas, suppress)
        found = [said.confidence[i] for i in range(canvas.length) if said.token[i] in ends]
        return said, sum(found[-watched:]) / watched

    while True:
        forwards += 1
        _, sure = forward()
        if sure >= enough or canvas.length >= gen_length:
            break
        canvas.put_in(canvas.length, [mask_id] * masks)
        canvas.cut(gen_length)
    canvas.put_in(canvas.length, [ends[0]] * (watched // 2))
    canvas.cut(gen_length)
    while canvas.masks():
        forwards += 1
        said, sure = forward()
        first = canvas.masks()[0] // block_length * block_length
        inside = canvas.masks(first, min(first + block_length, canvas.length))
        chosen = [i for i in inside if said.confidence[i] > threshold] or best(inside, said.confidence.__getitem__)
        canvas.reveal({i: said.token[i] for i in chosen}, forwards)
        unsure = [i for i in inside if i in canvas.masks() and said.confidence[i] < low]
        if unsure and sure < full and canvas.length < gen_length:
            place = best(unsure, [-p for p in said.confidence].__getitem__)[0]
            canvas.put_in(place, [mask_id] * (masks - 1))
            canvas.cut(gen_length)
    return canvas.decoded(forwards)
