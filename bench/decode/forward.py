"""Times forwards of a model of LLaDA-8B's shape with random weights: `python -m bench.decode.forward --result FILE`.

Every position's logits, 32 positions' logits, and hidden states without the head, on a canvas of 406 positions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..results import write_json
from ..stopwatch import Implementation, Stopwatch
from .shapes import LLADA_8B, TINY, random_model


def main(arguments: list[str] | None = None) -> None:
    """The file is written anew after every line."""
    parser = argparse.ArgumentParser(prog="python -m bench.decode.forward", description=__doc__)
    parser.add_argument("--result", type=Path, required=True, help="file to write")
    parser.add_argument("--quick", action="store_true", help="a tiny model: whether it runs, not how fast")
    parser.add_argument("--device", default="cuda", help="default cuda")
    options = parser.parse_args(arguments)
    shape, positions, rows = (TINY, 40, 8) if options.quick else (LLADA_8B, 406, 32)

    model = random_model(shape, options.device)
    generator = torch.Generator(options.device).manual_seed(0)
    canvas = torch.randint(shape["eos_token_id"], (1, positions), generator=generator, device=options.device)
    canvas[:, positions // 2 :] = shape["mask_token_id"]
    wanted = torch.arange(positions - rows, positions, device=options.device)
    forwards: dict[str, tuple[int, Callable[[], Tensor]]] = {
        "every position's logits": (positions, lambda: model(canvas).logits),
        f"logits of {rows} positions": (rows, lambda: model(canvas, positions=wanted).logits),
        "no logits": (0, lambda: model.hidden_rows(canvas)),
    }
    document: dict[str, Any] = {
        "shape": {name: shape[name] for name in ("d_model", "n_layers", "n_heads", "mlp_hidden_size", "vocab_size")},
        "parameters": model.num_parameters(),
        "dtype": "bfloat16",
        "positions": positions,
        "forwards": [],
    }
    stopwatch = Stopwatch(options.device, evict_bytes=2**22)
    with torch.inference_mode():
        for name, (head_rows, run) in forwards.items():
            work = Implementation(run)
            # Warm: the weights are far larger than any cache, and the host must queue a whole forward in time.
            line = {"path": name, "rows": head_rows, **vars(stopwatch.time(work, cold=False))}
            line |= {"flops": flops(shape, positions, head_rows), "peak_bytes": stopwatch.peak_bytes(work)}
            document["forwards"].append(line)
            rate = line["flops"] / line["median_ms"] / 1e9
            print(f"{name}: {line['median_ms']:.3f} ms, {rate:.1f} TFLOP/s", flush=True)
            write_json(options.result, document)


def flops(shape: dict[str, Any], positions: int, head_rows: int) -> int:
    """Of the matrix products of one forward of one sequence: a multiplication and an addition count as two."""
    width, layers = shape["d_model"], shape["n_layers"]
    keys = width * shape["n_kv_heads"] // shape["n_heads"]
    weights_of_layer = 2 * width * width + 2 * width * keys + 3 * width * shape["mlp_hidden_size"]
    attention = 4 * positions * positions * width  # scores, and their products with the values
    head = 2 * head_rows * width * shape["vocab_size"]
    return layers * (2 * positions * weights_of_layer + attention) + head


if __name__ == "__main__":
    main()
