"""Times decoding end to end: tad_ext under each cache scheme, and the published loop beside it in the same run.

    python -m bench.decode                  # what the machine can do: a small model on a CPU, LLaDA-8B on a GPU
    python -m bench.decode --shape dream-7b --batch 1 --batch 8 --cache dual --result FILE.json

Models have random weights, made on the device. Random logits are never confident, so the number of tokens that each
forward reveals is replayed from bench/decode/schedule.json; the model chooses which. The published loop (LLaDA's own
arithmetic: logits of all positions, float64 softmax, host syncs) reveals the same numbers, one sequence at a time.
Lines with "topk:5" decode by that policy: all that tad_ext does behind the head is one operator there. --policy adds a
line for any other one, without a cache; "all" stands for those of all presets.

Times are of whole steps and of their parts. "layers": the model without its head; "neither": everything but layers and
head. On a GPU, one row at a time is also decoded with CUDA graphs: steps without parts, and the rate of the median one.
Put the file into bench/results/ to have `python -m bench.report` include it.
"""

import gc
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from tad_ext.decoding import PRESETS

from .. import command_line
from ..machine import describe_run, gpu_status
from ..report.tables import decoding_tables
from ..results import failed_lines, write_json
from .replay import Schedule
from .runs import PUBLISHED, DecodeBench, DecodeCase, Sizes
from .shapes import SHAPES, random_model

CACHES = ("none", "prefix", "dual", "delayed")
BATCHED = ("none", "dual")  # of these the larger batches, topk and, on a GPU, CUDA graphs, unless options say otherwise


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if anything could not be measured."""
    parser = command_line("bench.decode", __doc__, device="cuda" if torch.cuda.is_available() else "cpu")
    several: dict[str, Any] = {"action": "append", "help": "may be given several times"}
    parser.add_argument("--shape", choices=SHAPES, **several)
    parser.add_argument("--cache", metavar="SCHEME", **several)
    parser.add_argument("--batch", type=int, **several)
    parser.add_argument("--policy", metavar="TEXT", **several, default=[])
    parser.add_argument("--threads", type=int, default=2, help="on a CPU; default 2")
    parser.add_argument("--seconds", type=float, help="of a model: rounds until so long; default 20 on a GPU, else 90")
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write machine, sizes and results as JSON")
    options = parser.parse_args(arguments)
    gpu = torch.device(options.device).type == "cuda"
    if gpu:
        shape, dtype, seconds, sizes = "llada-8b", torch.bfloat16, 20.0, Sizes(block_length=64, forwards=20)
    else:
        shape, dtype, seconds, sizes = "cpu", torch.float32, 90.0, Sizes(block_length=32, forwards=6)
        torch.set_num_threads(options.threads)
    shapes, seconds = options.shape or [shape], seconds if options.seconds is None else options.seconds
    if options.quick:
        shapes, seconds, sizes = ["tiny"], 0.0, Sizes(16, 6, prompt_length=10, gen_length=32)

    schedule = Schedule.recorded(sizes.gen_length, sizes.block_length)
    run = describe_run(options.device) | {"transformers": transformers.__version__}
    document: dict[str, Any] = {"run": run, "decoding": []}
    for shape in shapes:
        bench = DecodeBench(random_model(SHAPES[shape], options.device, dtype), sizes, schedule)
        group = {"shape": shape, **bench.description}
        document["decoding"].append(group)
        chosen = [*cases(options.batch, options.cache, gpu), *policy_cases(options.policy, options.batch)]
        for lines in bench.measure(chosen, seconds=seconds):
            group |= {"lines": lines, **({"gpu_after": gpu_status()} if gpu else {})}
            if options.result:
                write_json(options.result, document)
        print("\n\n".join(decoding_tables(group, parts=True)), flush=True)
        del bench  # and with it the model, before the next one
        gc.collect()
    return 1 if failed_lines(document) else 0


def policy_cases(policies: list[str], batches: list[int] | None) -> list[DecodeCase]:
    """Each policy without a cache, at every batch size."""
    if "all" in policies:
        policies = list(dict.fromkeys(str(preset.policy) for preset in PRESETS.values()))
    return [DecodeCase("none", batch, policy=policy) for policy in policies for batch in batches or [1]]


def cases(batches: list[int] | None, caches: list[str] | None, gpu: bool) -> list[DecodeCase]:
    """The published loop, which decodes one sequence at a time, and every scheme at every batch size."""
    chosen = [DecodeCase(PUBLISHED)]
    for batch in batches or ([1, 4, 32] if gpu else [1]):
        schemes = caches or (CACHES if batch == 1 else BATCHED)
        few = [cache for cache in schemes if batch == 1 and cache in BATCHED]
        chosen += [DecodeCase(cache, batch) for cache in schemes]
        chosen += [DecodeCase(cache, graphs=True) for cache in few if gpu]
        chosen += [DecodeCase(cache, graphs=graphs, top_k=5) for cache in few for graphs in (False, True)[: 1 + gpu]]
    return chosen


if __name__ == "__main__":
    sys.exit(main())
