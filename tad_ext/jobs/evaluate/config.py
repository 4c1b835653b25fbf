"""The settings of `tad evaluate`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tad_ext.data.tasks.task import Split
from tad_ext.decoding.config import DecodeConfig, Text
from tad_ext.evaluation.settings import BOOTSTRAP_SAMPLES, BootstrapSamples
from tad_ext.jobs.common import ModelSettings, TaskSettings
from tad_ext.settings import Between, PathText, group, setting


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TaskSettings, ModelSettings):
    """Answers a task's problems one token per step, at every threshold of a sweep, by other policies and by presets,
    and reports accuracy, tokens per forward, tokens per second, latency and AUP (accuracy under parallelism: the area
    under the accuracy curve), with intervals. Writes evaluation.json, evaluation.md, responses.jsonl and
    accuracy_curve.png. Answers are written down as they come: a run that was stopped goes on where it was when the same
    command is given again. Processes that are given the same command, on one machine or on many that share the folder,
    share the work.
    """

    summary = "measure accuracy, tokens per forward and AUP"
    example = "tad evaluate --model runs/distilled --task gsm8k --data gsm8k_test.jsonl --output runs/evaluation"
    shared = True

    output: PathText = setting(
        help="folder for evaluation.json, evaluation.md, responses.jsonl and accuracy_curve.png; give the same one "
        "again to continue"
    )
    split: Split = setting("test", help="problems to ask")
    prompt: Literal["student", "teacher"] = setting("student", help="teacher: shown the reference; student: not")
    policy: str | None = setting(
        "entropy", help="name of the sweep's unmasking policy; tad policies lists them; none: no sweep"
    )
    thresholds: tuple[float, ...] | None = setting(
        None,
        help="values of the policy's first parameter, a run each; none: fitting ones, the published ones for entropy",
    )
    policies: tuple[Text, ...] = setting(
        (), help="further unmasking policies, such as confidence:0.9, a run each", commas=True
    )
    presets: tuple[Text, ...] = setting(
        (),
        help="published settings by their name, a run each; of other options only lengths change them; tad policies "
        "lists them",
    )
    suite: bool = setting(
        False,
        help="also every preset that the model allows, with the task's lengths, a run each: a table of them all; those "
        "that decode as another one does are left out",
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
    bootstrap_samples: BootstrapSamples = setting(
        BOOTSTRAP_SAMPLES, help="resamples of the problems that the 95 % intervals of AUP are made of"
    )
    overwrite: bool = setting(
        False, help="replace another command's evaluation in the folder, which stands until this one is complete"
    )
