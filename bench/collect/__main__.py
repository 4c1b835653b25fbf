"""Times the collection of trajectories: tad_ext in several ways, and the published loop beside it in the same run.

    python -m bench.collect                                   # a small model on a CPU, LLaDA-8B on a GPU
    python -m bench.collect --shape llada-8b --device cuda --result FILE.json
    python -m bench.collect --model runs/base --task arithmetic --problems 200

Exact ways reveal one token per step and give the published loop's trajectories: so many at a time, also at temperature
0.7. Others are faster and collect something else: responses that end at their end of sequence, caches, several tokens
per step. For these it says how much differs on the same prompts. The choices of random weights lie close together, so
how many of them differ says little; --model measures a checkpoint on a task's problems, with its teacher's prompts, and
also says how many responses are right.

A model with random weights never ends its responses: there the logit of the end of sequence is raised at lengths drawn
beforehand, 145 of 256 tokens on average. On a CPU everything is one thread, and times are its CPU seconds.
Put the file into bench/results/ to have `python -m bench.report` include it.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from tad_ext.data.tasks.task import get_task

from .. import command_line
from ..decode.shapes import SHAPES
from ..machine import describe_run, gpu_status
from ..report.tables import collection_table
from ..results import failed_lines, write_json
from .runs import PUBLISHED_FORWARDS, CollectBench, CollectCase
from .subjects import Sizes, checkpoint_subject, random_subject

BATCHES, COMPARED = (1, 4, 16), 2
SAMPLING = 0.7  # the published temperature for math


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if anything could not be measured."""
    gpu_there = torch.cuda.is_available()
    parser = command_line("bench.collect", __doc__, device="cuda" if gpu_there else "cpu")
    parser.add_argument("--shape", choices=SHAPES, help="random weights; default llada-8b on a GPU, else cpu")
    parser.add_argument("--model", metavar="FOLDER", help="a checkpoint instead")
    parser.add_argument("--task", default="arithmetic", help="whose training problems it answers; default arithmetic")
    parser.add_argument("--data", metavar="FILE", help="the task's problem file, if it reads one")
    parser.add_argument("--problems", type=int, default=200, help="to compare answers to; default 200")
    parser.add_argument("--gen-length", type=int, help="default: the task's; with random weights 256")
    parser.add_argument("--block-length", type=int, help="default: the task's; with random weights 32")
    parser.add_argument("--batch", type=int, action="append", help="may be given several times; default 1, 4, 16")
    parser.add_argument("--turns", type=int, default=3, help="of which the median is taken; default 3")
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write machine, sizes and results as JSON")
    options = parser.parse_args(arguments)
    gpu, batches = torch.device(options.device).type == "cuda", options.batch or list(BATCHES)
    if not gpu:
        torch.set_num_threads(1)

    prompts = 2 * max(batches)
    if options.model:
        task, compared = get_task(options.task, data=options.data), options.problems
        sizes = Sizes(options.gen_length or task.gen_length, options.block_length or task.block_length)
        subject = checkpoint_subject(options.model, options.device, task, sizes, prompts=max(compared, prompts))
    else:
        shape, dtype = options.shape or ("llada-8b" if gpu else "cpu"), torch.bfloat16 if gpu else torch.float32
        sizes, prompt_length, compared = Sizes(options.gen_length or 256, options.block_length or 32), 300, COMPARED
        if options.quick:
            shape, sizes, prompt_length = "tiny", Sizes(32, 16), 10
        subject = random_subject(shape, options.device, dtype, sizes, prompt_length=prompt_length, prompts=prompts)
    document: dict[str, Any] = {
        "run": describe_run(options.device) | {"transformers": transformers.__version__},
        "subject": subject.name,
        "prompt_length": round(sum(map(len, subject.prompts)) / len(subject.prompts)),
        **vars(subject.sizes),
        "published_forwards": PUBLISHED_FORWARDS,
        "compared": compared,
    }
    bench = CollectBench(subject, compared=compared)
    for lines in bench.measure(cases(batches), options.turns):
        document |= {"collection": lines, **({"gpu_after": gpu_status()} if gpu else {})}
        if options.result:
            write_json(options.result, document)
    print("\n\n".join(collection_table(document)))
    return 1 if failed_lines(document) else 0


def cases(batches: list[int]) -> list[CollectCase]:
    """The published loop, the exact way at every batch size, and the others at the middle one."""
    middle = sorted(batches)[len(batches) // 2]
    return [
        CollectCase(published=True),
        CollectCase(published=True, wide=False),
        CollectCase(published=True, temperature=SAMPLING),
        *map(CollectCase, batches),
        CollectCase(middle, SAMPLING),
        CollectCase(middle, stop_at_eos=True),
        CollectCase(middle, cache="prefix"),
        CollectCase(middle, cache="dual"),
        CollectCase(middle, top_k=2),
        CollectCase(middle, top_k=4),
    ]


if __name__ == "__main__":
    sys.exit(main())
