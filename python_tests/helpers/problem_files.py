"""Where tests find problem files: the original ones, which are not part of the repository, and a sample that is."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORIGINALS = Path(os.environ.get("TAD_EXT_DATA", ROOT.parent / "shared" / "data"))
GSM8K_SAMPLE = ROOT / "python_tests" / "data" / "gsm8k_sample.jsonl"


def original(name: str) -> Path:
    """The original file of that name; skips the test where there is none."""
    path = ORIGINALS / name
    if not path.is_file():
        pytest.skip(f"no original problem file {path}; the folder may be named by TAD_EXT_DATA")
    return path


def gsm8k_train() -> Path:
    """The original training problems where they are at hand, otherwise the sample."""
    path = ORIGINALS / "gsm8k_train.jsonl"
    return path if path.is_file() else GSM8K_SAMPLE
