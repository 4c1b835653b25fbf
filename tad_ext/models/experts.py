"""Layers with experts: their fields of config.json, and how their weights are stored.

A checkpoint holds each expert's matrices by themselves, and transformers' layers those of all experts as one.
"""

from typing import Any

from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from tad_ext.models.config import OriginalConfig


class ExpertsConfig(OriginalConfig):
    """Checks the sizes that a family's `NAMES` names."""

    SIZES = (*OriginalConfig.SIZES, "moe_intermediate_size", "num_experts", "num_experts_per_tok")

    @classmethod
    def check_ranges(cls, fields: dict[str, Any]) -> None:
        """See `OriginalConfig`."""
        super().check_ranges(fields)
        if fields["num_experts_per_tok"] > fields["num_experts"]:
            most = fields["num_experts"]
            raise ValueError(
                f"num_experts_per_tok is {fields['num_experts_per_tok']}; expected at most num_experts, {most}"
            )


def store_experts_apart(class_name: str, *renamed: WeightRenaming) -> None:
    """Tells transformers what to do with a class's weights on loading and, reversed, on saving them."""
    experts = get_checkpoint_conversion_mapping("qwen3_moe")
    register_checkpoint_conversion_mapping(class_name, [*renamed, *experts], overwrite=True)
