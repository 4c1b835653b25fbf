"""Times optimizer steps of distillation: `python -m bench.train --result FILE`.

The trainer, LoRA and settings of `tad distill` with the published numbers, on a model with random weights and random
trajectories: 150 tokens of prompt, 256 of canvas, one position a step. Beside it the same loop with the loss in plain
PyTorch, whose logits exist as a whole. A step is all that happens between two records: states made, teacher and student
forwards, loss, backward, AdamW.
"""

import gc
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import torch
from accelerate import Accelerator

from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.states import TrajectoryStates
from tad_ext.distillation import tad
from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import TrainingSettings
from tad_ext.distillation.trainer import train
from tad_ext.models.lora import add_lora
from tad_ext.ops import reference

from . import command_line
from .decode.shapes import LLADA_8B, TINY, random_model
from .machine import launch_plans
from .results import Line, attempt, failed_lines, write_json

PROMPT, REFERENCE, CANVAS = 150, 130, 256  # tokens; the teacher's prompt has the reference besides


def main(arguments: list[str] | None = None) -> int:
    """The file is written anew after every line. Returns the exit code: 1 if anything could not be measured."""
    parser = command_line("bench.train", __doc__, device="cuda")
    parser.add_argument("--result", type=Path, required=True, help="file to write")
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of each line, the first not timed")
    options = parser.parse_args(arguments)
    shape = TINY if options.quick else LLADA_8B
    training = TrainingSettings(max_steps=options.steps, **({"accumulation": 1} if options.quick else {}))
    lines: list[Line] = []
    document: dict[str, Any] = {
        "shape": {name: shape[name] for name in ("d_model", "n_layers", "n_heads", "mlp_hidden_size", "vocab_size")},
        "rank": LoRASettings.rank,
        "states": training.batch_size * training.accumulation,
        "micro_batch": training.batch_size,
        "positions": PROMPT + CANVAS,
        "launch_plans": launch_plans(options.device),
        "training": lines,
    }
    losses = {"tad_ext": tad.fused_linear_tad_loss, "loss in PyTorch": reference.fused_linear_tad_loss}
    for path, loss in losses.items():
        with mock.patch.object(tad, "fused_linear_tad_loss", loss):
            lines.append(attempt(path, partial(measure, shape, training, options.device)))
        print(lines[-1], flush=True)
        write_json(options.result, document)
    return 1 if failed_lines(document) else 0


def measure(shape: dict[str, Any], training: TrainingSettings, device: str) -> Line:
    """A model, adapted afresh, and its steps, with the same random numbers every time."""
    # 1. The model and what it learns from.
    torch.manual_seed(0)
    gpu = torch.device(device).type == "cuda"
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
    model = random_model(shape, device, torch.bfloat16 if gpu else torch.float32)
    adapted = add_lora(model, **asdict(LoRASettings()))
    states = TrajectoryStates(random_trajectories(shape), mask_token_id=shape["mask_token_id"])

    # 2. The steps.
    before = torch.cuda.memory_allocated() if gpu else 0
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    accelerator = Accelerator(cpu=not gpu, mixed_precision="no")
    times, began = [], time.perf_counter()
    for record in train(tad.TADObjective(adapted, tad.TADSettings()), states, training, accelerator):
        times.append(time.perf_counter() - began)  # the record's numbers were waited for
        loss, began = record.loss, time.perf_counter()

    # 3. Student forward, gradients of its activations, teacher's forward; the head at about half of the canvas.
    work = 2 * flops(shape, PROMPT + CANVAS, CANVAS // 2) + flops(shape, PROMPT + REFERENCE + CANVAS, CANVAS // 2)
    rows, seconds = training.batch_size * training.accumulation, median(times[1:])
    return {
        "median_ms": seconds * 1e3,
        "best_ms": min(times[1:]) * 1e3,
        "steps": len(times) - 1,
        "states_per_second": rows / seconds,
        "flops": rows * work,
        "weights_bytes": sum(weights.nbytes for weights in adapted.parameters()),
        "peak_bytes": torch.cuda.max_memory_allocated() - before if gpu else None,
        "loss": loss,
    }


def flops(shape: dict[str, Any], positions: int, head_rows: int) -> int:
    """Operations in the matrix products of one sequence's forward: a multiplication and an addition count as two."""
    width, layers = shape["d_model"], shape["n_layers"]
    keys = width * shape["n_kv_heads"] // shape["n_heads"]
    weights_of_layer = 2 * width * width + 2 * width * keys + 3 * width * shape["mlp_hidden_size"]
    attention = 4 * positions * positions * width  # scores, and their products with the values
    head = 2 * head_rows * width * shape["vocab_size"]
    return layers * (2 * positions * weights_of_layer + attention) + head


def random_trajectories(shape: dict[str, Any]) -> list[Trajectory]:
    """Eight trajectories of random tokens, revealed in a random order."""
    generator = np.random.default_rng(0)
    random_tokens = partial(generator.integers, min(shape["mask_token_id"], shape["eos_token_id"]))
    same = {"sample": 0, "task": "random", "num_steps": CANVAS, "correct": True, "answer": None, "reference": ""}
    return [
        Trajectory(
            id=str(index),
            prompt_ids=random_tokens(size=PROMPT),
            teacher_prompt_ids=random_tokens(size=PROMPT + REFERENCE),
            response_ids=random_tokens(size=CANVAS),
            reveal_step=1 + generator.permutation(CANVAS),
            **same,
        )
        for index in range(8)
    ]


if __name__ == "__main__":
    raise SystemExit(main())
