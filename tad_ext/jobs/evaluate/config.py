"""The settings of `tad evaluate`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.data.tasks.task import Split
from tad_ext.decoding.config import DecodeConfig, Text
from tad_ext.jobs.common import ModelSettings, TaskSettings
from tad_ext.settings import Between, PathText, group, setting


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TaskSettings, ModelSettings):
    """Answers a task's problems one token per step and at every threshold of a sweep, and reports accuracy, tokens per
    forward, tokens per second and AUP (accuracy under parallelism: the area under the accuracy curve). Writes
    evaluation.json, responses.jsonl (as they come) and accuracy_curve.png; an earlier evaluation there stands until
    this one is complete.
    """

    summary = "measure accuracy, tokens per forward and AUP"
    example = "tad evaluate --model runs/distilled --task gsm8k --data gsm8k_test.jsonl --output runs/evaluation"

    output: PathText = setting(help="folder for evaluation.json, responses.jsonl and accuracy_curve.png")
    split: Split = setting("test", help="problems to ask")
    prompt: Literal["student", "teacher"] = setting("student", help="teacher: shown the reference; student: not")
    policy: str = setting("entropy", help="name of the sweep's unmasking policy; tad policies lists them")
    thresholds: tuple[float, ...] | None = setting(
        None,
        help="values of the policy's first parameter, a run each; none: fitting ones, the published ones for entropy",
    )
    stop_strings: tuple[Text, ...] | None = setting(
        None,
        help="texts that end a response, which is cut before them; none: the task's own for --prompt-format text",
        commas=True,
    )
    one_per_step: bool = setting(True, help="also decode one token per step (topk:1): the curve's first point, at 1.0")
    decoding: DecodeConfig = group(
        DecodeConfig, without=("gen_length", "block_length", "policy", "infill", "stop_strings", "sync_every")
    )
    count: Literal["own", "published"] = setting(
        "own",
        help="tokens per forward of curve, AUP and pictures: own (up to the end of sequence / the sequence's forwards) "
        "or published (text tokens / all forwards); the table has both",
    )
    best_accuracy: Annotated[float, Between(above=0, at_most=100)] | None = setting(
        None, help="y_max of AUP: best accuracy in percent of all methods compared; none: this run's best"
    )
