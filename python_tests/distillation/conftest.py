"""A tiny model, and trajectories that a random teacher could have made, for the tests of distillation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_trajectories import PART, made_metadata
from peft import PeftModel
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tad_ext.data.trajectories.files import Trajectory, write_part
from tad_ext.data.trajectories.metadata import TrajectoryMetadata
from tad_ext.distillation import adapter_run
from tad_ext.files import write_text
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.models.lora import add_lora
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.models.tokenizers import tokenizer_hash
from tad_ext.settings import made

MASK, EOS, VOCABULARY = 23, 22, 24
OF_PICTURES = ("test_card", "test_registry")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take a quarter of the time of a training, and only some files test them."""
    if request.path.stem not in OF_PICTURES:
        monkeypatch.setattr(adapter_run, "write_curve", lambda path, *_: write_text(path, "a picture"))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., TinyDiffusionLM]:
    def make(seed: int = 0, **changes: object) -> TinyDiffusionLM:
        sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        ids = {"vocab_size": VOCABULARY, "mask_token_id": MASK, "eos_token_ids": [EOS], "suppress_token_ids": []}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return TinyDiffusionLM(TinyDiffusionConfig(**{**sizes, **ids, **changes})).eval()

    return make


@pytest.fixture
def make_adapted(make_model: Callable[..., TinyDiffusionLM]) -> Callable[..., PeftModel]:
    """A model in float64 with an adapter that has been trained a little, so that student and teacher differ."""

    def make(**changes: object) -> PeftModel:
        adapted = add_lora(
            make_model(**changes).double(), rank=4, alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]
        )
        with torch.random.fork_rng():
            torch.manual_seed(1)
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
        return adapted

    return make


@pytest.fixture(scope="session")
def make_trajectories() -> Callable[..., list[Trajectory]]:
    def make(count: int = 4, *, length: int = 8, seed: int = 0, correct: bool = True) -> list[Trajectory]:
        random = np.random.default_rng(seed)
        made = []
        for number in range(count):
            prompt = random.integers(0, EOS, size=int(random.integers(2, 6)))
            reference = random.integers(0, EOS, size=int(random.integers(3, 9)))
            made.append(
                Trajectory(
                    sample=0,
                    id=f"problem-{number}",
                    task="made-up",
                    prompt_ids=prompt,
                    teacher_prompt_ids=np.concatenate((reference, prompt)),
                    # The response repeats the prompt's tokens, so that there is something to learn.
                    response_ids=np.resize(prompt, length),
                    reveal_step=random.permutation(length) + 1,
                    num_steps=length,
                    correct=correct,
                    answer="1",
                    reference="1",
                )
            )
        return made

    return make


@pytest.fixture(scope="session")
def make_metadata() -> Callable[[str], TrajectoryMetadata]:
    """What trajectory files say of themselves, of a tokenizer of this hash."""

    def make(tokenizer: str) -> TrajectoryMetadata:
        return made_metadata(tokenizer_hash=tokenizer, task="made-up", mask_token_id=MASK, gen_length=8, block_length=8)

    return make


@pytest.fixture(scope="session")
def make_job(
    make_model: Callable[..., Any],
    make_trajectories: Callable[..., Any],
    make_metadata: Callable[[str], TrajectoryMetadata],
) -> Callable[[Path], Callable[..., DistillConfig]]:
    """make_job(folder): settings of jobs whose model and trajectories (32 states) are in this folder."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({str(i): i for i in range(24)}, "0")),
        eos_token="22",
        mask_token="23",
    )
    metadata = make_metadata(tokenizer_hash(tokenizer))

    def job_in(folder: Path) -> Callable[..., DistillConfig]:
        make_model().save_pretrained(folder / "model")
        tokenizer.save_pretrained(folder / "model")

        def make(recorded: Any = None, **changes: Any) -> DistillConfig:
            data = folder / "trajectories"
            data.mkdir(exist_ok=True)
            write_part(data / PART, metadata, recorded or make_trajectories())
            paths = {"model": str(folder / "model"), "trajectories": (str(data),), "output": str(folder / "output")}
            quick = {
                **({"delta": 3} if "objective" not in changes else {}),
                **({"rank": 4, "alpha": 8.0} if "adapter" not in changes else {}),
                "learning_rate": 1e-2,
                "batch_size": 4,
                "accumulation": 2,
                "device": "cpu",
            }
            return made(DistillConfig, paths | quick | changes)

        return make

    return job_in


@pytest.fixture
def job(tmp_path: Path, make_job: Callable[[Path], Callable[..., DistillConfig]]) -> Callable[..., DistillConfig]:
    """Settings of a job whose model and trajectories (32 states) are on disk."""
    return make_job(tmp_path)
