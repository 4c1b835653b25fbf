"""How sure a model is of a token k steps before the teacher revealed it: the curve from which delta is chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from tad_ext.data.trajectories import Trajectory
from tad_ext.ops import token_statistics

QUALITY_LEVEL = 0.5
SPEED_LEVEL = 0.2


@dataclass(frozen=True)
class ConfidenceDecay:
    """Mean probability of the trajectory's token at positions that are revealed k steps later, for k = 1, 2, ...

    Distances that never occur are left out.
    """

    distances: list[int]
    confidence: list[float]
    counts: list[int]  # positions averaged

    def delta_at(self, level: float) -> int | None:
        """The first distance at which the confidence has fallen to `level`; None if it never does."""
        for distance, confidence in zip(self.distances, self.confidence, strict=True):
            if confidence <= level:
                return distance
        return None

    @property
    def quality_delta(self) -> int | None:
        """Where the confidence falls to 0.5: the published choice of delta for quality."""
        return self.delta_at(QUALITY_LEVEL)

    @property
    def speed_delta(self) -> int | None:
        """Where the confidence falls to 0.2: the published choice of delta for speed."""
        return self.delta_at(SPEED_LEVEL)

    def to_json(self) -> dict[str, Any]:
        """The curve and its two deltas, as plain JSON values."""
        return dataclasses.asdict(self) | {"quality_delta": self.quality_delta, "speed_delta": self.speed_delta}


def confidence_by_distance(
    model: Any,
    trajectories: Sequence[Trajectory],
    *,
    max_distance: int = 32,
    states_per_trajectory: int = 4,
    batch_size: int = 8,
    seed: int = 0,
    progress: bool = False,
) -> ConfidenceDecay:
    """Measures the model's confidence in the trajectory's tokens against the steps until they are revealed.

    A state s of a trajectory shows the student's prompt and the tokens revealed in steps 1..s; each masked position
    there is one sample at distance reveal_step - s. Distances beyond `max_distance` are left out.

    Args:
        model: a masked diffusion model, with an adapter or not.
        trajectories: at least one.
        states_per_trajectory: states drawn at random from each trajectory without repetition (all, if it has fewer).
        batch_size: states per forward.
        seed: of that draw.

    Raises:
        ValueError: no trajectories, or a number below 1.
    """
    if not trajectories:
        raise ValueError("trajectories is empty; expected at least one")
    for name, value in {
        "max_distance": max_distance, "states_per_trajectory": states_per_trajectory, "batch_size": batch_size
    }.items():  # fmt: skip
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    generator = np.random.default_rng(seed)
    states = [
        (trajectory, int(step))
        for trajectory in trajectories
        for step in generator.permutation(trajectory.num_steps)[:states_per_trajectory]
    ]
    states.sort(key=lambda state: len(state[0].prompt_ids))  # rows of like length together: less padding
    sums, counts = torch.zeros(2, max_distance + 1, dtype=torch.float64).unbind()
    for start in tqdm(range(0, len(states), batch_size), desc="confidence by distance", disable=not progress):
        distance, confidence = _confidence(model, states[start : start + batch_size])
        near = distance <= max_distance
        sums += torch.bincount(distance[near], confidence[near].double(), minlength=max_distance + 1)
        counts += torch.bincount(distance[near], minlength=max_distance + 1)
    seen = [distance for distance in range(1, max_distance + 1) if counts[distance] > 0]
    return ConfidenceDecay(
        distances=seen,
        confidence=[float(sums[distance] / counts[distance]) for distance in seen],
        counts=[int(counts[distance]) for distance in seen],
    )


def _confidence(model: Any, states: Sequence[tuple[Trajectory, int]]) -> tuple[Tensor, Tensor]:
    """Of every masked position of a batch of states: steps until reveal (N,) int64, probability of its token (N,)
    float32.
    """
    mask_token_id = int(model.config.mask_token_id)
    rows = [np.concatenate([one.prompt_ids, one.canvas_at(step, mask_token_id)]) for one, step in states]
    lengths = torch.tensor([len(row) for row in rows])
    width = int(lengths.max())
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    positions, tokens, distances = [], [], []
    for index, (row, (trajectory, step)) in enumerate(zip(rows, states, strict=True)):
        input_ids[index, : len(row)] = torch.from_numpy(row)
        remaining = torch.from_numpy(trajectory.steps_to_reveal(step))
        masked = (remaining > 0).nonzero()[:, 0]
        positions.append(index * width + len(trajectory.prompt_ids) + masked)
        tokens.append(torch.from_numpy(trajectory.response_ids.astype(np.int64))[masked])
        distances.append(remaining[masked])
    device = model.device
    with torch.inference_mode():
        logits = model(
            input_ids.to(device),
            lengths=None if bool((lengths == width).all()) else lengths.to(device),
            positions=torch.cat(positions).to(device),
        ).logits
        statistics = token_statistics(logits, query_tokens=torch.cat(tokens).to(device)[:, None])
        confidence = (statistics.query_logits[:, 0].float() - statistics.logsumexp).exp()
    return torch.cat(distances), confidence.cpu()
