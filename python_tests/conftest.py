"""Settings for every test: one thread (faster than two on a busy small machine), and hypothesis without deadlines."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("tad", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("tad")
