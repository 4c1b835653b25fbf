"""The same work with its rows brought into shared memory in the other ways, in the same run."""

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..stopwatch import Implementation

LOADER = "TAD_CUDA_LOADER"  # docs/kernels.md
WAYS = {"tad_ext, a cluster for each row": "bulk", "tad_ext, by threads": "threads"}


def by_other_loaders(leaf: Tensor, work: Implementation) -> dict[str, Implementation]:
    """On a GPU, tad_ext's work of a tensor there by each loader but the default one, by its path's name; on a CPU
    nothing.
    """
    if not leaf.is_cuda:
        return {}

    def by(loader: str, function: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            before = os.environ.get(LOADER)
            os.environ[LOADER] = loader
            try:
                return function()
            finally:
                del os.environ[LOADER]
                if before is not None:
                    os.environ[LOADER] = before

        return run

    return {
        name: replace(work, run=by(loader, work.run), prepare=by(loader, work.prepare)) for name, loader in WAYS.items()
    }
