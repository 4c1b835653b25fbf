"""Times the parts of decoding steps: the model's layers, its head, and what happens before, between and after.

A part lasts until the next one begins, so the parts of a step add up to the step. They begin where a hook on the model
or a wrapped policy says so; the decoding code itself is not touched. On a GPU the moments are CUDA events, which the
host does not wait for: the parts are the device's, its waiting for the host included.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

INPUTS, LAYERS, ROWS, HEAD, CHOICE, POLICY, REVEAL = PARTS = (
    "inputs",  # until the layers: eligible positions, ids, masks
    "layers",
    "rows",  # between layers and head: the hidden rows of the eligible positions
    "head",
    "choice",  # statistics of the logits; for a decoder without a policy everything behind the head
    "policy",
    "reveal",  # tokens into the canvas, and all counting, until the host knows what the next step is
)


class StepClock:
    """Of a model whose trunk is `model.model` and whose head is `model.lm_head`."""

    def __init__(self, model: Any, device: torch.device | str) -> None:
        self._model, self._cuda = model, torch.device(device).type == "cuda"
        self._steps: list[list[tuple[str, Any]]] = []

    @contextmanager
    def watching(self, *, parts: bool = True) -> Iterator[None]:
        """Forgets earlier steps; the model's hooks are there until the end. Without `parts` there are none."""
        self._steps = []
        trunk, head = self._model.model, self._model.lm_head
        hooks = parts * [
            trunk.register_forward_pre_hook(lambda *_: self._begin(LAYERS)),
            trunk.register_forward_hook(lambda *_: self._begin(ROWS)),
            head.register_forward_pre_hook(lambda *_: self._begin(HEAD)),
            head.register_forward_hook(lambda *_: self._begin(CHOICE)),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def step(self) -> Iterator[None]:
        """One step."""
        self._steps.append([])
        self._begin(INPUTS)
        yield
        self._begin("")

    def policy(self, policy: Callable[..., Any]) -> Callable[..., Any]:
        """The policy as a part of its own."""

        def timed(*arguments: Any) -> Any:
            self._begin(POLICY)
            answer = policy(*arguments)
            self._begin(REVEAL)
            return answer

        return timed

    def steps_ms(self) -> list[dict[str, float]]:
        """Milliseconds of each part of each step that came to its end; waits for the device."""
        if self._cuda:
            torch.cuda.synchronize()
        return [self._parts(marks) for marks in self._steps if marks[-1][0] == ""]

    def _begin(self, part: str) -> None:
        if self._steps:
            self._steps[-1].append((part, self._now()))

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _parts(self, marks: list[tuple[str, Any]]) -> dict[str, float]:
        parts: dict[str, float] = {}
        for (part, began), (_, ended) in pairwise(marks):
            ms = began.elapsed_time(ended) if self._cuda else (ended - began) * 1e3
            parts[part] = parts.get(part, 0.0) + ms
        return parts
