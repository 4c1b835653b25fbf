"""What is trained on: trajectories that fit the model, and the order of their states."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tad_ext.data.trajectories import Trajectory
from tad_ext.data.trajectory_metadata import TrajectoryMetadata
from tad_ext.models.tokenizers import tokenizer_hash


def shuffled(num_states: int, *, seed: int, epoch: int) -> Tensor:
    """(num_states,) int64: an order that depends on the seed and the epoch alone, the same on every rank."""
    return torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(num_states))


def check_fits(metadata: TrajectoryMetadata, trajectories: Iterable[Trajectory], config: Any, tokenizer: Any) -> None:
    """Refuse trajectories that do not fit the model behind `config` and `tokenizer`, naming what does not fit.

    Raises:
        ValueError: another mask id or tokenizer, a prompt and response longer than the model's positions, or a token id
            outside its vocabulary.
    """
    if metadata.mask_token_id != config.mask_token_id:
        raise ValueError(
            f"trajectories were made with mask_token_id {metadata.mask_token_id}, the model's is {config.mask_token_id}"
        )
    found = tokenizer_hash(tokenizer)
    if metadata.tokenizer_hash != found:
        raise ValueError(
            f"trajectories were made with another tokenizer (hash {metadata.tokenizer_hash}) than the model's ({found})"
        )
    for trajectory in trajectories:
        for name in ("prompt_ids", "teacher_prompt_ids"):
            prompt = getattr(trajectory, name)
            length = len(prompt) + len(trajectory.response_ids)
            if length > config.max_position_embeddings:
                raise ValueError(
                    f"trajectory {trajectory.id!r}: {name} and response_ids need {length} positions together, "
                    f"the model has {config.max_position_embeddings}"
                )
            highest = max(int(prompt.max(initial=0)), int(trajectory.response_ids.max()))
            if highest >= config.vocab_size:
                raise ValueError(
                    f"trajectory {trajectory.id!r}: token id {highest} is outside the vocabulary of {config.vocab_size}"
                )
