"""Trajectories that do not fit a model are refused, and the order of their states is the same everywhere."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.fits import check_fits
from tad_ext.data.trajectories.metadata import TrajectoryMetadata
from tad_ext.models.tokenizers import tokenizer_hash


class CharacterTokenizer:
    def __init__(self) -> None:
        self.special_tokens_map: dict[str, str] = {}

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_token_id": 98}, "mask_token_id 23, the model's is 98"),
        (
            {"max_position_embeddings": 9},
            "teacher_prompt_ids and response_ids need 10 positions together, the model has 9",
        ),
        ({"vocab_size": 14}, "token id 14 is outside the vocabulary of 14"),
        ({"tokenizer_hash": "other"}, "another tokenizer"),
        ({}, None),
    ],
)
def test_trajectories_that_do_not_fit_the_model_are_refused(
    make_metadata: Callable[[str], TrajectoryMetadata], change: dict[str, Any], message: str | None
) -> None:
    tokenizer = CharacterTokenizer()
    metadata = make_metadata(change.pop("tokenizer_hash", tokenizer_hash(tokenizer)))
    config = SimpleNamespace(
        **{"mask_token_id": metadata.mask_token_id, "max_position_embeddings": 10, "vocab_size": 100, **change}
    )
    made = [
        Trajectory(
            sample=0,
            id="p",
            task="t",
            prompt_ids=[1, 2],
            teacher_prompt_ids=[7, 8, 9, 1, 2],
            response_ids=[10, 11, 12, 13, 14],
            reveal_step=[1, 2, 3, 4, 5],
            num_steps=5,
            correct=True,
            answer=None,
            reference="",
        )
    ]
    if message is None:
        check_fits("folder", metadata, made, config, tokenizer)
    else:
        with pytest.raises(ValueError, match=message):
            check_fits("folder", metadata, made, config, tokenizer)
