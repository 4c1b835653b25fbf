"""Dream's own loop: the whole canvas at once, in steps of a time that runs from 1 to 0.001.

Step n of N leads from t = times[n - 1] to s = times[n], times being N + 1 evenly spaced float32 numbers. Of M masks it
reveals int(M * (1 - s / t)), in float32 as well, and the last step reveals all. So the first of as many steps as there
are masks reveals nothing. The orders:

- "maskgit_plus": by the probability of the best token.
- "topk_margin": by that minus the second best's.
- "entropy": the lowest first.
- "origin": each mask is revealed with probability 1 - s / t, when `random(step, position)` is below it. Here every step
  is a forward, also one that happens to reveal nothing.
"""

from collections.abc import Callable, Collection

import torch

from .canvas import Canvas, Decoded, Forwards, Predict, Prediction, best

Random = Callable[[int, int], float]  # (1-based step, canvas position) -> a number in [0, 1)


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    steps: int,
    order: str,
    mask_id: int,
    random: Random | None = None,
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    assert (order == "origin") == (random is not None)
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    now = Forwards(predict, canvas, suppress)
    for step in range(1, steps + 1):
        masks = canvas.masks()
        if not masks:
            return canvas.decoded(step - 1 if order == "origin" else now.count, step - 1)
        if random is not None:
            said = now()
            revealed = [i for i in masks if random(step, i) < share(step, steps)]
            canvas.reveal({i: said.token[i] for i in revealed}, step)
        elif count := transfers(len(masks), step, steps):
            said = now()
            revealed = best(masks, score(order, said), count)
            canvas.reveal({i: said.token[i] for i in revealed}, now.count)
    return canvas.decoded(steps if order == "origin" else now.count, steps)


def share(step: int, steps: int) -> float:
    """The share of the masks that a step reveals, a float32 number."""
    times = torch.linspace(1, 1e-3, steps + 1)
    return (1 - times[step] / times[step - 1]).item() if step < steps else 1.0


def transfers(masks: int, step: int, steps: int) -> int:
    """How many masks a step reveals."""
    return int(torch.tensor(masks) * torch.tensor(share(step, steps)))


def score(order: str, said: Prediction) -> Callable[[int], float]:
    """What the masks are ordered by, the highest first."""
    return {
        "maskgit_plus": lambda i: said.confidence[i],
        "topk_margin": lambda i: said.margin[i],
        "entropy": lambda i: -said.entropy[i],
    }[order]
