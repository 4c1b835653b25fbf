"""What the machine code of the CUDA kernels says of their speed: csrc/cuda/machine_code.txt, for cuda_resources.py.

With what SASS has for each logit of a row, the registers and shared memory of a kernel, and `plan_rows` of
csrc/cuda/resident.cuh: how many blocks run on a multiprocessor, and how long an H200 takes for a call at least.
"""

import math
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from row_model import (
    COPY,
    CYCLES,
    EXPECTED,
    MULTIPROCESSORS,
    OF_LOG_SOFTMAX,
    OF_SLICES,
    SCHEDULERS,
    WARP,
    Ahead,
    Rows,
    Times,
    microseconds,
)
from sass import ROW_ACCESS, Code

CUDA = Path(__file__).resolve().parent.parent / "csrc" / "cuda"
VOCABULARIES = (126_464, 151_936, 152_064, 157_184)
ROWS = (64, 512, 2_048)
ELEMENT_BYTES = {"BFloat16": 2, "float": 4}
LLADA_IDS = 115  # without a token

WARPS, SLICE = 8, 16_384  # warps of a block, columns of a block of the statistics
BESIDE_A_VISIT = 10  # us of a call of the loss: totals, autograd's kernels, gaps; as measured, less what overlaps now
CALLS = {"a call of the loss, 1:7": {("cross-entropy", 2): 1 / 8, ("KL", 2): 7 / 8}}  # weights of works, rows kept
# A multiprocessor: each scheduler's registers, in eights for a warp; exponentials per cycle; threads; bytes of shared
# memory, and what the system takes of them for each block.
REGISTERS, EXPONENTIALS, THREADS, SHARED, OF_SYSTEM = 64, 16, 2_048, 228 << 10, 1 << 10

TITLE = f"""\
# What the machine code of the CUDA kernels for sm_90 says of their speed. Checked in CI, written with resources.txt.
# code: instructions of a kernel, and how many are MEMBARs, which wait until other multiprocessors see what was written.
# loop: what a thread executes for each logit in each visit of a row of whole groups, where no maximum is new:
# instructions, and of these MUFU.EX2. Statistics: of the first warp, but for the loops in which few threads look for
# the largest logits and sum beside them; and what it adds to look at {LLADA_IDS} ids without a token.
# plan: rows that are kept (2: the teacher's, too); blocks that share a row, and KiB that each keeps; how many of them a
# multiprocessor has registers for, and shared memory for. Then the least us that an H200 takes for so many rows: for
# their bytes, to issue their instructions (statistics: those for ids among them), for their exponentials.
# share: percent of what a copy moves, as expected of so many rows by tools/row_model.py, of the kernel alone, whose
# first blocks begin in turn: where a block asks for what it works on when it begins, and where that is asked for ahead.
# At last a whole call of the loss, of a near row and seven distant ones, with {BESIDE_A_VISIT} us beside the kernel.
# Not measured.
"""


@dataclass(frozen=True)
class Work:
    """What a kernel, or one function in it, does with a row. Each visit is a loop, but where nothing is `kept`: so
    many accesses of 16 bytes that load columns from shared memory, from global memory, and that store the same columns.
    """

    name: str
    kernel: str
    visits: tuple[tuple[int, int, int], ...]
    kept: int  # rows that stay in shared memory
    moved: int  # rows that come from memory or go there
    function: str = ""
    ids: str = ""  # the function in whose loop a warp looks at ids without a token
    beside: int = 400  # instructions that a warp executes for a row beside its loops, as counted along its ways
    times: Times = EXPECTED
    ahead: Ahead = Ahead.WRITING

    def rows(self, instructions: float, columns: int, element_bytes: int, blocks: int, at_once: int) -> Rows:
        """What the model takes its rows for, with so many instructions in the loops for each logit."""
        logits = math.ceil(columns / blocks)
        executed = instructions + self.beside / (logits / WARP / WARPS)
        written = int(self.kept > 0)
        read, pieces = self.moved - written, WARPS if self.kept else 1
        asked_for = self.visits[0][0] if self.kept else 0  # rows, by a block that begins
        in_turn = logits * asked_for * element_bytes * 2 // 3  # begin_in_turn()
        return Rows(logits, read * element_bytes, written * element_bytes, executed, blocks, at_once, pieces, in_turn)


