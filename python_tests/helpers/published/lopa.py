"""LoPA: of several canvases that differ by one token, the one whose masks are the most certain goes on.

Branches are a canvas each, with the blocks that exist in it. One forward over all of them counts once. The score of a
branch is minus the mean entropy of the masks in its blocks; of equal scores the branch with a further token is first,
the most certain such token, and the one without is last. The best branch takes a step: every mask in its blocks whose
confidence is above the threshold is revealed, and in a block that is fully active (it is the first, or the revealed
share of the one before it, when the forward began, is at least `decoded_token_threshold`) without such a mask the one
of lowest entropy. The next branches are this canvas, and copies of it in which one further mask of its blocks is
revealed, with the token that was predicted for it: one each for the masks of lowest entropy, `branches` - 1 of them.
Each branch then gets a further block if the revealed share of its newest one is at least `block_add_threshold`.

Published code computes a branch without masks, which is better than any other, before it ends; here it ends at once. An
end of sequence stops no blocks here: where such tokens are given it fills what stands behind it, and is no further
token. A further token has the number of the forward that predicted it.
"""

from collections.abc import Collection
from copy import deepcopy
from functools import partial

from .canvas import Canvas, Decoded, Predict, Prediction, best


class Branch:
    """A canvas and its number of blocks."""

    def __init__(self, canvas: Canvas, blocks: int) -> None:
        self.canvas, self.blocks = canvas, blocks

    def share(self, block: int, block_length: int) -> float:
        first = block * block_length
        return 1 - len(self.canvas.masks(first, first + block_length)) / block_length


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    block_length: int,
    threshold: float,
    branches: int,
    block_add_threshold: float,
    decoded_token_threshold: float,
    hide_future_blocks: bool,
    mask_id: int,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """With `hide_future_blocks`, as published, the model sees created blocks only: the canvas grows."""

    def masks(branch: Branch) -> list[int]:
        return branch.canvas.masks(0, branch.blocks * block_length)

    def grown(branch: Branch) -> Branch:
        more = branch.blocks * block_length < gen_length
        if more and branch.share(branch.blocks - 1, block_length) >= block_add_threshold:
            branch.blocks += 1
        return branch

    def ask(branch: Branch) -> Prediction:
        canvas = branch.canvas
        seen = canvas.start + branch.blocks * block_length if hide_future_blocks else len(canvas.ids)
        return Prediction.of(predict(canvas.ids[:seen]), canvas, suppress)

    def score(branch: Branch, said: Prediction) -> float:
        return -sum(said.entropy[i] for i in masks(branch)) / len(masks(branch))

    def certainty(said: Prediction, i: int) -> float:
        return -said.entropy[i]

    living, forwards = [Branch(Canvas(prompt, gen_length, mask_id, eos_ids), 1)], 0
    while all(branch.canvas.masks() for branch in living):
        forwards += 1
        asked = [ask(branch) for branch in living]
        scores = [score(*pair) for pair in zip(living, asked, strict=True)]
        number = scores.index(max(scores))
        winner, said = living[number], asked[number]

        revealed = [i for i in masks(winner) if said.confidence[i] > threshold]
        for block in range(winner.blocks):
            own = [i for i in masks(winner) if i // block_length == block]
            active = block == 0 or winner.share(block - 1, block_length) >= decoded_token_threshold
            if own and active and not set(own) & set(revealed):
                revealed += best(own, partial(certainty, said))
        winner.canvas.reveal({i: said.token[i] for i in revealed}, forwards)

        left = [i for i in masks(winner) if said.token[i] not in eos_ids]
        living = []
        for i in best(left, partial(certainty, said), branches - 1):
            copy = deepcopy(winner)
            copy.canvas.reveal({i: said.token[i]}, forwards)
            living.append(grown(copy))
        living.append(grown(winner))
    return next(branch.canvas for branch in living if not branch.canvas.masks()).decoded(forwards)
