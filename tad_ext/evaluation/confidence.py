"""How sure a model is of a token k steps before the teacher revealed it."""

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import TrajectoryStates, collate
from tad_ext.evaluation.decay import ConfidenceDecay
from tad_ext.evaluation.settings import DecaySettings
from tad_ext.ops import token_statistics


def confidence_by_distance(
    model: Any,
    trajectories: Sequence[Trajectory],
    settings: DecaySettings | None = None,
    *,
    progress: bool = False,
) -> ConfidenceDecay:
    """Measures the model's confidence in the trajectory's tokens against the steps until they are revealed.

    A state s of a trajectory shows the student's prompt and the tokens revealed in steps 1..s; each masked position
    there is one sample at distance reveal_step - s (arXiv 2605.09536).

    Args:
        model: a masked diffusion model, with an adapter or not.
        trajectories: at least one. Those of one problem depend on each other, problems do not.
        settings: default: the defaults.

    Raises:
        ValueError: no trajectories, an unfinished one, or no position within `max_distance`.
    """
    settings = settings or DecaySettings()

    # 1. Some states of every trajectory, those with prompts of like length together: less padding.
    states = TrajectoryStates(trajectories, mask_token_id=int(model.config.mask_token_id))
    generator = np.random.default_rng(settings.seed)
    drawn: list[tuple[int, int, int]] = []  # of each state, the length of its prompt, its index, its problem's
    numbers_of: dict[tuple[str, str], int] = {}
    first = 0
    for trajectory in trajectories:
        number = numbers_of.setdefault((trajectory.task, trajectory.id), len(numbers_of))
        steps = generator.permutation(trajectory.num_steps)[: settings.states_per_trajectory]
        drawn += [(len(trajectory.prompt_ids), first + int(step), number) for step in steps]
        first += trajectory.num_steps
    drawn.sort(key=itemgetter(0))

    # 2. The probabilities of their entries, summed by problem and distance.
    shape = len(numbers_of), min(settings.max_distance, max(one.num_steps for one in trajectories))
    sums, counts = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    starts = range(0, len(drawn), settings.batch_size)
    for start in tqdm(starts, desc="confidence by distance", disable=not progress):
        _, indices, numbers = zip(*drawn[start : start + settings.batch_size], strict=True)
        batch = collate([states[index] for index in indices])
        on_device = batch.to(model.device)
        with torch.inference_mode():
            logits = model(**on_device.student._asdict()).logits
            statistics = token_statistics(logits, query_tokens=on_device.labels[:, None])
            confidence = statistics.query_probabilities[:, 0].double().cpu().numpy()
        distance = batch.steps_to_reveal.numpy()
        near = distance <= shape[1]
        place = np.array(numbers)[batch.state_index.numpy()[near]], distance[near] - 1
        np.add.at(sums, place, confidence[near])
        np.add.at(counts, place, 1)
    if not counts.any():
        raise ValueError(f"max_distance is {settings.max_distance}: no state drawn has a position that near")
    return ConfidenceDecay.of(sums, counts, settings, generator)
