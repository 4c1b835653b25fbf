"""Whether trajectories fit the model that is trained on them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tad_ext.data.trajectories import Trajectory
from tad_ext.data.trajectory_metadata import TrajectoryMetadata
from tad_ext.models.tokenizers import tokenizer_hash


def check_fits(metadata: TrajectoryMetadata, trajectories: Iterable[Trajectory], config: Any, tokenizer: Any) -> None:
    """Refuse trajectories that do not fit the model behind `config` and `tokenizer`, naming what does not fit.

    Raises:
        ValueError: another mask id or tokenizer, a prompt and response longer than the model's positions, or a token id
            outside its vocabulary.
    """
    for what, noted, own in (
        ("mask_token_id", metadata.mask_token_id, config.mask_token_id),
        ("another tokenizer, of hash", metadata.tokenizer_hash, tokenizer_hash(tokenizer)),
    ):
        if noted != own:
            raise ValueError(f"trajectories were made with {what} {noted}, the model's is {own}")
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
