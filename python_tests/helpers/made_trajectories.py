"""Trajectories, and what their files say, that no teacher has decoded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tad_ext.data.trajectories.files import Trajectory, part_name, write_part
from tad_ext.data.trajectories.metadata import Coverage, Key, TrajectoryMetadata

MASK = 99
PART = "part-00000000-00000000.parquet"  # a name that parts may have


def made_metadata(**changes: Any) -> TrajectoryMetadata:
    values: dict[str, Any] = {
        "model": "runs/base",
        "model_revision": "0123456789abcdef",
        "tokenizer_hash": "fedcba9876543210",
        "task": "toy",
        "split": "train",
        "teacher_prompt": "user",
        "mask_token_id": MASK,
        "gen_length": 4,
        "block_length": 2,
        "policy": "topk:1",
        "block_add_threshold": 1.0,
        "decoded_token_threshold": 1.0,
        "forced_progress": "row",
        "hide_future_blocks": False,
        "temperature": 0.0,
        "top_k": None,
        "top_p": 1.0,
        "cache": "none",
        "seed": 0,
        "stop_at_eos": False,
        "dtype": "float32",
        "keep": "correct",
    }
    return TrajectoryMetadata(**values | changes)


def made_trajectory(name: str = "a", **changes: Any) -> Trajectory:
    values: dict[str, Any] = {
        "id": name,
        "sample": 0,
        "task": "toy",
        "prompt_ids": [1, 2],
        "teacher_prompt_ids": [1, 2, 3],
        "response_ids": [5, 6, 7, 2**31 - 1],
        "reveal_step": [2, 1, 4, 3],
        "num_steps": 4,
        "correct": True,
        "answer": "7",
        "reference": "5 6 7",
    }
    return Trajectory(**values | changes)


def write_made(
    folder: Path, items: Sequence[Trajectory], *, wrong: Sequence[Key] | None = (), number: int = 0, **changes: Any
) -> Path:
    """A part of a folder, of a run with these `changes`; `wrong` None: without a word on what was left out."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [item.key for item in items] + list(wrong or ())
    coverage = None if wrong is None else Coverage(tuple(wrong), "0")
    path = folder / part_name(number, keys)
    write_part(path, made_metadata(**changes), items, coverage=coverage)
    return path
