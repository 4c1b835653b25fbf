"""Records how many tokens each forward of a decode reveals: `python -m bench.decode.record_schedule MODEL FILE`.

The model is one that `tad demo` has distilled; see replay.py for what the numbers are used for.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from tad_ext import DecodeConfig, EntropyThreshold, decode, load_model, load_tokenizer
from tad_ext.data.tasks import get_task

from .. import command_line
from ..results import write_json


def main() -> None:
    parser = command_line("bench.decode.record_schedule", __doc__)
    parser.add_argument("model", help="folder of a distilled demo model")
    parser.add_argument("file", type=Path, help="JSON file to write")
    parser.add_argument("--threshold", type=float, default=0.52, help="entropy in nats; default 0.52")
    parser.add_argument("--problems", type=int, default=8, help="canvases of one block each; default 8")
    parser.add_argument("--block-length", type=int, default=32, help="default 32")
    options = parser.parse_args()

    model, tokenizer = load_model(options.model, dtype=torch.float32, device="cpu"), load_tokenizer(options.model)
    task, policy = get_task("arithmetic"), EntropyThreshold(options.threshold)
    prompts = [task.student_prompt(one, tokenizer) for one in task.problems("test", limit=options.problems)]
    length = options.block_length
    config = DecodeConfig(gen_length=length, block_length=length, policy=policy, stop_at_eos=False)
    steps = [Counter(row) for row in decode(model, prompts, config).reveal_step.tolist()]
    blocks = [[counts[step] for step in range(1, max(counts) + 1)] for counts in steps]
    source = (
        f"recorded: `tad demo`'s distilled model ({model.num_parameters() / 1e6:.1f} million parameters) on the first "
        f"{options.problems} test problems of its task, each a canvas of one block, {policy}, no stop at the end of "
        "sequence"
    )
    write_json(options.file, {"source": source, "block_length": length, "blocks": blocks})
    print(f"{options.problems * length / sum(map(len, blocks)):.2f} tokens per forward")


if __name__ == "__main__":
    main()
