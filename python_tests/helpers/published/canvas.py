"""What every loop needs: the canvas with its masks, what a forward predicts, and what decoding returns."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

Predict = Callable[[Tensor], Tensor]  # (L,) int64 token ids -> (L, V) logits FOR each position


@dataclass(frozen=True)
class Decoded:
    """tokens: of the canvas. reveal_step: the 1-based forward that revealed each. forwards: how many there were.

    steps: of a schedule of steps, those up to the last reveal, the ones that reveal nothing included: what published
    code counts as forwards. Without a schedule, the same as `forwards`.
    """

    tokens: list[int]
    reveal_step: list[int]
    forwards: int
    steps: int


class Canvas:
    """The generation region behind one prompt. Positions are counted from its start."""

    def __init__(self, prompt: list[int], gen_length: int, mask_id: int, eos_ids: Collection[int]) -> None:
        self.ids = torch.tensor([*prompt, *[mask_id] * gen_length])
        self.start, self.length, self.mask_id, self.eos_ids = len(prompt), gen_length, mask_id, eos_ids
        self.reveal_step = [0] * gen_length

    def masks(self, first: int = 0, end: int | None = None) -> list[int]:
        """The masked positions of [first, end), ascending."""
        end = self.length if end is None else end
        return [i for i in range(first, end) if self.ids[self.start + i] == self.mask_id]

    def reveal(self, tokens: dict[int, int], forward: int) -> None:
        """Write tokens to positions; an end of sequence among them fills all that stands behind it."""
        for position, token in tokens.items():
            self._write(position, token, forward)
        ends = [position for position, token in tokens.items() if token in self.eos_ids]
        if ends:
            for position in range(min(ends) + 1, self.length):
                self._write(position, tokens[min(ends)], forward)

    def put_in(self, place: int, tokens: list[int]) -> None:
        """Tokens that no forward has revealed, before a position; what stands there and behind moves."""
        at = self.start + place
        self.ids = torch.cat([self.ids[:at], torch.tensor(tokens, dtype=torch.int64), self.ids[at:]])
        self.reveal_step[place:place] = [0] * len(tokens)
        self.length += len(tokens)

    def cut(self, length: int) -> None:
        """What stands behind so many positions goes."""
        self.ids = self.ids[: self.start + length]
        del self.reveal_step[length:]
        self.length = min(self.length, length)

    def _write(self, position: int, token: int, forward: int) -> None:
        self.ids[self.start + position] = token
        self.reveal_step[position] = forward

    def decoded(self, forwards: int, steps: int | None = None) -> Decoded:
        """The finished canvas."""
        assert not self.masks()
        tokens = self.ids[self.start :].tolist()
        return Decoded(tokens, self.reveal_step, forwards, forwards if steps is None else steps)


@dataclass(frozen=True)
class Prediction:
    """What a forward says of each position of the canvas, from (G, V) logits; lists of G numbers.

    token: the best that may be chosen. confidence: its probability. entropy: in nats. gap: logit of the best minus that
    of the second best that may be chosen. margin: the same of probabilities. All of a position that the forward did not
    compute (NaN logits) are NaN, and its token is -1.
    """

    token: list[int]
    confidence: list[float]
    entropy: list[float]
    gap: list[float]
    margin: list[float]

    @classmethod
    def of(cls, logits: Tensor, canvas: Canvas, suppress: Collection[int]) -> "Prediction":
        """Of (L, V) logits of prompt and canvas; with fewer than all positions, the lists are shorter."""
        logits = logits.detach().float().double()[canvas.start :]
        probability = logits.softmax(dim=-1)
        allowed = logits.clone()
        allowed[:, [canvas.mask_id, *suppress]] = -torch.inf
        # A stable sort: of equal logits the lowest id is first.
        order = allowed.sort(dim=-1, descending=True, stable=True).indices
        best, second = order[:, :1], order[:, 1:2]
        return cls(
            token=best[:, 0].masked_fill(logits.isnan().any(dim=-1), -1).tolist(),
            confidence=probability.gather(1, best)[:, 0].tolist(),
            entropy=torch.special.entr(probability).sum(dim=-1).tolist(),
            gap=(logits.gather(1, best) - logits.gather(1, second))[:, 0].tolist(),
            margin=(probability.gather(1, best) - probability.gather(1, second))[:, 0].tolist(),
        )


def best(positions: list[int], score: Callable[[int], float], count: int = 1) -> list[int]:
    """The `count` positions with the highest scores, best first; of equal scores the lowest position is first."""
    scores = {position: score(position) for position in positions}
    assert not any(value != value for value in scores.values()), "a position that this forward did not compute"
    return sorted(positions, key=lambda position: (-scores[position], position))[:count]


class Forwards:
    """Calls `predict` and counts; the same ids as the last time are the same predictions, and no forward."""

    def __init__(self, predict: Predict, canvas: Canvas, suppress: Collection[int]) -> None:
        self.predict, self.canvas, self.suppress = predict, canvas, suppress
        self.count = 0
        self._ids: Tensor | None = None

    def __call__(self) -> Prediction:
        """Of the canvas as it is now."""
        if self._ids is None or not torch.equal(self._ids, self.canvas.ids):
            self.count += 1
            self._ids = self.canvas.ids.clone()
            self._said = Prediction.of(self.predict(self._ids), self.canvas, self.suppress)
        return self._said
