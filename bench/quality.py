"""What policies, forced progress and caches cost in accuracy and gain in speed, and what a batch changes, on the
embedded arithmetic task: the tables of docs/decoding.md.

    tad demo --output runs/demo
    python -m bench.quality --model runs/demo/distilled

Every policy decodes block by block. Forced progress and caches are measured under the policy of --policy, several
blocks at a time, caches one row at a time. Computed columns are those that went through the model, as a share of what
whole rows would have been.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import get_args

from torch import nn

from tad_ext import DecodeConfig, decode, load_model, load_tokenizer, parse_cache, parse_policy
from tad_ext.data.tasks import get_task
from tad_ext.ops import ForcedProgress

from .report.text import markdown_table

POLICIES = (
    "topk:1", "topk:2", "confidence:0.9", "confidence:0.7", "factor:1.0", "margin:0.8", "entropy:0.5", "entropy:0.2",
    "entropy-budget:0.1", "hierarchical", "localleap", "prophet", "sched", "credit", "klass",
)  # fmt: skip
CACHES = (
    "none", "prefix", "dual", "dual:4", "delayed:32,2", "delayed:8,2", "delayed:32,1", "d3llm:2,3", "d3llm:1,never",
    "d3llm:2,4",
)  # fmt: skip


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="checkpoint folder, trained on the embedded task")
    parser.add_argument("--problems", type=int, default=400, help="of the test split")
    parser.add_argument("--block-length", type=int, default=7, help="a divisor of the task's generation length, 28")
    parser.add_argument("--policy", default="entropy:0.5", help="that caches are measured with")
    options = parser.parse_args()
    task, tokenizer = get_task("arithmetic"), load_tokenizer(options.model)
    model, problems = load_model(options.model), task.problems("test", limit=options.problems)
    prompts = [task.student_prompt(problem, tokenizer) for problem in problems]

    def measured(config: DecodeConfig) -> list[str]:
        """Accuracy in percent, tokens per forward, share of the columns that were computed."""
        with _CountedColumns(model.model.norm) as columns:
            result = decode(model, prompts, config)
        texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in result.responses()]
        right = sum(task.is_correct(problem, text) for problem, text in zip(problems, texts, strict=True))
        whole = sum(
            (length + config.gen_length) * forwards
            for length, forwards in zip(result.prompt_lengths, result.forwards.tolist(), strict=True)
        )
        share = f"{100 * columns.count / whole:.0f} %"
        return [f"{100 * right / len(problems):.1f}", f"{result.mean_tokens_per_forward():.2f}", share]

    def differing(dtype: str) -> str:
        narrow = load_model(options.model, dtype=dtype)
        one, many = (decode(narrow, prompts, replace(several, batch_size=size)).sequences for size in (1, 32))
        return f"{sum(a != b for a, b in zip(one, many, strict=True))} of {len(prompts)}"

    config = DecodeConfig(gen_length=task.gen_length, block_length=options.block_length)
    several = replace(
        config, policy=parse_policy(options.policy), block_add_threshold=0.1, decoded_token_threshold=0.95
    )
    alone = replace(several, batch_size=1)
    header = ["accuracy, %", "tokens / forward", "computed columns"]

    rows = [[f"`{name}`", *measured(replace(config, policy=parse_policy(name)))[:2]] for name in POLICIES]
    print(markdown_table(["policy", *header[:2]], rows), end="\n\n", flush=True)
    rows = [[f"`{name}`", *measured(replace(several, forced_progress=name))[:2]] for name in get_args(ForcedProgress)]
    print(markdown_table(["forced progress", *header[:2]], rows), end="\n\n", flush=True)
    rows = [[f"`{name}`", *measured(replace(alone, cache=parse_cache(name)))] for name in CACHES]
    rows.append(["`none`, `hide_future_blocks`", *measured(replace(alone, hide_future_blocks=True))])
    print(markdown_table(["cache", *header], rows), end="\n\n", flush=True)
    rows = [[dtype, differing(dtype)] for dtype in ("float32", "bfloat16")]
    print(markdown_table(["dtype", "answers that differ between batches of 1 and 32"], rows))


class _CountedColumns:
    """Counts the columns that a module sees while it is entered; padding counts as well."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.count = module, 0

    def __enter__(self) -> _CountedColumns:
        self.hook = self.module.register_forward_hook(self._add)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _add(self, module: nn.Module, inputs: object, hidden: object) -> None:
        self.count += hidden.shape[0] * hidden.shape[1]


if __name__ == "__main__":
    main()
