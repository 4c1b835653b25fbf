"""Records how many tokens each forward of a decode reveals: `python -m bench.decode.record_schedule MODEL FILE`.

The model is one that `tad demo` has distilled; see replay.py for what the numbers are used for.
"""

from collections import Counter
from pathlib import Path

import torch

from tad_ext import DecodeConfig, EntropyThreshold, decode, load_model, load_tokenizer
from tad_ext.data.tasks import get_task

from .. import command_line
from ..results import write_json

PROBLEMS, LENGTH, POLICY = 8, 32, EntropyThreshold(0.52)

if __name__ == "__main__":
    parser = command_line("bench.decode.record_schedule", __doc__)
    parser.add_argument("model", help="folder of a distilled demo model")
    parser.add_argument("file", type=Path, help="JSON file to write")
    options = parser.parse_args()
    model, tokenizer = load_model(options.model, dtype=torch.float32, device="cpu"), load_tokenizer(options.model)
    task = get_task("arithmetic")
    prompts = [task.student_prompt(one, tokenizer) for one in task.problems("test", limit=PROBLEMS)]
    config = DecodeConfig(gen_length=LENGTH, block_length=LENGTH, policy=POLICY, stop_at_eos=False)
    steps = [Counter(row) for row in decode(model, prompts, config).reveal_step.tolist()]
    blocks = [[counts[step] for step in range(1, max(counts) + 1)] for counts in steps]
    source = (
        f"recorded: `tad demo`'s distilled model ({model.num_parameters() / 1e6:.1f} million parameters) on the first "
        f"{PROBLEMS} test problems of its task, each a canvas of one block, {POLICY}, no stop at the end of sequence"
    )
    write_json(options.file, {"source": source, "block_length": LENGTH, "blocks": blocks})
    print(f"{PROBLEMS * LENGTH / sum(map(len, blocks)):.2f} tokens per forward")
