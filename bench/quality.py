"""What policies, forced progress and caches cost in accuracy and gain in speed, and what a batch changes, on the
embedded arithmetic task: the tables of docs/decoding.md.

    tad demo --output runs/demo
    python -m bench.quality --model runs/demo/distilled

Every policy decodes block by block. Forced progress and caches are measured under the policy of --policy, several
blocks at a time, caches one row at a time. Computed columns are those that went through the model, as a share of what
whole rows would have been.
"""

from dataclasses import replace
from typing import get_args

from tad_ext import DecodeConfig, decode, load_model, load_tokenizer, parse_cache, parse_policy
from tad_ext.data.tasks.task import get_task
from tad_ext.ops import ForcedProgress

from . import command_line
from .report.tables import markdown_table

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
    parser = command_line("bench.quality", __doc__)
    parser.add_argument("--model", required=True, help="checkpoint folder, trained on the embedded task")
    parser.add_argument("--problems", type=int, default=400, help="of the test split")
    parser.add_argument("--block-length", type=int, default=7, help="a divisor of the task's generation length, 28")
    parser.add_argument("--policy", default="entropy:0.5", help="that caches are measured with")
    options = parser.parse_args()
    task, tokenizer = get_task("arithmetic"), load_tokenizer(options.model)
    model, problems = load_model(options.model), task.problems("test", limit=options.problems)
    prompts = [task.student_prompt(problem, tokenizer) for problem in problems]
    columns: list[int] = []  # of every forward, padding included
    model.model.norm.register_forward_hook(lambda module, inputs, hidden: columns.append(hidden[..., 0].numel()))

    def measured(config: DecodeConfig) -> list[str]:
        """Accuracy in percent, tokens per forward, share of the columns that were computed."""
        columns.clear()
        result = decode(model, prompts, config)
        texts = [tokenizer.decode(tokens, skip_special_tokens=True) for tokens in result.responses()]
        right = sum(map(task.is_correct, problems, texts))
        rows = zip(prompts, result.forwards.tolist(), strict=True)
        whole = sum((len(prompt) + config.gen_length) * forwards for prompt, forwards in rows)
        share = f"{100 * sum(columns) / whole:.0f} %"
        return [f"{100 * right / len(problems):.1f}", f"{result.mean_tokens_per_forward():.2f}", share]

    def differing(dtype: str) -> str:
        narrow = load_model(options.model, dtype=dtype)
        one, many = (decode(narrow, prompts, replace(several, batch_size=size)).sequences for size in (1, 32))
        return f"{sum(a != b for a, b in zip(one, many, strict=True))} of {len(prompts)}"

    config = DecodeConfig(gen_length=task.gen_length, block_length=options.block_length)
    policy = parse_policy(options.policy)
    several = replace(config, policy=policy, block_add_threshold=0.1, decoded_token_threshold=0.95)
    alone = replace(several, batch_size=1)
    tables = {
        "policy": {name: replace(config, policy=parse_policy(name)) for name in POLICIES},
        "forced progress": {name: replace(several, forced_progress=name) for name in get_args(ForcedProgress)},
        "cache": {name: replace(alone, cache=parse_cache(name)) for name in CACHES}
        | {"none`, `hide_future_blocks": replace(alone, hide_future_blocks=True)},
    }
    for name, configs in tables.items():
        header = [name, "accuracy, %", "tokens / forward", *["computed columns"] * (name == "cache")]
        rows = [[f"`{value}`", *measured(config)][: len(header)] for value, config in configs.items()]
        print(markdown_table(header, rows), end="\n\n", flush=True)
    rows = [[dtype, differing(dtype)] for dtype in ("float32", "bfloat16")]
    print(markdown_table(["dtype", "answers that differ between batches of 1 and 32"], rows))


if __name__ == "__main__":
    main()
