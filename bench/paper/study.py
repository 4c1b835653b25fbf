"""What is the same in every cell of the study. It was fixed before the study's runs, by a pilot on a base of its own.

Every number of it goes into every result, and results of different settings are never put into one table.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from tad_ext.evaluation.results import ONE_PER_STEP
from tad_ext.evaluation.runs import sweep

TASK = "arithmetic"


@dataclass(frozen=True)
class Study:
    """All of its numbers."""

    # The base model: knowledge of operation F is in the references alone (`rare_weight` 0), so that privilege is worth
    # something: with the task's own 0.05 a training without any reference gains as much.
    pretrain_steps: int = 2500
    pretrain_batch_size: int = 64
    rare_weight: float = 0.0
    short_share: float = 0.0
    reference_share: float = 0.3
    hidden_size: int = 96
    layers: int = 3
    heads: int = 3

    # Trajectories: one greedy answer to each problem, one token per forward; right ones are kept, as published.
    problems: int = 1200
    keep: str = "correct"

    # Training, the same steps for all: of TAD, 1,200 trajectories of 28 states each are 525 steps of 64, one epoch.
    steps: int = 500
    batch_size: int = 64
    rank: int = 32
    learning_rate: float = 1e-3
    lr_schedule: str = "cosine"
    normalization: str = "tokens"

    # The paper's two models. Its canvas is 256 in blocks of 32, this one's 28 in blocks of 14.
    quality_delta: int = 4
    speed_delta: int = 8

    # Evaluation, on problems of the test split, greedy, block by block.
    evaluated: int = 2000
    evaluation_seed: int = 1000
    decode_batch_size: int = 128
    entropies: tuple[float, ...] = (0.1, 0.3, 0.5, 0.65, 0.8, 1.2)
    probabilities: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    decay_trajectories: int = 400

    def values(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def by_entropy(self) -> list[str]:
        """The policies of the sweep that every trained model is decoded by: TAD's, d3LLM's and dParallel's."""
        return [ONE_PER_STEP, *sweep("entropy", self.entropies)]

    @property
    def by_confidence(self) -> list[str]:
        """Those of Fast-dLLM."""
        return [ONE_PER_STEP, *sweep("confidence", self.probabilities)]


STUDY = Study()

# On the study's task confidence does not fall with the steps until a token is revealed, and the paper's rule finds no
# delta. Where half of the steps leave out their input, it falls.
VARIED = replace(STUDY, short_share=0.5)

# In a pilot another objective was the best where there were few problems.
FEW = replace(STUDY, problems=200, steps=250)

FULL_BASES, FULL_SEEDS = (0, 1, 2), (0, 1)
SHORT_BASES, SHORT_SEEDS = (0,), (0,)

# The whole machinery in seconds. Nothing is right after so little training, so wrong answers are kept, too.
QUICK = replace(
    STUDY,
    pretrain_steps=2,
    pretrain_batch_size=4,
    hidden_size=12,
    layers=1,
    heads=1,
    problems=6,
    keep="all",
    steps=2,
    batch_size=4,
    rank=2,
    evaluated=12,
    entropies=(0.5, 3.0),
    probabilities=(0.5, 0.01),
    decay_trajectories=4,
)
