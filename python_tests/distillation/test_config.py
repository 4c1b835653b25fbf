"""Settings: the published defaults, and every bad value named."""

from typing import Any

import pytest

from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import TADSettings
from tad_ext.jobs.distill.config import DistillConfig
from tad_ext.settings import made, options_of


def config(**changes: Any) -> DistillConfig:
    return made(DistillConfig, {"model": "model", "trajectories": ("trajectories",), "output": "output"} | changes)


def test_the_defaults_are_the_published_settings() -> None:
    found = config()
    assert found.objective == "tad"
    assert found.loss == TADSettings(8, ce_weight=1.0, kl_weight=1.0, temperature=1.0, normalization="micro_batch")
    assert found.lora == LoRASettings(128, 128.0, 0.05, target_modules=None, use_dora=False, use_rslora=False)
    training = found.training
    assert (training.learning_rate, training.lr_schedule, training.warmup_steps) == (2e-5, "constant", 0)
    assert (training.weight_decay, training.max_grad_norm) == (0.01, 1.0)
    assert (training.epochs, training.max_steps, training.batch_size, training.accumulation) == (1, None, 4, 8)


def test_every_setting_is_an_option_with_help() -> None:
    assert all(option.help for option in options_of(DistillConfig))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", ""),
        ("trajectories", ()),
        ("output", ""),
        ("objective", "cross_entropy"),
        ("delta", -1),
        ("temperature", 0.0),
        ("normalization", "mean"),
        ("rank", 0),
        ("alpha", 0.0),
        ("dropout", 1.0),
        ("target_modules", []),
        ("adapter", ""),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("weight_decay", -1.0),
        ("warmup_steps", -1),
        ("lr_schedule", "exponential"),
        ("state_ratio", 0),
        ("state_ratio", 1.5),
        ("state_sampling", "random"),
        ("curriculum", "delta"),
        ("keep", "wrong"),
        ("max_grad_norm", -1.0),
        ("epochs", 0),
        ("max_steps", 0),
        ("batch_size", 0),
        ("accumulation", 2.0),
        ("seed", -1),
        ("save_every", -1),
        ("device", "tpu"),
        ("dtype", "float16"),
        ("seed", 2**64),
        ("seed", 2**62 + 1),
        ("delta", 2**64),
        ("rank", 2**31),
        ("epochs", 2**63),
        ("max_steps", 2**64),
        ("batch_size", 2**64),
        ("accumulation", 2**64),
        ("warmup_steps", 2**64),
        ("learning_rate", 1e39),
        ("learning_rate", float("inf")),
        ("weight_decay", 1e38),
        ("alpha", 1e308),
        ("ce_weight", 1e39),
        ("kl_weight", float("inf")),
        ("temperature", 1e-7),
        ("temperature", 1e7),
        ("temperature", float("nan")),
        ("dropout", float("nan")),
        ("max_grad_norm", float("inf")),
    ],
)
def test_a_bad_value_is_named(field: str, value: Any) -> None:
    with pytest.raises(TypeError if value == 2.0 else ValueError, match=f"^{field} must "):
        config(**{field: value})


def test_the_learning_rate_rises_stays_or_falls() -> None:
    constant = config(learning_rate=1.0, warmup_steps=2).training
    assert [constant.learning_rate_at(step, 5) for step in range(5)] == [0.5, 1, 1, 1, 1]
    falling = config(learning_rate=1.0, lr_schedule="linear", warmup_steps=1).training
    assert [falling.learning_rate_at(step, 5) for step in range(5)] == [1, 1, 0.75, 0.5, 0.25]
