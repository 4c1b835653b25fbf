"""The settings of `tad lm-eval`."""

from dataclasses import dataclass

from tad_ext.evaluation.settings import HarnessSettings
from tad_ext.jobs.common import ModelSettings
from tad_ext.settings import Count, Index, PathText, setting


@dataclass(frozen=True, kw_only=True)
class LmEvalConfig(HarnessSettings, ModelSettings):
    """Runs tasks of lm-evaluation-harness (pip install 'tad_ext[lm-eval]'): their prompts, metrics and few-shot
    examples, with our decoding. Writes the harness's results file, in it also the tokens and forwards of every task,
    and with --log-samples the harness's samples. Code that the model writes runs in the sandbox; tasks that would run
    it elsewhere are refused. --preset takes published decoding settings by name; the defaults decode one token per
    forward, block by block. Several processes (torchrun) share the problems.
    """

    summary = "run tasks of lm-evaluation-harness"
    example = "tad lm-eval --model runs/distilled --tasks gsm8k --num-fewshot 0 --preset tad --output runs/lm_eval"
    shared = True

    tasks: tuple[PathText, ...] = setting(help="names of tasks, groups or tags, or YAML files of tasks")
    output: PathText = setting(help="folder for the results; each run adds files of its own")
    include_path: PathText | None = setting(None, help="folder with YAML files of further tasks")
    num_fewshot: Index | None = setting(None, help="examples before each question; none: the task's own number")
    limit: Count | None = setting(None, help="problems of each task, the first ones; none: all")
    apply_chat_template: bool = setting(False, help="put prompts into the tokenizer's chat template")
    fewshot_as_multiturn: bool = setting(
        True, help="with the chat template, examples are earlier turns; false: all in one message"
    )
    system_instruction: str | None = setting(None, help="system message before every prompt")
    log_samples: bool = setting(False, help="also write every prompt and response, with tokens and forwards")
    use_cache: PathText | None = setting(
        None,
        help="beginning of the names of the harness's response cache, in which a run that was stopped finds what was "
        "finished; one for each model and settings",
    )
    unprotected: bool = setting(
        False, help="run the code of responses even where not all protections from it can be had; tad doctor names them"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.tasks:
            raise ValueError("tasks must name at least one task, got an empty list")
