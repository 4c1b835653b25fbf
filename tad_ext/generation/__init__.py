"""Answering prompts: one with a live view, a file of them that can be stopped and continued, or a chat.

The names are loaded when they are first used, so that reading the settings (`tad generate --help`) needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tad_ext.generation.config import GenerateConfig
from tad_ext.generation.prompts import read_prompts

if TYPE_CHECKING:
    from tad_ext.generation.runner import generate

__all__ = ["GenerateConfig", "generate", "read_prompts"]


def __getattr__(name: str) -> Any:
    if name != "generate":
        raise AttributeError(f"module 'tad_ext.generation' has no attribute '{name}'")
    return importlib.import_module("tad_ext.generation.runner").generate
