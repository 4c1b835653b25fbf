"""Small runs of `collect`: a task that a random model can please, its model, and what a run leaves behind."""

import zlib
from pathlib import Path
from typing import Any

import torch

from tad_ext.data.tasks.arithmetic import arithmetic_tokenizer
from tad_ext.data.tasks.task import Problem, get_task
from tad_ext.data.trajectories.files import Trajectory, read_trajectories
from tad_ext.jobs.collect.config import CollectConfig
from tad_ext.models.loading import save_model
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.settings import made

GEN_LENGTH, BLOCK_LENGTH = 12, 4


class LenientTask:
    """The arithmetic task with a verifier that a random model can please: about two answers in three count as right."""

    def __init__(self, **options: Any) -> None:
        self._task = get_task("arithmetic", **options)
        self.gen_length, self.block_length = GEN_LENGTH, BLOCK_LENGTH

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def is_correct(self, problem: Problem, text: str) -> bool:
        return zlib.crc32(f"{problem.id} {text}".encode()) % 3 > 0

    def extract_answer(self, text: str) -> str | None:
        return text or None


def make_model(path: Path, *, seed: int, positions: int = 128) -> str:
    tokenizer = arithmetic_tokenizer()
    torch.manual_seed(seed)
    config = TinyDiffusionConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.5,
        max_position_embeddings=positions,
        mask_token_id=tokenizer.mask_token_id,
        eos_token_ids=[tokenizer.eos_token_id],
        suppress_token_ids=[],
    )
    save_model(TinyDiffusionLM(config), tokenizer, path)
    return str(path)


def config(model: str, output: Path, **changes: Any) -> CollectConfig:
    settings: dict[str, Any] = {"limit": 20, "unit_size": 8, "batch_size": 3, "temperature": 1.0, "device": "cpu"}
    return made(CollectConfig, {"model": model, "output": str(output)} | settings | changes)


def rows(folder: Path) -> list[Trajectory]:
    """All trajectories of a folder, by their keys: where they stand depends on how often a run was started."""
    return sorted(read_trajectories(folder)[1], key=lambda row: row.key)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
