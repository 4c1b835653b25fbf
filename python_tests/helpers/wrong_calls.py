"""Wrong calls of every public operator, and what each one raises.

`python wrong_calls.py` prints the latter as JSON, so that a test can ask a process that uses the reference.
"""

import json
from typing import Any

import torch

from tad_ext import ops
from tad_ext.ops import DecodeState, Selection

N, V, MASK = 6, 9, 8
ONES, META = torch.ones(N, dtype=torch.int64), torch.device("meta")
TABLE, CANVAS = torch.linspace(-2, 2, N * V).view(N, V), torch.full((2, 6), MASK)


def _state(**changes: Any) -> DecodeState:
    """Two canvases of two blocks, with some fields of their state changed."""
    state = DecodeState.start(2, 6, block_length=3)
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def _right(name: str) -> dict[str, Any]:
    """The arguments of a call with nothing wrong; of canvases, which are written, new ones."""
    entries = {"labels": ONES, "steps_to_reveal": torch.arange(N), "delta": 2}
    step = dict(zip(("reveal_step", "forwards", "blocks", "done", "positions"), _state().tensors))
    choice = {"tokens": torch.ones(2, 3).long(), "score": torch.ones(2, 3), "accept": torch.ones(2, 3) > 0}
    canvas = {"canvas": CANVAS.clone(), "block_length": 3, "mask_token_id": MASK}
    arguments: dict[str, dict[str, Any]] = {
        "fused_tad_loss": {"student_logits": TABLE, "teacher_logits": TABLE, **entries},
        "fused_linear_tad_loss": {
            "student_hidden": TABLE, "teacher_hidden": TABLE, "lm_head_weight": torch.ones(V, V), **entries
        },
        "masked_log_softmax": {"logits": TABLE},
        "token_statistics": {"logits": TABLE},
        "truncate_logits": {"logits": TABLE, "temperature": 1.0},
        "commit_reveal": {**canvas, **step, **choice},
        "select_reveal": {
            "canvas": CANVAS.clone(), "logits": TABLE, "state": _state(), "selection": Selection("topk", 1),
            "mask_token_id": MASK, "suppress_tokens": torch.tensor([MASK]),
        },
        "eligible_positions": {**canvas, "blocks": torch.ones(2).long(), "positions": torch.zeros(2, 6).long()},
    }  # fmt: skip
    return arguments[name]


