"""SchED: Dream's loop that reveals all that is left once it is sure enough, by a threshold that falls with the steps.

In step n of N (from 0) the mean gap between the two best logits, over all masked positions, must be at least
threshold(n, N), and the share of masked positions whose best token is another than in the step before must be at most
`max_changed`: as published none may change, and step 0, which has none before it, never exits. Otherwise the step
reveals what Dream's would, by lowest entropy. A step that reveals nothing is followed by one with the same predictions,
none of which has changed: it needs no forward, and it may exit.

With `max_changed` = 1 the threshold alone decides. `phases` instead of a smooth threshold is SchED's own copy of
Prophet.
"""

import math
from collections.abc import Callable, Collection

from . import dream
from .canvas import Canvas, Decoded, Forwards, Predict, best

Threshold = Callable[[int, int], float]  # (0-based step, steps) -> the least mean gap


def progress(step: int, steps: int) -> float:
    """0 in the first step, 1 in the last."""
    return step / (steps - 1) if steps > 1 else 1.0


def cosine(high: float = 7.5, low: float = 2.5) -> Threshold:
    return lambda step, steps: low + (high - low) * 0.5 * (1 + math.cos(math.pi * progress(step, steps)))


def linear(high: float = 7.5, low: float = 2.5) -> Threshold:
    return lambda step, steps: high + (low - high) * progress(step, steps)


def exponential(high: float = 7.5, low: float = 2.5, rate: float = 4.0) -> Threshold:
    """Ends above `low`, but for a single step."""
    return lambda step, steps: low + (high - low) * math.exp(-rate * progress(step, steps)) if steps > 1 else low


def phases(early: float = 7.5, mid: float = 5.0, late: float = 2.5) -> Threshold:
    """By thirds of (step + 1) / steps."""

    def threshold(step: int, steps: int) -> float:
        done = (step + 1) / steps
        return early if done < 1 / 3 else mid if done < 2 / 3 else late

    return threshold


def loop(
    predict: Predict,
    prompt: list[int],
    *,
    gen_length: int,
    steps: int,
    mask_id: int,
    threshold: Threshold | None = None,
    max_changed: float = 0.0,
    order: str = "entropy",
    eos_ids: Collection[int] = (),
    suppress: Collection[int] = (),
) -> Decoded:
    """The threshold is `cosine()` unless given."""
    threshold = cosine() if threshold is None else threshold
    canvas = Canvas(prompt, gen_length, mask_id, eos_ids)
    now = Forwards(predict, canvas, suppress)
    before = None
    for step in range(steps):
        masks = canvas.masks()
        if not masks:
            return canvas.decoded(now.count, step)
        said = now()
        gap = sum(said.gap[i] for i in masks) / len(masks)
        changed = 1.0 if before is None else sum(said.token[i] != before[i] for i in masks) / len(masks)
        before = said.token
        if gap >= threshold(step, steps) and changed <= max_changed:
            revealed = masks
        else:
            revealed = best(masks, dream.score(order, said), dream.transfers(len(masks), step + 1, steps))
        canvas.reveal({i: said.token[i] for i in revealed}, now.count)
    return canvas.decoded(now.count, steps)
