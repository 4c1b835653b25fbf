"""Whom trajectories are collected from: a model with random weights, or a checkpoint that answers a task's problems."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tad_ext import DecodeResult, load_model, load_tokenizer
from tad_ext.data.tasks.task import Task

from ..decode.shapes import SHAPES, random_model

# Responses of a random model, as parts of the canvas: evenly spread, 145 tokens of 256 on average. So long are the
# published ones.
SHORTEST, LONGEST = 34 / 256, 1.0
GOLDEN_RATIO = 0.6180339887498949


@dataclass(frozen=True)
class Sizes:
    """Of the canvas, in tokens."""

    gen_length: int
    block_length: int


@dataclass(frozen=True)
class Subject:
    """A model and what it is asked."""

    name: str
    model: Any
    prompts: list[list[int]]  # the teacher's
    sizes: Sizes
    ending: Callable[[], AbstractContextManager[object]] = nullcontext  # within it responses come to an end
    right: Callable[[DecodeResult], float] | None = None  # share of the responses that are right; None: nobody knows

    @property
    def is_random(self) -> bool:
        """Whether its choices mean nothing."""
        return self.right is None


def random_subject(
    shape: str, device: str, dtype: torch.dtype, sizes: Sizes, *, prompt_length: int, prompts: int
) -> Subject:
    """Its canvases never hold the mask or an end of sequence; `ending` ends them at drawn lengths.

    The first token of a prompt is its number, by which its length is found again.
    """
    torch.manual_seed(0)
    model = random_model(SHAPES[shape], device, dtype)
    special = [model.config.mask_token_id, *model.config.eos_token_ids]
    with torch.no_grad():  # their logits are 0, which is never the largest
        model.lm_head.weight[special] = 0
    generator = torch.Generator().manual_seed(0)
    asked = torch.randint(min(special), (prompts, prompt_length), generator=generator)
    asked[:, 0] = torch.arange(prompts)
    spread = (0.5 + torch.arange(prompts) * GOLDEN_RATIO) % 1  # evenly, however many of them are asked
    lengths = ((SHORTEST + spread * (LONGEST - SHORTEST)) * sizes.gen_length).long().to(device)
    name = f"{shape} shape, random weights, {str(dtype).removeprefix('torch.')}"
    ending = partial(forced_ends, model, prompt_length + lengths - 1)
    return Subject(name, model, asked.tolist(), sizes, ending)


@contextmanager
def forced_ends(model: Any, columns: Tensor) -> Iterator[None]:
    """Prompt n has an end of sequence at column `columns[n]`, int64, and is sure of it before anything else."""
    eos = model.config.eos_token_ids[0]

    def force(_: object, arguments: tuple[Tensor, ...], keywords: dict[str, Any], output: Any) -> None:
        ids, positions = arguments[0], keywords["positions"]
        of_row = columns[ids[:, 0].clamp(max=len(columns) - 1)]
        at_end = of_row[positions // ids.shape[1]] == positions % ids.shape[1]
        output.logits[..., eos] = torch.where(at_end, 1e4, output.logits[..., eos])

    handle = model.register_forward_hook(force, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def checkpoint_subject(folder: str, device: str, task: Task, sizes: Sizes, *, prompts: int) -> Subject:
    """The teacher of `tad collect`, on training problems of a task."""
    tokenizer, asked = load_tokenizer(folder), task.problems("train", limit=prompts)

    def right(result: DecodeResult) -> float:
        texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in result.responses()]
        return sum(map(task.is_correct, asked, texts)) / len(texts)

    teacher = [task.teacher_prompt(problem, tokenizer) for problem in asked]
    model = load_model(folder, device=device)
    name = f"the checkpoint {Path(folder).resolve().name}, task {task.name}, {str(model.dtype).removeprefix('torch.')}"
    return Subject(name, model, teacher, sizes, right=right)
