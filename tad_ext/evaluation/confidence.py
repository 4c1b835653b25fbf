"""How sure a model is of a token k steps before the teacher revealed it: the curve from which delta is chosen."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tad_ext.data.states import TrajectoryStates, collate
from tad_ext.data.trajectories import Trajectory
from tad_ext.ops import token_statistics

QUALITY_LEVEL = 0.5
SPEED_LEVEL = 0.2


@dataclass(frozen=True)
class ConfidenceDecay:
    """Mean probability of the trajectory's token at positions that are revealed k steps later, for every k there is."""

    distances: list[int]
    confidence: list[float]
    counts: list[int]  # positions averaged

    def delta_at(self, level: float) -> int | None:
        """The first distance at which the confidence has fallen to `level`; None if it never does."""
        pairs = zip(self.distances, self.confidence, strict=True)
        return next((distance for distance, confidence in pairs if confidence <= level), None)

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
    there is one sample at distance reveal_step - s.

    Args:
        model: a masked diffusion model, with an adapter or not.
        trajectories: at least one.
        max_distance: distances beyond it are left out.
        states_per_trajectory: states drawn at random from each trajectory without repetition (all, if it has fewer).
        batch_size: states per forward.
        seed: of that draw.

    Raises:
        ValueError: no trajectories, an unfinished one, or a number below 1.
    """
    for name, value in {
        "max_distance": max_distance, "states_per_trajectory": states_per_trajectory, "batch_size": batch_size
    }.items():  # fmt: skip
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")

    # 1. Some states of every trajectory, those with prompts of like length together: less padding.
    states = TrajectoryStates(trajectories, mask_token_id=int(model.config.mask_token_id))
    generator = np.random.default_rng(seed)
    drawn: list[tuple[int, int]] = []  # of each state, the length of its prompt, and its index
    first = 0
    for trajectory in trajectories:
        steps = generator.permutation(trajectory.num_steps)[:states_per_trajectory]
        drawn += [(len(trajectory.prompt_ids), first + int(step)) for step in steps]
        first += trajectory.num_steps
    drawn.sort(key=itemgetter(0))

    # 2. The probabilities of their entries, summed by distance.
    sums, counts = torch.zeros(2, max_distance + 1, dtype=torch.float64).unbind()
    for start in tqdm(range(0, len(drawn), batch_size), desc="confidence by distance", disable=not progress):
        batch = collate([states[index] for _, index in drawn[start : start + batch_size]])
        distance, on_device = batch.steps_to_reveal, batch.to(model.device)
        with torch.inference_mode():
            logits = model(**on_device.student._asdict()).logits
            statistics = token_statistics(logits, query_tokens=on_device.labels[:, None])
            confidence = (statistics.query_logits[:, 0].float() - statistics.logsumexp).exp().cpu()
        counted = distance <= max_distance
        sums += torch.bincount(distance[counted], confidence[counted].double(), minlength=max_distance + 1)
        counts += torch.bincount(distance[counted], minlength=max_distance + 1)

    # 3. Means.
    seen = [distance for distance in range(1, max_distance + 1) if counts[distance] > 0]
    return ConfidenceDecay(
        distances=seen,
        confidence=[float(sums[distance] / counts[distance]) for distance in seen],
        counts=[int(counts[distance]) for distance in seen],
    )
