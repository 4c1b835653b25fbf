"""Times the parts of decoding steps: the model's layers, its head, and what happens before, between and after.

A part lasts until the next one begins, so the parts of a step add up to the step. They begin where a hook on the model
or a wrapped policy says so; a step ends where the decoder shows its canvas (`watch=`, which copies it to the host), and
the next one begins there. On a GPU the parts are the device's, its waiting for the host included.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch

from ..stopwatch import milliseconds, moment

PARTS = (
    "inputs",  # until the layers: eligible positions, ids, masks
    "layers",
    "rows",  # between layers and head: the hidden rows of the eligible positions
    "head",
    "choice",  # statistics of the logits; for a decoder without a policy everything behind the head
    "policy",
    "reveal",  # tokens into the canvas, and all counting, until the host knows what the next step is
)


class StepClock:
    """Times a model whose trunk is `model.model` and whose head is `model.lm_head`; both get hooks for good."""

    def __init__(self, model: Any) -> None:
        self._on_gpu, self._parts = model.device.type == "cuda", False
        self._marks: list[tuple[str, Any]] = []  # each a part, and the moment that it begins
        for module, before, after in ((model.model, "layers", "rows"), (model.lm_head, "head", "choice")):
            module.register_forward_pre_hook(lambda *_, part=before: self._begin(part))
            module.register_forward_hook(lambda *_, part=after: self._begin(part))

    def start(self, *, parts: bool = True) -> None:
        """Forgets earlier steps; the first one begins here. Without `parts` steps are not divided."""
        self._marks, self._parts = [], parts
        self.next_step()

    def next_step(self) -> None:
        """A step begins here, and the one before it ends."""
        self._marks.append((PARTS[0], moment(self._on_gpu)))

    def policy(self, policy: Callable[..., Any]) -> Callable[..., Any]:
        """The policy as a part of its own."""

        def timed(*arguments: Any) -> Any:
            self._begin("policy")
            answer = policy(*arguments)
            self._begin("reveal")
            return answer

        return timed

    def steps_ms(self) -> list[dict[str, float]]:
        """Milliseconds of each part of each step that came to its end; waits for the device."""
        if self._on_gpu:
            torch.cuda.synchronize()
        steps: list[dict[str, float]] = []
        for (part, began), (_, ended) in pairwise(self._marks):
            if part == PARTS[0]:
                steps.append(dict.fromkeys(PARTS, 0.0))
            steps[-1][part] += milliseconds(began, ended)
        return steps if self._marks[-1][0] == PARTS[0] else steps[:-1]

    def _begin(self, part: str) -> None:
        if self._parts:
            self._marks.append((part, moment(self._on_gpu)))
