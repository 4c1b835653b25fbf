"""Learn2PD's decoding with a trained filter, greedily, with as many steps as the canvas has positions.

Every forward shows the filter the largest probability of each position of the block, revealed or not. It reveals the
masks to which the filter gives a probability > `threshold`, and the most confident one besides. The filter is a list
of layers, each a matrix by rows and a bias, with max(0, x) between them and a logistic function behind the last.
"""

import math
from collections.abc import Collection, Sequence

from .canvas import Canvas, Decoded, Predict, Prediction, best

Layer = tuple[list[list[float]], list[float]]


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    layers: Sequence[Layer],
    threshold: float,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """The published order: one block after the other."""
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    forwards = 0
    for first in range(0, gen_length, block_length):
        while masks := canvas.masks(first, first + block_length):
            forwards += 1
            said = Prediction.of(predict(canvas.ids), canvas, suppress)
            final = probabilities(layers, said.confidence[first : first + block_length])
            chosen = {i for i in masks if final[i - first] > threshold} | set(best(masks, said.confidence.__getitem__))
            canvas.reveal({i: said.token[i] for i in chosen}, forwards)
    return canvas.decoded(forwards)


def probabilities(layers: Sequence[Layer], values: list[float]) -> list[float]:
    """What the filter says of each position."""
    for number, (rows, bias) in enumerate(layers):
        shown = values if number == 0 else [max(0.0, value) for value in values]
        values = [
            sum(weight * value for weight, value in zip(row, shown, strict=True)) + constant
            for row, constant in zip(rows, bias, strict=True)
        ]
    return [1 / (1 + math.exp(-value)) for value in values]
