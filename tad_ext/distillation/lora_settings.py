"""The settings of the adapter that is trained, as published; without torch."""

from dataclasses import dataclass
from typing import Annotated

from tad_ext.settings import Between, Count, Positive, Settings, setting


@dataclass(frozen=True)
class LoRASettings(Settings):
    """What `lora.add_lora` makes of a model; the defaults are those published for TAD (arXiv 2605.09536)."""

    rank: Count = setting(128, help="rank of the LoRA adapter")
    alpha: Positive = setting(128.0, help="scale of the adapter; its output is multiplied by alpha / rank")
    dropout: Annotated[float, Between(0, below=1)] = setting(0.05, help="dropout on the adapter's input")
    target_modules: tuple[str, ...] | None = setting(
        None, help="names of the linear layers to adapt, each must exist in the model; none: all of every layer"
    )
    use_dora: bool = setting(False, help="DoRA: a trained length of each output's weights beside the adapter")
    use_rslora: bool = setting(False, help="rsLoRA: the scale is alpha / sqrt(rank)")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target_modules is not None and not self.target_modules:
            raise ValueError("target_modules must name at least one linear layer, got an empty list")
