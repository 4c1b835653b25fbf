"""The settings of `tad train-filter`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.decoding.config import DecodeConfig
from tad_ext.jobs.common import ModelSettings, TaskSettings
from tad_ext.settings import Between, Count, LearningRate, PathText, Probability, Seed, fixed, group, setting


@dataclass(frozen=True, kw_only=True)
class TrainFilterConfig(TaskSettings, ModelSettings):
    """Trains the filter of the policy learn2pd (Learn2PD) for a model. The model answers problems one token per step;
    then it answers them once more, as fast as someone who knows these answers can let it, and each prediction on the
    way is right if it is the answer's token. From the confidences of a block the filter learns which predictions are.
    Some problems are held out, and what the filter makes of them is printed. Writes filter.safetensors and
    training.json.
    """

    summary = "train the filter of the policy learn2pd"
    example = "tad train-filter --model LLaDA-8B-Instruct --task gsm8k --data gsm8k_train.jsonl --output runs/filter"

    output: PathText = setting(
        help="folder for filter.safetensors and training.json; it must not exist yet, or be empty"
    )
    limit: Count | None = setting(200, help="number of problems; none: all of the split")
    teacher_prompt: Literal["user", "system", "none"] = fixed("user")  # nobody is shown the reference
    stop_at_eos: bool = setting(
        False, help="learn from nothing behind an answer's end-of-sequence token; as published: from all of the canvas"
    )
    decoding: DecodeConfig = group(DecodeConfig, only=("batch_size",))
    threshold: Probability = setting(0.96, help="probability above which the filter's acceptance is measured")
    layers: Annotated[int, Between(1, 4)] = setting(
        2, help="layers of the filter, 1 to 4, each as wide as a block; 1: logistic regression; 2: as published"
    )
    steps: Count = setting(4000, help="training steps, of at most 4096 states each")
    learning_rate: LearningRate = setting(3e-3, help="of AdamW")
    holdout: Annotated[float, Between(above=0, below=1)] = setting(0.1, help="share of the problems that are held out")
    seed: Seed = setting(0, help="of the problems, of those held out, of the first weights and of the steps' states")
