"""How fast a training is, and how much memory it has taken: for people to watch, as no two runs have the same."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tad_ext.distillation.samples import Sample


@dataclass(frozen=True)
class Speed:
    """Of one optimizer step, over all ranks; without evaluations and writing of files between steps."""

    states_per_second: float
    tokens_per_second: float  #: of the student's sequences, prompt and canvas, without padding; the teacher's are more
    #: Since this process began, of its own rank, in 10^9 bytes: what torch has allocated on a GPU, or, on a CPU, the
    #: process's resident set.
    peak_memory_gb: float

    @classmethod
    def of(cls, samples: Sequence[Sample], seconds: float, device: torch.device) -> "Speed":
        """Of a step on these samples that took so long."""
        trajectories = [sample.state.trajectory for sample in samples]
        tokens = sum(len(one.prompt_ids) + len(one.response_ids) for one in trajectories)
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
        return cls(len(samples) / seconds, tokens / seconds, peak / 1e9)

    def shown(self) -> dict[str, str]:
        """As the progress bar shows it."""
        return {
            "states/s": f"{self.states_per_second:.1f}",
            "tokens/s": f"{self.tokens_per_second:,.0f}",
            "GB": f"{self.peak_memory_gb:.1f}",
        }
