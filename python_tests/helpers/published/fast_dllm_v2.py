"""Fast-dLLM v2's decoding without its cache within a block, greedily, in whole blocks from the first token on.

A block's first token is the best one after the block before, as in autoregressive decoding. Then its parts, from left
to right: until a part has no mask, forwards of the whole block reveal the part's masks of confidence > `threshold`, and
its most confident one in any case. Decoding stops when an end of sequence stands there with no mask before it. A
forward that stores a finished block, and gives the next one's first token, counts; storing the prompt does not, unless
it gives that token.
"""

from collections.abc import Collection

from .canvas import Canvas, Decoded, Predict, Prediction, best


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    part: int,
    threshold: float,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """`predict` gives logits FOR each position, from the position before. As for tokens behind the end, see `sdar`."""
    blocks = -(-(len(prompt) + gen_length) // block_length)
    canvas = Canvas(prompt, blocks * block_length - len(prompt), mask_id, ())
    forwards = 0

    def ended() -> bool:
        written = canvas.ids[len(prompt) :].tolist()
        written = written[: written.index(mask_id)] if mask_id in written else written
        return any(token in eos_ids for token in written)

    def decoded() -> Decoded:
        return Decoded(canvas.ids[len(prompt) :].tolist(), canvas.reveal_step, forwards, forwards)

    for block in range(len(prompt) // block_length, blocks):
        first, end = (edge * block_length - len(prompt) for edge in (block, block + 1))
        if first >= 0:
            forwards += 1
            said = Prediction.of(predict(canvas.ids[: len(prompt) + first + 1]), canvas, suppress)
            canvas.reveal({first: said.token[first]}, forwards)
            if ended():
                return decoded()
        for start in range(first, end, part):
            while masks := canvas.masks(max(start, 0), max(min(start + part, end), 0)):
                forwards += 1
                said = Prediction.of(predict(canvas.ids[: len(prompt) + end]), canvas, suppress)
                chosen = {i for i in masks if said.confidence[i] > threshold}
                chosen |= set(best(masks, said.confidence.__getitem__))
                canvas.reveal({i: said.token[i] for i in chosen}, forwards)
                if ended():
                    return decoded()
    return decoded()