LOSS = "tad_loss.cu: tad_loss_kernel<{}, ByBulkCopies>"
FORWARD = "log_softmax.cu: log_softmax_kernel<{}, ByBulkCopies>"
GRADIENT = "log_softmax.cu: log_softmax_gradient_kernel<{}, ByBulkCopies>"
STATISTICS = "token_statistics.cu: slice_statistics_kernel<{}, false>"
WORKS = (
    Work("cross-entropy", LOSS, ((1, 0, 0), (1, 0, 1)), kept=1, moved=2, function="near", beside=345),
    Work("cross-entropy", LOSS, ((1, 0, 0), (1, 0, 1)), kept=2, moved=2, function="near", beside=345),
    Work("KL", LOSS, ((2, 0, 0), (2, 0, 1)), kept=2, moved=3, function="distant", beside=415),
    Work("log-softmax", FORWARD, ((1, 0, 0), (1, 0, 1)), kept=1, moved=2, times=OF_LOG_SOFTMAX),
    Work("log-softmax's gradient", GRADIENT, ((1, 0, 0), (1, 1, 1)), kept=1, moved=3, times=OF_LOG_SOFTMAX),
    Work(
        "statistics",
        STATISTICS,
        ((0, 2, 0),),
        kept=0,
        moved=1,
        ids="any_suppressed",
        beside=90,  # the few threads with the largest logits, the row's end; but for what the first warp alone executes
        times=OF_SLICES,
        ahead=Ahead.SUMMING,
    ),
)


class Cost(NamedTuple):
    """What a thread executes for a logit, exponentials among its instructions."""

    instructions: float
    exponentials: float


def costs(work: Work, code: Code, element_bytes: int) -> dict[str, Cost]:
    """Of a work's visits, by their names. ValueError where the code has no such visit."""
    found = {}
    loops = code.innermost(_loops_of(work, code)) if work.kept else [0]
    ways = [code.way(first, code.loops[first] if work.kept else code.own(first)) for first in loops]
    for number, visit in enumerate(work.visits, 1):
        fitting = []
        for way in ways:
            accesses = [one for one in way if ROW_ACCESS.match(one) and (work.kept or not one.startswith("LDS"))]
            times = len(accesses) / sum(visit)
            if times and all(
                sum(one.startswith(kind) for one in accesses) == times * count
                for kind, count in zip(("LDS", "LDG", "STG"), visit)
            ):
                logits = times * 16 / element_bytes
                cost = Cost(len(way) / logits, way.count("MUFU.EX2") / logits)
                fitting.append(cost)
        if not fitting:
            of = f"{work.name}, elements of {element_bytes} bytes"
            raise ValueError(f"{work.kernel} makes no visit {number} of {of}, in accesses of 16 bytes alone")
        found[f"{work.name}, visit {number}"] = min(fitting)  # of an unrolled loop, not of what is left over
    if work.ids:
        looking = [code.own(first) for first in code.loops_of(_lines(work.kernel, work.ids), of_rows=False)]
        looks = [sum(code.operation(at).startswith("LDG") for at in loop) for loop in looking]  # of each lane
        slowest = max(len(loop) / count for loop, count in zip(looking, looks) if count)
        found[f"{work.name}, {LLADA_IDS} ids"] = Cost(slowest * math.ceil(LLADA_IDS / WARP) * WARP * WARPS / SLICE, 0)
    return found


def _loops_of(work: Work, code: Code) -> list[int]:
    """Those of the work's function, and not rather of another one: a compiler names the lines of both, now and then."""
    lines = _lines(work.kernel, work.function)
    others = [_lines(work.kernel, other.function) for other in WORKS if other.kernel == work.kernel]
    return [
        first
        for first in code.loops_of(lines)
        if all(code.seen(first, lines) >= code.seen(first, other) for other in others)
    ]


