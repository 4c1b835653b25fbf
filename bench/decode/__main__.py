"""Times decoding end to end: tad_ext under each cache scheme, and the published loop beside it in the same run.

    python -m bench.decode                  # what the machine can do: a small model on a CPU, LLaDA-8B on a GPU
    python -m bench.decode --shape dream-7b --batch 1 --batch 8 --cache dual --result FILE.json

Models have random weights, made on the device. Random logits are never confident, so the number of tokens that each
forward reveals is replayed from bench/decode/schedule.json; the model chooses which. The published loop (LLaDA's own
arithmetic: logits of all positions, float64 softmax, host syncs) reveals the same numbers, one sequence at a time.
Lines with "topk:5" decode by that policy: all that tad_ext does behind the head is one operator there.

Times are of whole steps and of their parts. "layers": the model without its head; "neither": everything but layers and
head. On a GPU, one row at a time is also decoded with CUDA graphs: steps without parts, and the rate of the median one.
Put the file into bench/results/ to have `python -m bench.report` include it.
"""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from ..machine import describe_run, gpu_status
from ..report.decoding import decoding_tables
from ..results import write_json
from .replay import Schedule
from .runs import PUBLISHED, DecodeBench, DecodeCase, Sizes
from .shapes import SHAPES, random_model

CACHES = ("none", "prefix", "dual", "delayed")
BATCHED = ("none", "dual")  # of these the larger batches, topk and, on a GPU, CUDA graphs, unless options say otherwise


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 1 if anything could not be measured."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    groups: list[dict[str, Any]] = []
    run = describe_run(options.device) | {"transformers": transformers.__version__}
    for shape in options.shape:
        groups.append(measure(shape, options))
        print(decoding_tables(groups[-1], parts=True), flush=True)
        if options.result:
            write_json(options.result, {"run": run, "decoding": groups})
    return 1 if any("error" in line for group in groups for line in group["lines"]) else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, with defaults that fit the device."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.decode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    several: dict[str, Any] = {"action": "append", "help": "may be given several times"}
    parser.add_argument("--shape", choices=SHAPES, **several)
    parser.add_argument("--cache", metavar="SCHEME", **several)
    parser.add_argument("--batch", type=int, **several)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default float32 on a CPU, bfloat16 on a GPU")
    parser.add_argument("--prompt-length", type=int, default=150, help="default 150")
    parser.add_argument("--gen-length", type=int, default=256, help="default 256")
    parser.add_argument("--block-length", type=int, help="default 32 on a CPU, 64 on a GPU")
    parser.add_argument("--temperature", type=float, default=0.0, help="default 0, greedy")
    parser.add_argument("--forwards", type=int, help="most of a run without a cache; default 6 on a CPU, 20 on a GPU")
    parser.add_argument("--seconds", type=float, help="rounds of a shape; default 90 on a CPU, 20 on a GPU")
    parser.add_argument("--threads", type=int, help="CPU threads; default 2 on a CPU")
    parser.add_argument("--quick", action="store_true", help="a tiny model: whether it runs, not how fast")
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write machine, sizes and results as JSON")
    options = parser.parse_args(arguments)
    gpu = torch.device(options.device).type == "cuda"
    if options.quick:
        options.shape, options.prompt_length, options.gen_length, options.block_length = ["tiny"], 10, 32, 16
        options.seconds = 0.0
    options.cases = cases(options, gpu)
    defaults = {
        "shape": ["llada-8b"] if gpu else ["cpu"],
        "dtype": "bfloat16" if gpu else "float32",
        "block_length": 64 if gpu else 32,
        "forwards": 20 if gpu else 6,
        "seconds": 20.0 if gpu else 90.0,
        "threads": None if gpu else 2,
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.gen_length % options.block_length:
        parser.error(f"--gen-length {options.gen_length} is no multiple of --block-length {options.block_length}")
    return options


def cases(options: argparse.Namespace, gpu: bool) -> list[DecodeCase]:
    """The published loop, which decodes one sequence at a time, and every scheme at every batch size."""
    chosen = [DecodeCase(PUBLISHED)]
    for batch in options.batch or ([1, 32] if gpu else [1]):
        caches = options.cache or (CACHES if batch == 1 else BATCHED)
        chosen += [DecodeCase(cache, batch) for cache in caches]
        few = [cache for cache in caches if batch == 1 and cache in BATCHED]
        chosen += [DecodeCase(cache, batch, graphs=True) for cache in few if gpu]
        chosen += [
            DecodeCase(cache, batch, graphs=graphs, top_k=5) for cache in few for graphs in (False, True)[: 1 + gpu]
        ]
    return chosen


def measure(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    """A model of one shape, and its lines."""
    schedule = Schedule.recorded(options.gen_length, options.block_length)
    sizes = Sizes(
        options.prompt_length, options.gen_length, options.block_length, options.forwards, options.temperature
    )
    model = random_model(SHAPES[shape], options.device, getattr(torch, options.dtype))
    config = model.config
    group = {
        "shape": shape,
        "sizes": {
            "layers": config.num_hidden_layers,
            "width": config.hidden_size,
            "heads": config.num_attention_heads,
            "vocabulary": config.vocab_size,
        },
        "parameters": model.num_parameters(),
        "dtype": options.dtype,
        "prompt_length": options.prompt_length,
        "gen_length": options.gen_length,
        "block_length": options.block_length,
        "temperature": options.temperature,
        "schedule": schedule.source,
        "tokens_per_forward": schedule.tokens_per_forward,
        "lines": DecodeBench(model, sizes, schedule).measure(options.cases, seconds=options.seconds),
    }
    if torch.device(options.device).type == "cuda":
        del model
        gc.collect()
        torch.cuda.empty_cache()
        group["gpu_after"] = gpu_status()
    return group


if __name__ == "__main__":
    sys.exit(main())