_LOSS: list[tuple[str, dict[str, Any]]] = [
    ("delta", {"delta": -1}),
    ("delta", {"delta": 1.5}),
    ("delta", {"delta": True}),
    ("temperature", {"temperature": 0.0}),
    ("temperature", {"temperature": float("nan")}),
    ("ce_weight", {"ce_weight": float("inf")}),
    ("kl_weight", {"kl_weight": float("nan")}),
    ("labels", {"labels": ONES.int()}),
    ("labels", {"labels": ONES * V}),
    ("labels", {"labels": ONES * -1}),
    ("labels", {"labels": ONES.to(META)}),
    ("steps_to_reveal", {"steps_to_reveal": ONES.float()}),
    ("steps_to_reveal", {"steps_to_reveal": ONES[:3]}),
    ("student", {"labels": ONES[:3], "steps_to_reveal": ONES[:3]}),
    ("row_weight", {"row_weight": ONES}),
    ("row_weight", {"row_weight": torch.ones(2)}),
    ("teacher_rows", {"teacher_rows": ONES.int()}),
    ("teacher_rows", {"teacher_rows": ONES[:3]}),
    ("teacher_rows", {"teacher_rows": ONES * N}),
    ("near_count", {"near_count": -1}),
    ("near_count", {"near_count": torch.ones(2)}),
    ("distant_count", {"distant_count": torch.tensor(float("inf"))}),
]
_STATISTICS: list[tuple[str, dict[str, Any]]] = [
    ("logits", {"logits": TABLE.long()}),
    ("temperature", {"temperature": -1.0}),
    ("temperature", {"temperature": float("inf")}),
    ("seeds", {"temperature": 1.0}),
    ("seeds", {"temperature": 1.0, "seeds": torch.ones(()), "offsets": torch.tensor(1)}),
    ("offsets", {"temperature": 1.0, "seeds": torch.tensor(1), "offsets": ONES[:5]}),
    ("suppress_tokens", {"suppress_tokens": torch.tensor([1.0])}),
    ("suppress_tokens", {"suppress_tokens": torch.tensor([MASK, V])}),
    ("suppress_tokens", {"suppress_tokens": torch.arange(V)}),
]
_CANVASES: list[tuple[str, dict[str, Any]]] = [
    ("block_add_threshold", {"block_add_threshold": 1.5}),
    ("decoded_token_threshold", {"decoded_token_threshold": -0.5}),
    ("forced_progress", {"forced_progress": "all"}),
    ("block_length", {"block_length": 4}),
    ("eos_token_ids", {"eos_token_ids": list(range(17))}),
    ("reveal_step", {"reveal_step": torch.zeros(2, 5).long()}),
    ("forwards", {"forwards": torch.zeros(2)}),
    ("blocks", {"blocks": torch.tensor([1, 3])}),
    ("done", {"done": torch.zeros(2).long()}),
    ("positions", {"positions": torch.tensor([[0, 1, 6], [0, 1, 2]])}),
    ("positions", {"positions": torch.zeros(3).long()}),
    ("positions", {"positions": torch.zeros(2, 3)}),
]
# Of each operator: the argument that an error names, and what is wrong.
CASES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "fused_tad_loss": [
        *_LOSS,
        ("student_logits", {"student_logits": TABLE.long()}),
        ("student_logits", {"student_logits": torch.tensor(1.0)}),
        ("student_logits", {"student_logits": TABLE[:, :0]}),
        ("teacher_logits", {"teacher_logits": None}),
        ("teacher_logits", {"teacher_logits": TABLE.long()}),
        ("teacher_logits", {"teacher_logits": TABLE[:, 1:]}),
        ("teacher_logits", {"teacher_logits": TABLE.to(META)}),
        ("labels", {"labels": ONES.view(3, 2), "steps_to_reveal": ONES.view(3, 2)}),
        ("student_rows", {"student_rows": ONES.float()}),
        ("student_rows", {"student_rows": ONES[:3]}),
        ("student_rows", {"student_rows": ONES * -1}),
        ("teacher", {"teacher_logits": TABLE[:2]}),
    ],
    "fused_linear_tad_loss": [
        *_LOSS,
        ("student_hidden", {"student_hidden": TABLE[:, 1:]}),
        ("student_hidden", {"student_hidden": TABLE.double()}),
        ("teacher_hidden", {"teacher_hidden": None}),
        ("teacher_hidden", {"teacher_hidden": TABLE[0]}),
        ("lm_head_weight", {"lm_head_weight": torch.ones(V)}),
        ("lm_head_weight", {"lm_head_weight": torch.nn.Linear(V, V)}),
        ("lm_head_weight", {"lm_head_weight": torch.nn.Linear(V, V, bias=False, device=META)}),
        ("chunk_rows", {"chunk_rows": 0}),
    ],
    "masked_log_softmax": [
        ("logits", {"logits": TABLE.long()}),
        ("logits", {"logits": TABLE[:, :0]}),
        ("mask", {"mask": ONES > 0, "rows": ONES}),
        ("mask", {"mask": ONES}),
        ("mask", {"mask": ONES[:3] > 0}),
        ("rows", {"rows": ONES.int()}),
        ("rows", {"rows": ONES.view(2, 3)}),
        ("rows", {"rows": ONES * -1}),
        ("rows", {"rows": ONES.to(META)}),
        ("temperature", {"temperature": 1e-7}),
        ("dtype", {"dtype": torch.int64}),
    ],
    "token_statistics": [
        *_STATISTICS,
        ("rows", {"rows": ONES.int()}),
        ("rows", {"rows": ONES * N}),
        ("rows", {"rows": ONES * -2}),
        ("query_tokens", {"query_tokens": ONES.float()}),
        ("query_tokens", {"query_tokens": torch.tensor(1)}),
        ("query_tokens", {"query_tokens": torch.ones(2, 3).long()}),
        ("query_tokens", {"query_tokens": ONES * V}),
    ],
    "truncate_logits": [
        ("logits", {"logits": TABLE.long()}),
        ("temperature", {"temperature": 0}),
        ("temperature", {"temperature": float("nan")}),
        ("top_k", {"top_k": 0}),
        ("top_p", {"top_p": 0.0}),
        ("top_p", {"top_p": 1.5}),
    ],
    "commit_reveal": [
        *_CANVASES,
        ("canvas", {"canvas": CANVAS[0]}),
        ("canvas", {"canvas": torch.full((6, 2), MASK).T}),
        ("tokens", {"tokens": torch.ones(2, 3)}),
        ("tokens", {"tokens": torch.full((2, 3), MASK), "top_tokens": torch.ones(2, 3).long()}),
        ("top_tokens", {"top_tokens": torch.full((2, 3), MASK)}),
        ("score", {"score": torch.ones(2, 3).double()}),
        ("accept", {"accept": torch.ones(2, 2) > 0}),
        ("score", {"score": torch.ones(2, 3).to(META)}),
    ],
    "select_reveal": [
        *_STATISTICS,
        *[(name, {"state": _state(**changes)}) for name, changes in _CANVASES],
        ("rule", {"selection": Selection("best", 1)}),  # type: ignore[arg-type]
        ("value", {"selection": Selection("topk", float("nan"))}),
        ("logits", {"logits": TABLE[1:]}),
        ("suppress_tokens", {"suppress_tokens": torch.tensor([1])}),
        ("suppress_tokens", {"suppress_tokens": torch.tensor([MASK, 1])}),
        ("canvas", {"canvas": torch.full((6, 2), MASK).T}),
    ],
    "eligible_positions": [
        ("canvas", {"canvas": CANVAS[0]}),
        ("canvas", {"canvas": CANVAS.float()}),
        ("block_length", {"block_length": 4}),
        ("block_length", {"block_length": 0}),
        ("positions", {"positions": torch.zeros(2, 5).long()}),
        ("positions", {"positions": torch.zeros(2, 6)}),
        ("positions", {"positions": torch.zeros(6, 2).long().T}),
        ("blocks", {"blocks": torch.ones(3).long()}),
        ("blocks", {"blocks": torch.ones(2).long().to(META)}),
    ],
}


def outcome(name: str, number: int) -> list[str]:
    """The type and the text of what a case raises, of nothing two empty words. Behind the last one nothing is wrong."""
    changes = CASES[name][number][1] if number < len(CASES[name]) else {}
    try:
        getattr(ops, name)(**{**_right(name), **changes})
    except Exception as error:  # whatever it is
        return [type(error).__name__, str(error)]
    return ["", ""]


if __name__ == "__main__":
    print(json.dumps({name: [outcome(name, number) for number in range(len(CASES[name]) + 1)] for name in CASES}))
