"""Whether trajectories are a model's: what is checked before it is shown them."""

from collections.abc import Iterable, Iterator
from typing import Any

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.metadata import TrajectoryMetadata

PROMPTS = ("prompt_ids", "teacher_prompt_ids")


def check_fits(
    folder: str,
    metadata: TrajectoryMetadata,
    trajectories: Iterable[Trajectory],
    config: Any,
    tokenizer: Any,
    *,
    prompts: Iterable[str] = PROMPTS,
) -> None:
    """Raises ValueError for trajectories that do not fit the model behind `config` and `tokenizer`: another mask id or
    tokenizer, one of the `prompts` and the response longer than the model's positions, or a token id outside its
    vocabulary. `folder`, where they are from, is named.
    """
    from tad_ext.models.tokenizers import tokenizer_hash  # here, because the models' libraries take seconds to import

    for fault in run_misfits(metadata, config, tokenizer_hash(tokenizer)):
        raise ValueError(f"trajectories {folder!r} {fault}")
    for trajectory in trajectories:
        for fault in misfits(trajectory, config, prompts=prompts):
            raise ValueError(f"trajectories {folder!r}, trajectory {trajectory.id!r}: {fault}")


def run_misfits(metadata: TrajectoryMetadata, config: Any, own_hash: str) -> Iterator[str]:
    """In what a run does not fit the model with this configuration and `tokenizer_hash`."""
    for what, noted, own in (
        ("mask_token_id", metadata.mask_token_id, config.mask_token_id),
        ("another tokenizer, of hash", metadata.tokenizer_hash, own_hash),
    ):
        if noted != own:
            yield f"were made with {what} {noted}, the model's is {own}"


def misfits(trajectory: Trajectory, config: Any, *, prompts: Iterable[str] = PROMPTS) -> Iterator[str]:
    """In what a trajectory's lengths and ids do not fit the model with this configuration."""
    for name in prompts:
        prompt = getattr(trajectory, name)
        length = len(prompt) + len(trajectory.response_ids)
        if length > config.max_position_embeddings:
            yield (
                f"{name} and response_ids need {length} positions together, "
                f"the model has {config.max_position_embeddings}"
            )
        highest = max(int(prompt.max(initial=0)), int(trajectory.response_ids.max()))
        if highest >= config.vocab_size:
            yield f"token id {highest} is outside the vocabulary of {config.vocab_size}"
