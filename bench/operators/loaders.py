"""The same work with its rows brought into shared memory the other way, in the same run."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..stopwatch import Implementation

LOADER = "TAD_CUDA_LOADER"  # docs/kernels.md


def by_threads(leaf: Tensor, work: Implementation) -> dict[str, Implementation]:
    """On a GPU, tad_ext's work of a tensor there without bulk copies, by its path's name; on a CPU nothing."""
    if not leaf.is_cuda:
        return {}

    def without_bulk_copies(function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            before = os.environ.get(LOADER)
            os.environ[LOADER] = "threads"
            try:
                return function()
            finally:
                del os.environ[LOADER]
                if before is not None:
                    os.environ[LOADER] = before

        return run

    changed = {name: without_bulk_copies(getattr(work, name)) for name in ("run", "prepare")}
    return {"tad_ext, by threads": replace(work, **changed)}
