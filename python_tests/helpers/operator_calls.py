"""One small valid call of every operator of torch.ops.tad_ext."""

from typing import Any

import torch
from op_checks import random_entries
from torch import Tensor

import tad_ext.ops  # noqa: F401 - registers them

NAMES = sorted(
    name.removeprefix("tad_ext::") for name in torch._C._dispatch_get_all_op_names() if name.startswith("tad_ext::")
)


def operator(name: str) -> Any:
    return getattr(torch.ops.tad_ext, name).default


def arguments_of(name: str, device: str) -> dict[str, Any]:
    """An operator's arguments by name, in order; no tensor is missing."""
    values = _values(name, device)
    return {argument.name: values[argument.name] for argument in operator(name)._schema.arguments}


def _values(name: str, device: str) -> dict[str, Any]:
    student, teacher, labels, steps = random_entries(6, 9, torch.float32, device)
    head = random_entries(9, 9, torch.float32, device, seed=1)[0]
    integers = {"dtype": torch.int64, "device": device}
    rows, ones = torch.arange(6, **integers), torch.ones(2, **integers)
    reals = {"ce_weight": 1.0, "kl_weight": 0.5, "temperature": 1.5, "value": 1.0}
    thresholds = {"block_add_threshold": 1.0, "decoded_token_threshold": 1.0}
    numbers = {"delta": 2, "chunk_rows": 4, "block_length": 3, "mask_token_id": 8, "eos_token_ids": [], "rule": "topk"}
    numbers |= {"forced_progress": "row", "top_k": 3, "top_p": 0.9}
    flags = {"with_gradient": True, "hidden_grad": True, "weight_grad": True, "dtype": torch.float32}
    loss = {
        "grad_loss": torch.tensor(0.5, device=device),
        "student_logits": student,
        "teacher_logits": teacher,
        "student_hidden": student,
        "teacher_hidden": teacher,
        "lm_head_weight": head,
        "grad_hidden": student.clone(),
        "grad_weight": head.clone(),
        "labels": labels,
        "steps_to_reveal": steps,
        "row_weight": torch.ones(6, device=device),
        "student_rows": rows,
        "teacher_rows": rows,
        "near_count": torch.tensor(3.0, device=device),
        "distant_count": torch.tensor(2.0, device=device),
        "gradient": student.clone(),
    }
    rest = {
        "logits": student,
        "rows": rows,
        "grad": student.clone(),
        "normalizers": torch.ones(6, 2, device=device),
        "suppress_tokens": torch.tensor([8], device=device),
        "query_tokens": torch.tensor([1, 2], device=device),
        "seeds": torch.zeros((), **integers),
        "offsets": torch.zeros((), **integers),
    }
    canvas = {
        "canvas": torch.full((2, 6), 8, **integers),
        "reveal_step": torch.zeros(2, 6, **integers),
        "forwards": torch.zeros(2, **integers),
        "blocks": ones,
        "done": torch.zeros(2, dtype=torch.bool, device=device),
        "positions": torch.arange(6 if name == "eligible_positions" else 3, **integers).repeat(2, 1),
        "tokens": torch.ones(2, 3, **integers),
        "top_tokens": torch.ones(2, 3, **integers),
        "score": torch.ones(2, 3, device=device),
        "accept": torch.ones(2, 3, dtype=torch.bool, device=device),
    }
    return {**reals, **thresholds, **numbers, **flags, **loss, **rest, **canvas}


def on_device(arguments: dict[str, Any], device: str, *names: str) -> dict[str, Any]:
    """The same with the named tensors, or all where none is named, on another device."""
    return {
        name: value.to(device) if isinstance(value, Tensor) and (not names or name in names) else value
        for name, value in arguments.items()
    }


def tensors_of(result: Any) -> list[Tensor]:
    """What an operator returned, as a list."""
    return [result] if isinstance(result, Tensor) else list(result or ())
