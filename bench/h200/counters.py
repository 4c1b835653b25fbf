"""What the hardware counts while each kernel runs once: `python -m bench.h200.counters --result FILE`.

Nsight Compute (`ncu`) runs this module again, with `--launch`, and measures the main kernels of each case, with emptied
caches and clocks as they are. The file holds a line for each kernel in the order of their launches, with METRICS, the
instructions per logit, and what its warps wait for most. Without ncu it says so.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import fused_tad_loss

from .. import ROOT, command_line
from ..operators.cases import BF16, FP32, LLADA_IDS_WITHOUT_TOKEN, LLADA_VOCABULARY
from ..operators.losses import tad_loss
from ..operators.workloads import log_softmax, statistics, truncation, unmask
from ..results import Line, attempt, write_json
from ..stopwatch import Workload, training_step

ROWS = 512
METRICS = {
    "duration_us": "gpu__time_duration.sum",  # in nanoseconds
    "dram_percent": "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed",
    "l2_percent": "lts__throughput.avg.pct_of_peak_sustained_elapsed",
    "issue_active_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "mufu_percent": "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active",  # conversions are among them
    "alu_percent": "sm__pipe_alu_cycles_active.avg.pct_of_peak_sustained_active",
    "fma_percent": "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
    "fp64_percent": "sm__pipe_fp64_cycles_active.avg.pct_of_peak_sustained_active",
    "warps_active_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "threads_per_instruction": "smsp__thread_inst_executed_per_inst_executed.ratio",
    "registers": "launch__registers_per_thread",
    "dynamic_shared_bytes": "launch__shared_mem_per_block_dynamic",
    "blocks": "launch__grid_size",
    "blocks_by_registers": "launch__occupancy_limit_registers",  # of a multiprocessor, as the next
    "blocks_by_shared_memory": "launch__occupancy_limit_shared_mem",
    "cluster_size": "launch__cluster_size",
    "clusters_at_once": "launch__cluster_max_active",
}
_STALL = re.compile(r"smsp__average_warps_issue_stalled_(\w+)_per_issue_active\.ratio")
_STALLS = 3  # the largest
SECTIONS = (
    "SpeedOfLight", "LaunchStats", "Occupancy", "SchedulerStats", "WarpStateStats", "ComputeWorkloadAnalysis",
    "InstructionStats",
)  # fmt: skip
LOSS, LOG_SOFTMAX, GRADIENT, STATISTICS, REVEAL, TRUNCATION = KERNELS = (
    "tad_loss_kernel", "log_softmax_kernel", "log_softmax_gradient_kernel", "slice_statistics_kernel",
    "select_reveal_kernel", "truncate_logits_kernel",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """`kernels`: those of KERNELS that one run of tad_ext's work launches, in this order, to read so many logits."""

    title: str
    kernels: Sequence[str]
    build: Callable[[], Workload]
    logits: int

    def launch(self) -> Line:
        """Runs once; what has to be known of the kernels afterwards."""
        own = self.build().implementations["tad_ext"]
        own.prepare()
        own.run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {"kernels": self.kernels, "logits": self.logits}


def cases(rows: int = ROWS, vocabulary: int = LLADA_VOCABULARY) -> list[Case]:
    """What is launched, in this order."""
    bf16, fp32 = ({"rows": rows, "dtype": dtype} for dtype in (BF16, FP32))
    near, distant = {"near": 1, "distant": 0}, {"near": 0, "distant": 1}
    both = {"positions": rows, "part": "backward"}  # it is prepared by the forward
    block = {"batch": 1, "gen_length": 256, "block_length": 32, "dtype": BF16}
    chosen: list[Any] = [
        ("CE, bfloat16", _cross_entropy, bf16, LOSS),
        ("CE beside a teacher, bfloat16", tad_loss, bf16 | near, LOSS),
        ("KL, bfloat16", tad_loss, bf16 | distant, LOSS),
        ("CE, float32", tad_loss, fp32 | near, LOSS),
        ("KL, float32", tad_loss, fp32 | distant, LOSS),
        ("log-softmax forward, then backward, bfloat16", log_softmax, bf16 | both, LOG_SOFTMAX, GRADIENT),
        ("statistics, bfloat16", statistics, bf16, STATISTICS),
        ("statistics, suppressed ids", statistics, bf16 | {"suppressed": LLADA_IDS_WITHOUT_TOKEN}, STATISTICS),
        ("statistics, temperature 0.7", statistics, bf16 | {"temperature": 0.7}, STATISTICS),
        ("statistics, float32", statistics, fp32, STATISTICS),
        ("select_reveal of 32 rows: slices, then reveal", unmask, block, STATISTICS, REVEAL),
        ("truncation, top-p 0.9, bfloat16", truncation, bf16 | {"top_p": 0.9}, TRUNCATION),
    ]
    return [
        Case(title, kernels, partial(work, vocabulary=vocabulary, **given), given.get("rows", 32) * vocabulary)
        for title, work, given, *kernels in chosen
    ]


