"""A tiny model of words, and trajectories that fit it: mask id 0, end of sequence 1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_trajectories import made_trajectory
from word_checkpoints import CHAT_TEMPLATE, write_words_model

from tad_ext.cli import main
from tad_ext.models.loading import load_tokenizer
from tad_ext.models.tokenizers import tokenizer_hash


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_words_model(tmp_path_factory.mktemp("words") / "model", chat_template=CHAT_TEMPLATE))


@pytest.fixture(scope="session")
def run_of_model(model: str) -> dict[str, Any]:
    """What a run of this model says of itself."""
    return {"mask_token_id": 0, "tokenizer_hash": tokenizer_hash(load_tokenizer(model))}


@pytest.fixture
def fitting() -> Callable[..., Any]:
    """Trajectories of "one three two one", the first token after the second."""
    return lambda name="a", **changes: made_trajectory(name, **{"response_ids": [3, 5, 4, 1]} | changes)


@pytest.fixture
def tad(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; its exit code, and what it wrote to standard output and to the error stream."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run
