"""Dream's schedule: how many of the masks that are left each of a fixed number of steps reveals.

Time goes from 1 to EPSILON in equal steps. The step from t to s reveals the share 1 - s / t of the masks that are left,
rounded down, and the last step all of them. Dream 7B, arXiv 2508.15487, whose code this follows to the last bit, with
one difference: a step that reveals nothing changes nothing, and is left out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tad_ext.ops import DecodeState

from .rows import remembered_of_row

EPSILON = 1e-3


def times(steps: int, device: torch.device) -> Tensor:
    """(steps + 1,) float32: the times between which the steps go."""
    return torch.linspace(1, EPSILON, steps + 1, device=device)


def next_step(state: DecodeState, name: str, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The steps that this forward stands for: (B, 1) int64 each. For policies that see all masks.

    Returns:
        The first of them, from 0; the last, which is the first one that reveals something; and how many it reveals.
    """
    memory = remembered_of_row(state, f"{name}.step")
    first, masks = memory.clone(), state.present.sum(dim=-1, keepdim=True)
    time = times(steps, masks.device)
    counts = (masks * (1 - time[1:] / time[:-1])).to(torch.int64)  # (B, steps)
    counts[:, -1:] = masks
    step = torch.arange(steps, device=masks.device)
    last = ((counts > 0) & (step >= first)).int().argmax(dim=-1, keepdim=True).clamp(min=first)
    memory.copy_((last + 1).clamp(max=steps - 1))
    return first, last, counts.gather(1, last)
