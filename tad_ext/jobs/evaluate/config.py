"""The settings of `tad evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.data.tasks import Split, TaskName
from tad_ext.decoding.config import DecodeConfig
from tad_ext.jobs import JobSettings
from tad_ext.settings import Between, Count, Device, DType, PathText, group, setting


@dataclass(frozen=True)
class EvaluateConfig(JobSettings):
    """Answers a task's problems one token per step and at every threshold of a sweep, and reports accuracy, tokens per
    forward, tokens per second and AUP (accuracy under parallelism: the area under the accuracy curve). Writes
    evaluation.json, responses.jsonl (as they come) and accuracy_curve.png; an earlier evaluation there stands until
    this one is complete. With --trajectories also the curve from which delta is chosen: the model's confidence in a
    token against the steps until the teacher revealed it.
    """

    summary = "measure accuracy, tokens per forward and AUP"
    example = "tad evaluate --model runs/distilled --task gsm8k --data gsm8k_test.jsonl --output runs/evaluation"

    model: PathText = setting(help="checkpoint folder of the model")
    output: PathText = setting(help="folder for evaluation.json, responses.jsonl and the PNG curves")
    adapter: PathText | None = setting(None, help="folder of a LoRA adapter to apply (merged before decoding)")
    allow_other_model: bool = setting(False, help="apply the adapter although it was trained on another base model")
    task: TaskName = setting("arithmetic", help="task whose problems are asked")
    data: PathText | None = setting(
        None, help="the task's original problem file, for a task that reads one; it is the split"
    )
    split: Split = setting("test", help="problems to ask")
    limit: Count | None = setting(None, help="ask only this many problems; none: all of the split")
    prompt: Literal["student", "teacher"] = setting(
        "student", help="student: the question alone; teacher: with the privileged reference"
    )
    teacher_prompt: Literal["user", "system"] | None = setting(
        None, help="where the teacher sees the reference, as in tad collect; none: the task's default"
    )
    policy: str = setting("entropy", help="name of the sweep's unmasking policy; tad policies lists them")
    thresholds: tuple[float, ...] | None = setting(
        None,
        help="values of the policy's first parameter, one decoding run each (entropy: nats, topk: tokens, ...); none: "
        "the published ones for entropy, others for probabilities and counts",
    )
    one_per_step: bool = setting(
        True, help="also decode one token per step (topk:1), the curve's first point, at 1.0 by definition"
    )
    gen_length: Count | None = setting(None, help="positions to generate; none: the task's own")
    block_length: Count | None = setting(
        None, help="positions per block, a divisor of the generation length; none: the task's own"
    )
    decoding: DecodeConfig = group(
        DecodeConfig, without=("gen_length", "block_length", "policy", "infill", "stop_strings", "sync_every")
    )
    count: Literal["own", "published"] = setting(
        "own",
        help="tokens per forward that curve, AUP and pictures go by: own (up to the end of sequence / the row's "
        "forwards) or published (text tokens / all forwards); the table has both",
    )
    best_accuracy: Annotated[float, Between(above=0, at_most=100)] | None = setting(
        None,
        help="y_max of AUP: best accuracy in percent of any method compared; none: the best of this run's points",
    )
    trajectories: PathText | None = setting(
        None, help="folder of collected trajectories: also draw the model's confidence against steps until reveal"
    )
    device: Device = setting("auto", help="auto, cpu, cuda or cuda:N")
    dtype: DType = setting("auto", help="auto (as stored), float32 or bfloat16")
