"""Steps as CUDA graphs: a shape's second step is recorded, later ones are replayed with one launch.

A forward of a model of 32 layers is some five hundred launches, which take the host longer than the GPU needs for a
window of 64 columns. A graph repeats them all on the same memory: the tensors of the batch and of the cache, which stay
where they are, and here the columns of the windows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .batch import StepShape, Windows

Replay = Callable[[], Tensor]
Run = Callable[[StepShape, Windows | None], Tensor]


class CudaGraphs:
    """Records on one device; all graphs share their memory, as they are replayed one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.stream, self.pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> Replay:
        """Records what `run` launches, without executing it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            result = run()

        def replay() -> Tensor:
            graph.replay()
            return result.clone()  # the next replay overwrites it

        return replay


class CapturedStep:
    """Runs a step for the first time of a shape, records it for the second, and replays it from then on."""

    def __init__(
        self, step: Run, device: torch.device, record: Callable[[Callable[[], Tensor]], Replay] | None = None
    ) -> None:
        """`record` is another way of recording, for tests."""
        self.step = step
        self.record = CudaGraphs(device) if record is None else record
        self._seen: set[tuple[StepShape, int]] = set()
        self._recorded: dict[tuple[StepShape, int], tuple[Replay, Windows | None]] = {}

    def __call__(self, shape: StepShape, windows: Windows | None) -> Tensor:
        """As the step itself."""
        key = (shape, 0 if windows is None else windows.columns.shape[1])
        # Of many shapes, and frequent only where there are many rows, beside which launches cost little.
        mixed = windows is not None and len(windows.whole) > 0
        if mixed or key not in self._seen:
            # The first run makes what is kept from then on: the cache's and the policy's tensors.
            self._seen |= set() if mixed else {key}
            return self.step(shape, windows)
        if key not in self._recorded:
            self._recorded[key] = self.record(lambda: self.step(shape, windows)), windows
        replay, recorded = self._recorded[key]
        if recorded is not None and windows is not None:
            recorded.columns.copy_(windows.columns)
            recorded.blocks.copy_(windows.blocks)
        return replay()
