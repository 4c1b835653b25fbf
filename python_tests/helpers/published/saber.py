"""Saber's decoding of the whole canvas as one block, greedily.

A forward gives every position of the canvas its largest probability. Masks whose one exceeds the mean of those with
which positions were last revealed (1 at first) are revealed, at least the `least` most confident. With masks left, some
revealed positions become masks again, the just revealed among them: max(least / 2, k / 8) of them, rounded down and
up, of k revealed ones, at most k - 1; those whose largest probability has grown the least since the forward before.
"""

from collections.abc import Collection

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    least: int,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """Where fewer masks than `least` are left, these are revealed, and nothing else is written."""
    assert not eos_ids, "an end that fills what stands behind it is not the published rule"
    canvas = Canvas(prompt, gen_length, mask_id, ())
    revealed_at: dict[int, float] = {}
    last = [0.0] * gen_length
    forwards = 0
    while masks := canvas.masks():
        forwards += 1
        said = Prediction.of(predict(canvas.ids), canvas, suppress)
        mean = sum(revealed_at.values()) / len(revealed_at) if revealed_at else 1.0
        chosen = [i for i in masks if said.confidence[i] > mean]
        if len(chosen) < least:
            chosen = best(masks, said.confidence.__getitem__, least)
        canvas.reveal({i: said.token[i] for i in chosen}, forwards)
        revealed_at |= {i: said.confidence[i] for i in chosen}
        growth = [now - before for now, before in zip(said.confidence, last, strict=True)]
        last = said.confidence
        if left := canvas.masks():
            count = min(max(least // 2, -(-len(chosen) // 8)), len(chosen) - 1)
            written = [i for i in range(gen_length) if i not in left]
            for i in sorted(written, key=lambda i: (growth[i], i))[:count]:
                canvas.ids[len(prompt) + i], canvas.reveal_step[i] = mask_id, 0
    return canvas.decoded(forwards)
