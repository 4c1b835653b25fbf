"""The settings of `tad evaluate`."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class EvaluateConfig:
    """What to measure: a model (with an adapter or not) on a task's problems, decoded one token per step and at a
    sweep of thresholds of one policy."""

    model: str = field(metadata={"help": "checkpoint folder of the model"})
    output: str = field(metadata={"help": "folder for evaluation.json, responses.jsonl and the PNG curves"})
    adapter: str | None = field(
        default=None, metadata={"help": "folder of a LoRA adapter to apply (merged before decoding)"}
    )
    allow_other_model: bool = field(
        default=False, metadata={"help": "apply the adapter although it was trained on another base model"}
    )
    task: str = field(default="arithmetic", metadata={"help": "task whose problems are asked: arithmetic or gsm8k"})
    data: str | None = field(
        default=None, metadata={"help": "the task's original problem file, for a task that reads one; it is the split"}
    )
    split: str = field(default="test", metadata={"help": "problems to ask: test or train"})
    limit: int | None = field(default=None, metadata={"help": "ask only this many problems; none: all of the split"})
    prompt: str = field(
        default="student", metadata={"help": "student: the question alone; teacher: with the privileged reference"}
    )
    policy: str = field(
        default="entropy", metadata={"help": "name of the sweep's unmasking policy; tad policies lists them"}
    )
    thresholds: list[float] | None = field(
        default=None,
        metadata={
            "help": "values of the policy's first parameter, one decoding run each (entropy: nats, topk: tokens, ...); "
            "none: the published ones for entropy, others for probabilities and counts"
        },
    )
    one_per_step: bool = field(
        default=True,
        metadata={"help": "also decode one token per step (topk:1), the curve's first point, at 1.0 by definition"},
    )
    gen_length: int | None = field(default=None, metadata={"help": "positions to generate; none: the task's own"})
    block_length: int | None = field(
        default=None, metadata={"help": "positions per block, a divisor of the generation length; none: the task's own"}
    )
    block_add_threshold: float = field(
        default=1.0,
        metadata={"help": "revealed share of the newest block at which the next one is added (published: 0.1)"},
    )
    decoded_token_threshold: float = field(
        default=1.0,
        metadata={
            "help": "revealed share of a block from which the next one is fully active (published: 0.95); "
            "matters to forced_progress blocks"
        },
    )
    forced_progress: str = field(
        default="row",
        metadata={
            "help": "what a forward reveals though the policy did not: row (TAD: the row's best, and the first "
            "block's), block (the first block's best) or blocks (D2F: the best of each active block)"
        },
    )
    cache: str = field(
        default="none",
        metadata={
            "help": "keys and values kept between forwards, which is faster and changes results: none, prefix, dual, "
            "delayed (each also with the forwards between refreshes, dual:8) or d3llm:DELAY,REFRESH"
        },
    )
    stop_at_eos: bool = field(default=True, metadata={"help": "finish a response at its first end-of-sequence token"})
    temperature: float = field(default=0.0, metadata={"help": "sampling temperature; 0: greedy"})
    batch_size: int = field(default=32, metadata={"help": "problems decoded at a time"})
    count: str = field(
        default="own",
        metadata={
            "help": "tokens per forward that curve, AUP and pictures go by: own (up to the end of sequence / the row's "
            "forwards) or published (text tokens / all forwards); the table has both"
        },
    )
    best_accuracy: float | None = field(
        default=None,
        metadata={
            "help": "y_max of AUP: best accuracy in percent of any method compared; none: the best of this run's points"
        },
    )
    trajectories: str | None = field(
        default=None,
        metadata={
            "help": "folder of collected trajectories: also draw the model's confidence against steps until reveal"
        },
    )
    seed: int = field(default=0, metadata={"help": "seed of the choice of problems and of sampling"})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda or cuda:N"})
    dtype: str = field(default="auto", metadata={"help": "auto (as stored), float32 or bfloat16"})
