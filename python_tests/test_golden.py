"""Cases worked by hand, in files that other implementations can read: decodes and losses."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tad_ext import DecodeConfig, decode, fused_tad_loss, reference
from tad_ext.decoding import parse_policy

GOLDEN = Path(__file__).parent / "golden"
VOCABULARY, EOS, MASK, UNUSED = 12, 9, 10, 11


def cases(name: str) -> list[Any]:
    """One test for each case of a file."""
    return [pytest.param(case, id=case["name"]) for case in json.loads((GOLDEN / f"{name}.json").read_text())["cases"]]


class Oracle:
    """A model whose predictions are a case's, whatever it is shown."""

    device = torch.device("cpu")

    def __init__(self, case: dict[str, Any]) -> None:
        self.config = SimpleNamespace(
            vocab_size=VOCABULARY,
            mask_token_id=MASK,
            eos_token_ids=[EOS],
            suppress_token_ids=[UNUSED],
            max_position_embeddings=64,
        )
        confidences = torch.tensor(case["confidences"], dtype=torch.float64)[:, None]
        probabilities = ((1 - confidences) / (VOCABULARY - 1)).repeat(1, VOCABULARY)
        probabilities.scatter_(1, torch.tensor(case["tokens"])[:, None], confidences)
        prompt = torch.full((1, VOCABULARY), 1 / VOCABULARY)
        self.logits = torch.cat((prompt, probabilities)).log().float()

    def __call__(self, input_ids: Tensor, *, lengths: Tensor | None = None, positions: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.logits[positions.clamp(min=0)])


@pytest.mark.parametrize("case", cases("decode"))
def test_decodes(case: dict[str, Any]) -> None:
    settings = case["settings"] | {"policy": parse_policy(case["settings"]["policy"])}
    result = decode(Oracle(case), [[1]], DecodeConfig(gen_length=len(case["tokens"]), **settings))
    assert result.sequences == [[1, *case["response"]]]
    assert result.reveal_step.tolist() == [case["reveal_step"]]
    assert result.forwards.tolist() == [case["forwards"]]
    assert result.tokens_per_forward.tolist() == [pytest.approx(case["tokens_per_forward"])]


@pytest.mark.parametrize("function", [fused_tad_loss, reference.fused_tad_loss], ids=["kernel", "reference"])
@pytest.mark.parametrize("case", cases("loss"))
def test_losses(case: dict[str, Any], function: Any) -> None:
    student, teacher = (
        case["temperature"] * torch.tensor(case[side], dtype=torch.float64).log() for side in ("student", "teacher")
    )
    names = ("delta", "ce_weight", "kl_weight", "temperature")
    result = function(
        student.requires_grad_(), teacher, torch.tensor(case["labels"]), torch.tensor(case["steps_to_reveal"]),
        **{name: case[name] for name in names},
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(result.loss, student)
    for name in ("ce", "kl", "loss"):
        assert getattr(result, name).item() == pytest.approx(case[name] * math.log(2), abs=1e-12), name
    torch.testing.assert_close(gradient, torch.tensor(case["gradient"], dtype=torch.float64), rtol=0, atol=1e-12)
