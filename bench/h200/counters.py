"""What the hardware counts while each kernel runs once: `python -m bench.h200.counters --result FILE`.

Nsight Compute (`ncu`) runs this module again, with `--launch`, and measures the main kernels of each case, with emptied
caches and clocks as they are. The file holds a line for each kernel in the order of their launches, with METRICS, the
instructions per logit, and what its warps wait for most. Without ncu it says so.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tad_ext.ops import (
    DecodeState,
    Selection,
    fused_tad_loss,
    masked_log_softmax,
    pack_offsets,
    select_reveal,
    token_statistics,
    truncate_logits,
)

from .. import ROOT
from ..operators.cases import LLADA_IDS_WITHOUT_TOKEN, LLADA_VOCABULARY
from ..results import Line, failed, read_json, write_json

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
_WARP_INSTRUCTIONS = "smsp__inst_executed.sum"
_STALL, _STALL_END = "smsp__average_warps_issue_stalled_", "_per_issue_active.ratio"
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
    """`kernels`: those of KERNELS that `run` launches, in this order, to read so many logits."""

    title: str
    kernels: tuple[str, ...]
    run: Callable[[], Any]
    logits: int


def cases(device: str, rows: int = ROWS, vocabulary: int = LLADA_VOCABULARY) -> list[Case]:
    """What is launched, in this order."""
    generator = torch.Generator(device).manual_seed(0)

    def logits(dtype: torch.dtype = torch.bfloat16, rows: int = rows) -> torch.Tensor:
        return torch.randn(rows, vocabulary, generator=generator, device=device).to(dtype)

    labels = torch.randint(vocabulary, (rows,), generator=generator, device=device)
    last = torch.arange(vocabulary - LLADA_IDS_WITHOUT_TOKEN, vocabulary, device=device)
    student, teacher, few = logits(), logits(), logits(rows=32)
    exact, exact_teacher = logits(torch.float32), logits(torch.float32)
    seeds = torch.arange(rows, device=device)

    def loss(step: int, s: torch.Tensor, t: torch.Tensor | None) -> Callable[[], Any]:
        steps = torch.full((rows,), step, device=device)
        return lambda: fused_tad_loss(s.detach().requires_grad_(), t, labels, steps, delta=4, kl_weight=float(step > 4))

    def log_softmax() -> None:
        masked_log_softmax(student.detach().requires_grad_()).backward(teacher)

    def sampled() -> None:
        token_statistics(student, temperature=0.7, seeds=seeds, offsets=pack_offsets(1, seeds))

    def truncated() -> None:
        truncate_logits(student, temperature=1.0, top_p=0.9)

    def reveal() -> None:
        mask_token_id = vocabulary - 1
        canvas = torch.full((1, 256), mask_token_id, device=device)
        state = DecodeState.start(1, 256, block_length=len(few), device=device)
        state.positions = state.positions.contiguous()
        most_likely = Selection("confidence", 0.9)
        select_reveal(canvas, few[None], state, most_likely, mask_token_id=mask_token_id, suppress_tokens=last)

    def case(title: str, run: Callable[[], Any], *kernels: str, read: torch.Tensor = student) -> Case:
        return Case(title, kernels, run, read.numel())

    return [
        case("CE, bfloat16", loss(1, student, None), LOSS),
        case("CE beside a teacher, bfloat16", loss(1, student, teacher), LOSS),
        case("KL, bfloat16", loss(9, student, teacher), LOSS),
        case("CE, float32", loss(1, exact, None), LOSS),
        case("KL, float32", loss(9, exact, exact_teacher), LOSS),
        case("log-softmax forward, then backward, bfloat16", log_softmax, LOG_SOFTMAX, GRADIENT),
        case("statistics, bfloat16", lambda: token_statistics(student), STATISTICS),
        case("statistics, suppressed ids", lambda: token_statistics(student, suppress_tokens=last), STATISTICS),
        case("statistics, temperature 0.7", sampled, STATISTICS),
        case("statistics, float32", lambda: token_statistics(exact), STATISTICS),
        case("select_reveal of 32 rows: slices, then reveal", reveal, STATISTICS, REVEAL, read=few),
        case("truncation, top-p 0.9, bfloat16", truncated, TRUNCATION),
    ]


def launch(file: Path, chosen: list[Case]) -> None:
    """Every case, with a line for each of its kernels in the file, or one that says why it failed."""
    lines: list[Line] = []
    for case in chosen:
        try:
            case.run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            lines += [{"path": case.title, "kernel": kernel, "logits": case.logits} for kernel in case.kernels]
        except Exception as error:
            lines.append(failed(case.title, error))
        write_json(file, lines)


def counters(launched: list[Line], table: Iterable[str]) -> Iterator[Line]:
    """What was counted of each kernel that was launched; `table`: ncu's raw page as CSV, in the order of launches.

    A kernel is the next of its name. That of a case that failed is not among them: arguments are checked before a
    launch, and after a kernel that fails all cases do.
    """
    rows = csv.DictReader(table)
    next(rows, None)  # the units
    for line in launched:
        if "error" in line:
            yield line
        elif row := next((row for row in rows if line["kernel"] in row["Kernel Name"]), None):
            yield {"path": line["path"], **reduced(row, line["logits"])}
        else:
            yield {"path": line["path"], "error": f"ncu has not measured its {line['kernel']}"}


def reduced(row: dict[str, str], logits: int) -> Line:
    """METRICS of one kernel, null where ncu has none; instructions of a thread for each logit; the largest stalls, as
    percent of the time that warps spend on an instruction.
    """
    values = {name: _number(row.get(metric)) for name, metric in METRICS.items()}
    warp_instructions = _number(row.get(_WARP_INSTRUCTIONS))
    waits = {
        metric.removeprefix(_STALL).removesuffix(_STALL_END): _number(text) or 0.0
        for metric, text in row.items()
        if metric.startswith(_STALL) and metric.endswith(_STALL_END)
    }
    all_of_them = sum(waits.values())  # the instruction's own cycle, "selected", included
    stalls = sorted(waits.keys() - {"selected"}, key=lambda reason: -waits[reason])[:_STALLS]
    return {
        "kernel": row["Kernel Name"].removeprefix("void ").split("(")[0],
        **values,
        "duration_us": None if values["duration_us"] is None else values["duration_us"] / 1e3,
        "instructions_per_logit": None if warp_instructions is None else round(warp_instructions * 32 / logits, 2),
        "stalls_percent": {reason: round(100 * waits[reason] / all_of_them, 1) for reason in stalls if waits[reason]},
    }


def _number(text: str | None) -> float | None:
    """ncu writes thousands with commas, and words where there is no number."""
    try:
        number = float((text or "").replace(",", ""))
    except ValueError:
        return None
    return int(number) if number.is_integer() else number


def ncu() -> str | None:
    """Nsight Compute, if it is on the PATH."""
    return shutil.which("ncu")


def measure(result: Path) -> int:
    """Runs ncu; the exit code, 1 if anything could not be measured."""
    program = ncu()
    if program is None:
        write_json(result, {"counters": [], "missing": "ncu is not on the PATH"})
        return 0
    report, launched = result.with_suffix(".csv"), result.with_suffix(".launched")
    chosen = [word for section in SECTIONS for word in ("--section", section)]
    command = [
        program, "--csv", "--page", "raw", "--print-units", "base", "--clock-control", "none", *chosen,
        "--kernel-name", f"regex:{'|'.join(KERNELS)}", "--log-file", str(report),
        sys.executable, "-m", "bench.h200.counters", "--launch", str(launched),
    ]  # fmt: skip
    code = subprocess.run(command, cwd=ROOT).returncode
    output = report.read_text(encoding="utf-8", errors="replace").splitlines() if report.exists() else []
    lines = list(counters(read_json(launched) if launched.exists() else [], (row for row in output if row[:1] == '"')))
    for file in (report, launched):
        file.unlink(missing_ok=True)
    sizes = {"rows": ROWS, "vocabulary": LLADA_VOCABULARY}
    write_json(result, {**sizes, "counters": lines, "output": [row for row in output if row[:1] != '"'][-20:]})
    return code or any("error" in line for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.h200.counters", description=__doc__)
    parser.add_argument("--result", type=Path, help="file to write")
    parser.add_argument("--launch", type=Path, metavar="FILE", help="launch the kernels, and write which they are")
    options = parser.parse_args()
    if options.launch:
        launch(options.launch, cases("cuda"))
    else:
        raise SystemExit(measure(options.result))
