"""Steps as CUDA graphs: a shape's second step is recorded, later ones are replayed with one launch.

The five hundred launches of a forward of 32 layers take the host longer than the GPU needs for a window of 64 columns.
A graph repeats them on the same memory, the batch's tensors and the bounds of its windows, until the decode ends.
"""

import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from tad_ext.models.base import MaskedDiffusionMixin
from tad_ext.ops import operators_wait
from tad_ext.settings import MAX_COUNT

from .batch import Plan
from .config import DecodeConfig
from .inputs import has_graphs
from .policies.base import resizes
from .policies.checking import is_built_in

Replay = Callable[[], Tensor]
MOST_COLUMNS = 512


def most_recorded(model: Any, config: DecodeConfig) -> int:
    """The columns, of all sequences together, up to which a step of a decode is recorded; 0: none is.

    With "auto" they are 512: for so many an H200 computes LLaDA-8B's 32 layers in about the time that the host takes to
    launch them, 24 ms. With more, a graph would save nothing, and the sizes that are rounded up for it would cost.

    Nothing is recorded where a step may look at values, which fails, or do more than launch kernels, which a replay
    would not: with a user's policy, or a model that is not this package's, has hooks or is on several devices. Nor is
    it with a policy that changes the canvas's length, whose steps are of many sizes.
    """
    if config.cuda_graphs != "auto":
        return MAX_COUNT if config.cuda_graphs else 0
    policy_is_safe = is_built_in(config.policy) and not resizes(config.policy)
    safe = has_graphs(model.device) and not operators_wait() and policy_is_safe and _only_launches(model)
    return MOST_COLUMNS if safe else 0


def _only_launches(model: Any) -> bool:
    """Whether a model's forward only launches kernels, on one device, as far as one can see."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of a PeftModel
    if not isinstance(inner, MaskedDiffusionMixin) or torch.is_autocast_enabled(model.device.type):
        return False  # autocast keeps copies of weights, which are gone when it ends
    devices = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    hooked = (one._forward_hooks or one._forward_pre_hooks or "forward" in vars(one) for one in model.modules())
    return len(devices) == 1 and not any(hooked)


class CapturedStep:
    """Runs a plan's first step, records its second, and replays that from then on."""

    def __init__(self, step: Callable[[Plan], Tensor], model: Any, config: DecodeConfig) -> None:
        self.step, self.device, self.insists = step, model.device, config.cuda_graphs != "auto"
        self.most_recorded = most_recorded(model, config)
        self._record: CudaGraphs | None = None
        self._recorded: dict[Plan, tuple[Replay, Plan] | None] = {}  # None: it has run once

    def __call__(self, plan: Plan) -> Tensor:
        """As the step itself."""
        if plan.recorded and plan not in self._recorded:
            # The first run makes what is kept from then on: the cache's and the policy's tensors.
            self._recorded[plan] = None
        elif plan.recorded and (recording := self._recorded[plan] or self._try_to_record(plan)):
            replay, recorded = recording
            if recorded.bounds is not None and plan.bounds is not None:
                recorded.bounds.copy_(plan.bounds)
            return replay()
        return self.step(plan)

    def _try_to_record(self, plan: Plan) -> tuple[Replay, Plan] | None:
        """None if it fails: then nothing was executed, and nothing is recorded or replayed any more."""
        self._record = self._record or CudaGraphs(self.device)
        try:
            self._recorded[plan] = self._record(partial(self.step, plan)), plan
        except RuntimeError as error:
            if self.insists:
                raise
            self.most_recorded = 0
            self._recorded.clear()
            reason = str(error).partition("\n")[0]
            warnings.warn(
                f"decoding goes on without CUDA graphs, which is slower, because recording one failed: {reason}. "
                f"cuda_graphs=False does not try.",
                RuntimeWarning,
                stacklevel=2,
            )
        return self._recorded.get(plan)


_ONE_AT_A_TIME = threading.Lock()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all decodes: cuBLAS takes memory for each stream that it has seen, and keeps it."""
    return torch.cuda.Stream(device)


class CudaGraphs:
    """Records on one device; all graphs share their memory, as they are replayed one after the other."""

    def __init__(self, device: torch.device) -> None:
        self.stream, self.pool = _stream(device), torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], Tensor]) -> Replay:
        """Records what `run` launches, without executing it.

        RuntimeError: `run` waits for the device, or memory does not suffice. What was there before is unharmed.
        """
        graph = torch.cuda.CUDAGraph()
        before = torch.cuda.stream(torch.cuda.current_stream(self.stream.device))
        with _ONE_AT_A_TIME, before:  # torch.cuda.graph stays on its own stream where it fails
            try:
                # "thread_local": other threads may do with the device what a recording thread may not.
                with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                    result = run()
            except RuntimeError:
                self._clean_up()
                raise

        def replay() -> Tensor:
            graph.replay()
            return result.clone()  # the next replay overwrites it

        return replay

    def _clean_up(self) -> None:
        """Ends what torch (2.13) leaves open where a recording fails.

        Its allocator would still see a recording, on which the next `empty_cache` would fail; and the generator of
        random numbers is only released by a recording that succeeds, hence the empty one.
        """
        with suppress(RuntimeError):  # the recording was ended
            torch._C._cuda_endAllocateToPool(self.stream.device_index, self.pool)
            torch._C._cuda_releasePool(self.stream.device_index, self.pool)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self.stream):
            graph.capture_begin(capture_error_mode="thread_local")
            torch.zeros(1, device=self.stream.device)
            graph.capture_end()
