"""A tiny checkpoint, and the settings that every test of generating begins with."""

import pytest
from word_checkpoints import CHAT_TEMPLATE, write_words_model

from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.settings import made


@pytest.fixture(scope="session")
def instruct(tmp_path_factory):
    """A checkpoint with a chat template."""
    return write_words_model(tmp_path_factory.mktemp("checkpoints") / "model", chat_template=CHAT_TEMPLATE)


@pytest.fixture
def settings(instruct):
    """settings(prompt="one", ...): the others as follows."""

    def make(**changes):
        defaults = {
            "model": str(instruct), "gen_length": 8, "block_length": 4, "policy": "topk:1", "block_add_threshold": 1.0,
            "stop_at_eos": False, "batch_size": 2,
        }  # fmt: skip
        return made(GenerateConfig, defaults | changes)

    return make
