"""The settings of the evaluation of a model while it is trained, on a task that it is not trained on; without torch."""

from dataclasses import dataclass, fields
from typing import Literal

from tad_ext.data.tasks.task import Split, TaskName
from tad_ext.decoding.config import PolicyText
from tad_ext.settings import Count, Index, PathText, Settings, setting


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """When the model in training answers problems, which ones, and how. What is not set here is as the preset `tad`."""

    evaluate_every: Index = setting(
        0, help="answer held-out problems every so many optimizer steps, and at the end; 0: never"
    )
    evaluate_task: TaskName | None = setting(None, help="task whose problems these are")
    evaluate_data: PathText | None = setting(None, help="its problem file, or hub, as tad evaluate takes it")
    evaluate_split: Split = setting("test", help="problems of which split; none of them may be trained on")
    evaluate_limit: Count = setting(100, help="number of problems, the same ones every time")
    evaluate_prompt_format: Literal["chat", "text"] = setting(
        "chat", help="chat (the tokenizer's template) or text (plain)"
    )
    evaluate_gen_length: Count | None = setting(None, help="positions to generate; none: the task's own")
    evaluate_block_length: Count | None = setting(None, help="positions per block; none: the task's own")
    evaluate_policy: PolicyText = setting(
        "entropy:0.5", help="unmasking policy; several blocks at a time and on behind the end of sequence, as published"
    )
    evaluate_batch_size: Count = setting(32, help="problems decoded at a time, per device")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluate_every and self.evaluate_task is None:
            raise ValueError(f"evaluate_every is {self.evaluate_every} and evaluate_task is none; expected a task")
        for name, value, default in ((one.name, getattr(self, one.name), one.default) for one in fields(self)):
            if not self.evaluate_every and str(value) != str(default):
                raise ValueError(f"{name} is {value} and evaluate_every is 0, never; expected a number of steps")
