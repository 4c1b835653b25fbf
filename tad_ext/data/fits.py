"""Whether trajectories are a model's: what is checked before it is shown them."""

from collections.abc import Iterable
from typing import Any

from tad_ext.data.trajectories import Trajectory
from tad_ext.data.trajectory_metadata import TrajectoryMetadata
from tad_ext.models.tokenizers import tokenizer_hash


def check_fits(
    folder: str,
    metadata: TrajectoryMetadata,
    trajectories: Iterable[Trajectory],
    config: Any,
    tokenizer: Any,
    *,
    prompts: Iterable[str] = ("prompt_ids", "teacher_prompt_ids"),
) -> None:
    """Raises ValueError for trajectories that do not fit the model behind `config` and `tokenizer`: another mask id or
    tokenizer, one of the `prompts` and the response longer than the model's positions, or a token id outside its
    vocabulary. `folder`, where they are from, is named.
    """
    for what, noted, own in (
        ("mask_token_id", metadata.mask_token_id, config.mask_token_id),
        ("another tokenizer, of hash", metadata.tokenizer_hash, tokenizer_hash(tokenizer)),
    ):
        if noted != own:
            raise ValueError(f"trajectories {folder!r} were made with {what} {noted}, the model's is {own}")
    for trajectory in trajectories:
        for name in prompts:
            prompt = getattr(trajectory, name)
            length = len(prompt) + len(trajectory.response_ids)
            where = f"trajectories {folder!r}, trajectory {trajectory.id!r}"
            if length > config.max_position_embeddings:
                raise ValueError(
                    f"{where}: {name} and response_ids need {length} positions together, "
                    f"the model has {config.max_position_embeddings}"
                )
            highest = max(int(prompt.max(initial=0)), int(trajectory.response_ids.max()))
            if highest >= config.vocab_size:
                raise ValueError(f"{where}: token id {highest} is outside the vocabulary of {config.vocab_size}")
