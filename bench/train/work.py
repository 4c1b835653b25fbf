"""What an optimizer step works on, and its matrix products alone: the least time that any step could take."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from tad_ext.data.trajectories.files import Trajectory

from .clock import PartClock


@dataclass(frozen=True)
class Sizes:
    """Tokens of a state, and the adapter."""

    prompt: int = 150
    reference: int = 130  #: the teacher's prompt has it besides
    canvas: int = 256
    rank: int = 128


def random_trajectories(shape: dict[str, Any], sizes: Sizes) -> list[Trajectory]:
    """Eight trajectories of random tokens, revealed in a random order, one a step."""
    generator = np.random.default_rng(0)
    random_tokens = partial(generator.integers, min(shape["mask_token_id"], shape["eos_token_id"]))
    same = {"sample": 0, "task": "random", "num_steps": sizes.canvas, "correct": True, "answer": None, "reference": ""}
    return [
        Trajectory(
            id=str(index),
            prompt_ids=random_tokens(size=sizes.prompt),
            teacher_prompt_ids=random_tokens(size=sizes.prompt + sizes.reference),
            response_ids=random_tokens(size=sizes.canvas),
            reveal_step=1 + generator.permutation(sizes.canvas),
            **same,
        )
        for index in range(8)
    ]


def step_flops(config: Any, sizes: Sizes) -> int:
    """Operations in the frozen matrix products of a state: student forward, gradients of its activations, teacher.

    The head meets half of the canvas, which is masked on average.
    """
    student, teacher = sizes.prompt + sizes.canvas, sizes.prompt + sizes.reference + sizes.canvas
    half = sizes.canvas // 2
    return 2 * forward_flops(config, student, half) + forward_flops(config, teacher, half)


def forward_flops(config: Any, positions: int, head_rows: int) -> int:
    """Operations in the matrix products of one sequence's forward: a multiplication and an addition count as two."""
    weights = sum(inputs * outputs for inputs, outputs in linear_sizes(config))
    attention = 4 * positions * positions * config.hidden_size  # scores, and their products with the values
    head = 2 * head_rows * config.hidden_size * config.vocab_size
    return config.num_hidden_layers * (2 * positions * weights + attention) + head


def linear_sizes(config: Any) -> list[tuple[int, int]]:
    """Inputs and outputs of the linear modules of a layer."""
    width, inner = config.hidden_size, config.intermediate_size
    keys = width * config.num_key_value_heads // config.num_attention_heads
    return [
        (width, width),
        (width, keys),
        (width, keys),
        (width, width),
        (width, inner),
        (width, inner),
        (inner, width),
    ]


class BareProducts:
    """The linear modules' and the head's products of a step, by `torch.mm`, and nothing else, attention neither.

    Student forward, gradients of its activations and of the adapter, teacher forward; the head at `near + distant`
    rows, its gradient at these, and the teacher's at the distant ones.
    """

    def __init__(self, model: Any, sizes: Sizes, *, rows: int, micro_batches: int, near: int, distant: int) -> None:
        config, like = model.config, {"dtype": model.dtype, "device": model.device}
        student, teacher = (rows * (sizes.prompt + more + sizes.canvas) for more in (0, sizes.reference))
        entries, asked = (round(some / micro_batches) for some in (near + distant, distant))
        head = torch.randn(config.vocab_size, config.hidden_size, **like)
        hidden = torch.randn(entries, config.hidden_size, **like)
        logits = torch.randn(entries, config.vocab_size, **like)
        self._micro_batches, self._layers = micro_batches, config.num_hidden_layers
        self._of_head: list[Callable[[], Any]] = [
            partial(torch.mm, hidden, head.t(), out=logits),
            partial(torch.mm, hidden[:asked], head.t(), out=logits[:asked]),
            partial(torch.mm, logits, head),
        ]
        self._of_layer: list[Callable[[], Any]] = []
        for inputs, outputs in linear_sizes(config):
            weight = torch.randn(outputs, inputs, **like)
            down, up = torch.randn(sizes.rank, inputs, **like), torch.randn(outputs, sizes.rank, **like)
            x, y = torch.randn(student, inputs, **like), torch.randn(student, outputs, **like)
            low = torch.randn(student, sizes.rank, **like)
            products = [(x, weight.t()), (y, weight), (x, down.t()), (low, up.t()), (y, up), (low, down)]
            products += [(low.t(), x), (y.t(), low), (torch.randn(teacher, inputs, **like), weight.t())]
            self._of_layer += [partial(torch.mm, *factors) for factors in products]

    def run(self, clock: PartClock) -> None:
        """One step's."""
        for _ in range(self._micro_batches):
            with clock.part("head"):
                for product in self._of_head:
                    product()
            with clock.part("layers"):
                for product in self._layers * self._of_layer:
                    product()