def _cross_entropy(rows: int, vocabulary: int, dtype: torch.dtype) -> Workload:
    """The loss of a caller who has no teacher's logits."""
    logits, labels = torch.randn(rows, vocabulary).to(dtype).requires_grad_(), torch.randint(vocabulary, (rows,))

    def loss(logits: Tensor) -> Tensor:
        return fused_tad_loss(logits, None, labels, torch.ones_like(labels), delta=4, kl_weight=0.0).loss

    return Workload({"tad_ext": training_step(loss, [logits])}, bytes=2 * logits.nbytes)


def launch(chosen: list[Case], device: str) -> Iterator[Line]:
    """A line for each case, with its kernels, or one that says why it failed."""
    torch.manual_seed(0)
    with torch.device(device):
        for case in chosen:
            yield attempt(case.title, case.launch)


def counters(launched: Iterable[Line], table: Iterable[str]) -> Iterator[Line]:
    """What was counted of each kernel that was launched; `table`: ncu's raw page as CSV, in the order of launches.

    A kernel is the next of its name. That of a case that failed is not among them: arguments are checked before a
    launch, and after a kernel that fails all cases do.
    """
    rows = csv.DictReader(table)
    next(rows, None)  # the units
    for line in launched:
        if "error" in line:
            yield line
        for kernel in line.get("kernels", ()):
            row = next((row for row in rows if kernel in row["Kernel Name"]), None)
            counted = reduced(row, line["logits"]) if row else {"error": f"ncu has not measured its {kernel}"}
            yield {"path": line["path"], **counted}


def reduced(row: dict[str, str], logits: int) -> Line:
    """METRICS of one kernel, null where ncu has none; instructions of a thread for each logit; the largest stalls, as
    percent of the time that warps spend on an instruction.
    """
    counted = {name: _number(text) for name, text in row.items()}
    values = {name: counted.get(metric) for name, metric in METRICS.items()}
    instructions = counted.get("smsp__inst_executed.sum")  # of warps
    waits = {found[1]: value or 0.0 for name, value in counted.items() if (found := _STALL.fullmatch(name))}
    all_of_them = sum(waits.values())  # the instruction's own cycle, "selected", included
    stalls = sorted(waits.keys() - {"selected"}, key=lambda reason: -waits[reason])[:_STALLS]
    return {
        "kernel": row["Kernel Name"].removeprefix("void ").split("(")[0],
        **values,
        "duration_us": None if values["duration_us"] is None else values["duration_us"] / 1e3,
        "instructions_per_logit": None if instructions is None else round(instructions * 32 / logits, 2),
        "stalls_percent": {reason: round(100 * waits[reason] / all_of_them, 1) for reason in stalls if waits[reason]},
    }


def _number(text: str | None) -> float | None:
    """ncu writes thousands with commas, and words where there is no number."""
    with suppress(ValueError):
        number = float((text or "").replace(",", ""))
        return int(number) if number.is_integer() else number
    return None


def measure(result: Path) -> int:
    """Runs ncu; the exit code, 1 if anything could not be measured."""
    program = shutil.which("ncu")
    if program is None:
        write_json(result, {"counters": [], "missing": "ncu is not on the PATH"})
        return 0
    report = result.with_suffix(".csv")
    command = [
        program, "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none",
        *(word for section in SECTIONS for word in ("--section", section)),
        "--kernel-name", f"regex:{'|'.join(KERNELS)}", "--log-file", str(report),
        sys.executable, "-m", "bench.h200.counters", "--launch",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    launched = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    output = report.read_text(encoding="utf-8", errors="replace").splitlines() if report.exists() else []
    report.unlink(missing_ok=True)
    lines = list(counters(launched, (row for row in output if row[:1] == '"')))
    sizes = {"rows": ROWS, "vocabulary": LLADA_VOCABULARY}
    write_json(result, {**sizes, "counters": lines, "output": [row for row in output if row[:1] != '"'][-20:]})
    return done.returncode or any("error" in line for line in lines)


if __name__ == "__main__":
    parser = command_line("bench.h200.counters", __doc__)
    parser.add_argument("--result", type=Path, help="file to write")
    parser.add_argument("--launch", action="store_true", help="launch the kernels, and print which they are")
    options = parser.parse_args()
    if options.launch:
        for line in launch(cases(), "cuda"):
            print(json.dumps(line), flush=True)
    else:
        raise SystemExit(measure(options.result))