def _lines(kernel: str, function: str) -> set[tuple[str, int]]:
    """The source lines of a function that stands in a kernel's file; of "" none."""
    if not function:
        return set()
    file = kernel.partition(":")[0]
    source = (CUDA / file).read_text().splitlines()
    first = [f" {function}(" in line for line in source].index(True)
    indentation = len(source[first]) - len(source[first].lstrip())
    return {(file, i + 1) for i in range(first, source.index(" " * indentation + "}", first))}


def blocks_at_once(registers: int, shared_bytes: int) -> tuple[int, int]:
    """Blocks that a multiprocessor has registers for, and that it has shared memory for."""
    most = THREADS // (WARP * WARPS)
    by_registers = REGISTERS // math.ceil(registers / 8) * SCHEDULERS // WARPS
    return min(most, by_registers), min(most, SHARED // (shared_bytes + OF_SYSTEM))


def plan_rows(sizes: Iterable[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """What the function of this name plans on an H200 for (columns, bytes of a column): blocks, bytes each keeps."""
    sizes = list(dict.fromkeys(sizes))
    source = """
        #include <cstdio>
        #include "resident.cuh"
        int main() {
          for (int columns, bytes; std::scanf("%d %d", &columns, &bytes) == 2;) {
            const auto plan = tad::cuda::plan_rows({132, 50 << 20, 227 << 10, 16}, columns, bytes, true);
            std::printf("%d %zu\\n", plan.cluster_blocks, plan.shared_bytes);
          }
        }"""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "plan_rows"
        compiler = ["c++", "-std=c++20", f"-I{CUDA}", "-x", "c++", "-", "-o", str(program)]
        subprocess.run(compiler, input=source, text=True, check=True)
        text = "".join(f"{columns} {size}\n" for columns, size in sizes)
        answers = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(sizes, zip(map(int, answers[::2]), map(int, answers[1::2]))))


def least_us(rows: int, columns: int, blocks: int, row_bytes: int, cost: Cost) -> list[float]:
    """The least time that an H200 takes for so many rows, each of which so many blocks share: for their bytes, and, on
    the multiprocessor that has most to do, for issuing instructions and for exponentials.
    """
    logits = math.ceil(rows * blocks / MULTIPROCESSORS) * columns / blocks
    issue = logits / WARP * cost.instructions / (SCHEDULERS * CYCLES)
    return [rows * row_bytes / COPY, issue, logits * cost.exponentials / (EXPONENTIALS * CYCLES)]


@dataclass(frozen=True)
class Compiled:
    """A work in a kernel for elements of one type."""

    work: Work
    element: str
    element_bytes: int
    visits: Mapping[str, Cost]
    registers: int
    static: int  # bytes of shared memory

    @property
    def kept_bytes(self) -> int:
        """What a block keeps of each column."""
        return self.work.kept * self.element_bytes

    @property
    def whole(self) -> Cost:
        """Of all visits."""
        return Cost(*map(sum, zip(*self.visits.values())))

    def instructions(self) -> dict[str, float]:
        """For each logit in all visits, by names: of the work, and where it may look at ids, with that."""
        looking, whole = f"{self.work.name}, {LLADA_IDS} ids", self.whole.instructions
        if not self.work.ids:
            return {self.work.name: whole}
        return {self.work.name: whole - self.visits[looking].instructions, looking: whole}


# For (columns, bytes that are kept of each): blocks that share a row, bytes that each keeps.
Plans = Mapping[tuple[int, int], tuple[int, int]]


def table(kernels: Mapping[str, Code], used: Mapping[str, tuple[int, int]]) -> list[str]:
    """The rows of machine_code.txt from the kernels' code, and the registers and bytes of static shared memory of each.
    ValueError if a kernel does not do its work as WORKS says.
    """
    compiled = []
    for (element, size), work in product(ELEMENT_BYTES.items(), WORKS):
        kernel = work.kernel.format(element)
        compiled.append(Compiled(work, element, size, costs(work, kernels[kernel], size), *used[kernel]))
    plans = {(columns, 0): (math.ceil(columns / SLICE), 0) for columns in VOCABULARIES}
    plans |= plan_rows((columns, one.kept_bytes) for columns, one in product(VOCABULARIES, compiled) if one.kept_bytes)
    return [*code_rows(kernels), *loop_rows(compiled), *least_rows(compiled, plans), *share_rows(compiled, plans)]


def code_rows(kernels: Mapping[str, Code]) -> Iterator[str]:
    """Of each kernel."""
    yield f"{'code':6}{'instructions':>12}{'MEMBARs':>9}  kernel"
    for kernel, code in sorted(kernels.items()):
        fences = sum("MEMBAR" in instruction for instruction in code.instructions)
        yield f"{'code':6}{len(code.instructions):12,}{fences:9}  {kernel}"


def loop_rows(compiled: list[Compiled]) -> list[str]:
    """Of each visit."""
    rows = [f"{'loop':6}{'element':8}{'instructions':>13}{'MUFU.EX2':>9}  work"]
    for one in sorted(compiled, key=lambda one: WORKS.index(one.work)):
        for name, cost in one.visits.items():
            rows.append(f"{'loop':6}{one.element:8}{cost.instructions:13.2f}{cost.exponentials:9.2f}  {name}")
    return list(dict.fromkeys(rows))  # of one row that is kept as of two


def least_rows(compiled: list[Compiled], plans: Plans) -> Iterator[str]:
    """Of each vocabulary and work."""
    heading = "".join(f"{f'us of {count:,}':>24}" for count in ROWS)
    yield f"{'plan':6}{'element':8}{'columns':>8}{'kept':>5}{'blocks':>7}{'KiB':>7}{'at once':>9}{heading}  work"
    for columns, one in product(VOCABULARIES, compiled):
        blocks, kept = plans[columns, one.kept_bytes]
        if one.work.kept and not kept:
            raise ValueError(f"{one.work.name}: {one.work.kept} x {columns} {one.element} do not stay in shared memory")
        at_once = "{}, {}".format(*blocks_at_once(one.registers, kept + one.static))
        row = f"{'plan':6}{one.element:8}{columns:8,}{one.work.kept:5}{blocks:7}{kept / 1024:7.1f}{at_once:>9}"
        for count in ROWS:
            row_bytes = one.work.moved * one.element_bytes * columns
            row += "{:10.1f}{:7.1f}{:7.1f}".format(*least_us(count, columns, blocks, row_bytes, one.whole))
        yield f"{row}  {one.work.name}"


def share_rows(compiled: list[Compiled], plans: Plans) -> Iterator[str]:
    """Of each work, statistics with and without ids, and at last of a call of the loss."""
    columns = VOCABULARIES[0]
    heading = "".join(f"{f'% of {count:,}':>14}" for count in ROWS)
    yield f"{'share':6}{'element':8}{'columns':>8}{'kept':>5}{heading}  work"
    expected: dict[tuple[str, str, int], tuple[float, list[list[float]]]] = {}  # bytes of a row, us of so many
    for one in compiled:
        blocks, kept = plans[columns, one.kept_bytes]
        at_once = min(blocks_at_once(one.registers, kept + one.static))
        for name, instructions in one.instructions().items():
            of = one.work.rows(instructions, columns, one.element_bytes, blocks, at_once)
            us = [[microseconds(of, rows, one.work.times, way) for way in (Ahead.NO, one.work.ahead)] for rows in ROWS]
            expected[one.element, name, one.work.kept] = of.moved, us
    for element, (call, weights) in product(ELEMENT_BYTES, CALLS.items()):
        moved, us = 0.0, [[float(BESIDE_A_VISIT)] * 2 for _ in ROWS]
        for work, weight in weights.items():
            of_row, of_rows = expected[element, *work]
            moved += weight * of_row
            us = [[sum_ + weight * one for sum_, one in zip(*both)] for both in zip(us, of_rows)]
        expected[element, call, max(kept for _, kept in weights)] = moved, us
    for (element, name, kept), (moved, us) in expected.items():
        row = f"{'share':6}{element:8}{columns:8,}{kept:5}"
        for count, each in zip(ROWS, us):
            row += "{:10.0f}{:4.0f}".format(*(100 * count * moved / COPY / one for one in each))
        yield f"{row}  {name}"
