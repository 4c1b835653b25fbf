"""Times optimizer steps of distillation: tad_ext's trainer, and the published step beside it in the same run.

    python -m bench.train                                 # a small model on a CPU, LLaDA-8B on a GPU
    python -m bench.train --dtype bfloat16
    python -m bench.train --shape dream-7b --device cuda --peak-tflops 989 --result FILE.json

The trainer, LoRA and settings of `tad distill` with the published numbers, on a model with random weights and random
trajectories: 150 tokens of prompt, 130 more of the teacher's, 256 of canvas, one position a step. The published step
has two copies of the model, logits of every position of both, boolean masks and PyTorch's losses. A step is everything:
states made, teacher and student forwards, loss, backward, AdamW. All take it in turns, on the same states. Beside them
stand the step's matrix products alone, as PyTorch does them: no step whose products they are can be faster.

On a CPU everything is one thread, times are its CPU seconds, a step is one micro-batch of 4 states, and the adapter's
rank is 32, below the small model's width. Put the file into bench/results/ to have `python -m bench.report` include it.
"""

import sys
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
import transformers

from tad_ext.distillation.lora_settings import LoRASettings
from tad_ext.distillation.settings import TrainingSettings

from .. import command_line
from ..decode.shapes import SHAPES
from ..machine import describe_run, gpu_status
from ..report.tables import training_table
from ..results import Line, Turns, failed_lines, write_json
from .rivals import Sample, Subject, bare_products, own, published
from .work import Sizes, step_flops

PRODUCTS = "matrix products alone"
CPU_RANK = 32
SHAPE_KEYS = (
    "d_model", "hidden_size", "n_layers", "num_hidden_layers", "n_heads", "num_attention_heads", "mlp_hidden_size",
    "intermediate_size", "vocab_size",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The file is written anew after every turn. Returns the exit code: 1 if anything could not be measured."""
    gpu_there = torch.cuda.is_available()
    parser = command_line("bench.train", __doc__, device="cuda" if gpu_there else "cpu")
    parser.add_argument("--shape", choices=SHAPES, help="random weights; default llada-8b on a GPU, else cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default bfloat16 on a GPU, else float32")
    parser.add_argument("--rank", type=int, help=f"of the adapter; default {LoRASettings.rank}, on a CPU {CPU_RANK}")
    parser.add_argument("--accumulation", type=int, help="micro-batches of a step; default 8, on a CPU 1")
    parser.add_argument("--steps", type=int, default=5, help="that are timed, after one that is not; default 5")
    parser.add_argument("--peak-tflops", type=float, help="of the device: to also have FLOP/s as a share of it")
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write machine, sizes and results as JSON")
    options = parser.parse_args(arguments)
    gpu = torch.device(options.device).type == "cuda"
    if not gpu:
        torch.set_num_threads(1)

    shape = SHAPES["tiny" if options.quick else options.shape or ("llada-8b" if gpu else "cpu")]
    dtype = getattr(torch, options.dtype or ("bfloat16" if gpu else "float32"))
    accumulation = options.accumulation or (TrainingSettings.accumulation if gpu else 1)
    training = TrainingSettings(accumulation=accumulation, max_steps=options.steps + 2)  # a warm-up, and one for memory
    sizes = Sizes(rank=options.rank or (LoRASettings.rank if gpu else CPU_RANK))
    if options.quick:
        sizes = Sizes(prompt=10, reference=5, canvas=16, rank=8)
    subject = Subject(shape, options.device, dtype, training, sizes)
    document: dict[str, Any] = {
        "run": describe_run(options.device) | {"transformers": transformers.__version__},
        "shape": {name: value for name, value in shape.items() if name in SHAPE_KEYS},
        "dtype": str(dtype).removeprefix("torch."),
        "states": training.batch_size * training.accumulation,
        "micro_batch": training.batch_size,
        "positions": sizes.prompt + sizes.canvas,
        "teacher_positions": sizes.prompt + sizes.reference + sizes.canvas,
        "rank": sizes.rank,
        "peak_tflops": options.peak_tflops,
    }
    for lines in measure(subject, options.steps):
        document |= {"training": lines, **({"gpu_after": gpu_status()} if gpu else {})}
        if options.result:
            write_json(options.result, document)
    print("\n\n".join(training_table(document)))
    return 1 if failed_lines(document) else 0


def measure(subject: Subject, steps: int) -> Iterator[list[Line]]:
    """A line for each rival, after every step of all of them; the last ones have the memory of one more step."""
    ours, trainer = own(subject)
    makers = {"tad_ext": lambda: ours, "published step": partial(published, subject, trainer)}
    makers[PRODUCTS] = partial(bare_products, subject, trainer)
    turns = Turns({path: cache(make) for path, make in makers.items()})
    states = subject.training.batch_size * subject.training.accumulation
    flops = states * step_flops(trainer.objective.diffusion_model.config, subject.sizes)
    samples: list[dict[str, Sample]] = []
    peaks: dict[str, int] = {}

    def line(path: str) -> Line:
        seconds, parts, _ = zip(*(turn[path] for turn in samples), strict=True)
        numbers: Line = {"median_ms": 1e3 * median(seconds), "best_ms": 1e3 * min(seconds), "steps": len(samples)}
        numbers["parts_ms"] = {part: fmean(turn[part] for turn in parts) for part in parts[0]}
        if path == PRODUCTS:
            return numbers
        return numbers | {
            "states_per_second": states / median(seconds),
            "flops": flops,
            "weights_bytes": turns.rivals[path]().weights_bytes,
            "peak_bytes": peaks.get(path),
            "first_loss": first[path].loss,
        }

    first = turns.each(lambda rival: rival().timed_step())
    for _ in range(steps):
        samples.append(turns.each(lambda rival: rival().timed_step()))
        yield turns.lines(line)
    peaks |= turns.each(lambda rival: rival().peak_bytes())
    yield turns.lines(line)


if __name__ == "__main__":
    sys.exit(main())
