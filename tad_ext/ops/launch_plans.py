"""How the loss's CUDA kernel works on a row of the usual sizes; otherwise only its time would show it."""

from dataclasses import dataclass

import torch

from .library import _module

VOCABULARIES = (126_464, 152_064)  # LLaDA's, Dream's


@dataclass(frozen=True)
class LaunchPlan:
    """`cluster_blocks` share a row; each keeps `kept_bytes` of it in shared memory, or reads it twice where these are
    0; a multiprocessor works on `blocks_per_multiprocessor` at a time.
    """

    vocabulary: int
    dtype: str
    teacher: bool
    cluster_blocks: int
    kept_bytes: int
    blocks_per_multiprocessor: int

    @property
    def row(self) -> str:
        """What is worked on."""
        return f"{self.vocabulary:,} columns of {self.dtype}{', with a teacher' if self.teacher else ''}"

    @property
    def work(self) -> str:
        """How."""
        blocks = "one block" if self.cluster_blocks == 1 else f"cluster of {self.cluster_blocks} blocks"
        memory = f"{self.kept_bytes:,} bytes kept by each" if self.kept_bytes else "the row is read twice"
        return f"{blocks}, {memory}, {self.blocks_per_multiprocessor} at a time on a multiprocessor"

    def __str__(self) -> str:
        return f"{self.row}: {self.work}"


def launch_plans(device: torch.device | str = "cuda") -> list[LaunchPlan]:
    """The plans for the usual rows on a GPU, gradient included; none on a CPU or without CUDA kernels.

    Raises:
        RuntimeError: the kernels do not run on this GPU.
    """
    if torch.device(device).type != "cuda" or _module is None or not _module.cuda_built:
        return []
    rows = [(v, dtype, teacher) for v in VOCABULARIES for dtype in ("bfloat16", "float32") for teacher in (False, True)]
    with torch.cuda.device(device):
        return [LaunchPlan(*row, *_module.tad_loss_plan(*row)) for row in rows]
