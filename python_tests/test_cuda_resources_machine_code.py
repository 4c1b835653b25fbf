"""What is read from SASS, on a kernel written by hand, and what follows from it for an H200."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import cuda_resources
import machine_code
from machine_code import LLADA_IDS, Cost, Work, blocks_at_once, costs, least_us, plan_rows, table
from sass import Code

# A row's first visit: 16 bytes are waited for, loaded, and summed, after eight instructions if a maximum is new; and
# its second, twice unrolled. Whatever is not aligned is left to a loop of its own.
SUMS = [
    "S2R R0, SR_TID.X",
    "@P0 EXIT",
    ".L_x_0:",
    ".L_x_1:",
    "SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R2",
    "@!P1 BRA `(.L_x_1)",
    "LDS.128 R4, [R2]",
    "@P2 BRA `(.L_x_2)",
    *["DMUL R8, R8, R8"] * 8,
    ".L_x_2:",
    *["MUFU.EX2 R4, R4", "FADD R5, R5, R4"] * 8,
    "@!P3 BRA P4, `(.L_x_0)",
]
RESULT = [
    "MEMBAR.ALL.GPU",
    "@P0 BRA `(.L_x_5)",
    ".L_x_3:",
    *["LDS.128 R4, [R2]", *["MUFU.EX2 R4, R4"] * 8, "STG.E.EF.128 desc[UR8][R6.64], R4"] * 2,
    "@P1 BRA `(.L_x_3)",
    "EXIT",
    ".L_x_4:",
    *["LDG.E.U16 R4, desc[UR8][R6.64]", "LDS.128 R4, [R2]", "STG.E.U16 desc[UR8][R6.64], R4"],
    ".L_x_5:",
    "@P1 BRA `(.L_x_4)",
    "EXIT",
]
KERNEL = "tad_loss.cu: rows_kernel<{}, true>"
WORK = Work("rows", KERNEL, ((1, 0, 0), (1, 0, 1)), kept=1, moved=2)


def sass(*lines: str) -> Code:
    return Code(
        "\n".join(line if line[0] == "." else f"        /*{16 * i:04x}*/  {line} ;" for i, line in enumerate(lines))
    )


def test_each_visit_is_counted_on_its_shortest_way_round() -> None:
    assert costs(WORK, sass(*SUMS, *RESULT), element_bytes=2) == {
        "rows, visit 1": Cost((2 + 1 + 1 + 16 + 1) / 8, 1),
        "rows, visit 2": Cost((2 * 10 + 1) / 16, 1),
    }
    of_float = costs(WORK, sass(*SUMS, *RESULT), element_bytes=4)
    assert of_float["rows, visit 1"] == Cost(21 / 4, 2)
    longer = [*SUMS[:-1], "NOP", SUMS[-1]]
    assert costs(WORK, sass(*longer, *RESULT), element_bytes=2)["rows, visit 1"].instructions == 22 / 8


def test_of_loops_in_one_another_the_innermost_is_counted() -> None:
    """As halves of a row, each of which is a loop over groups, of which an unrolled loop leaves one over."""
    group = ["LDS.128 R4, [R2]", *["MUFU.EX2 R4, R4"] * 8, "STG.E.EF.128 desc[UR8][R6.64], R4"]
    left = ['BRX R20 -0x10 (*"BRANCH_TARGETS .L_x_7,.L_x_8"*)', ".L_x_7:", *group, ".L_x_8:"]
    half = [".L_x_6:", *["NOP"] * 40, *left, *RESULT[2:24], "@P1 BRA `(.L_x_6)", "EXIT"]
    found = costs(WORK, sass(*SUMS, *half), element_bytes=2)
    assert found["rows, visit 2"] == Cost((2 * 10 + 1) / 16, 1)


def test_a_jump_goes_to_each_of_its_targets() -> None:
    code = sass("NOP", 'BRX R20 -0x10 (*"BRANCH_TARGETS .L_x_1,.L_x_2"*)', ".L_x_1:", "EXIT", ".L_x_2:", "EXIT")
    assert code.after(0) == [1]
    assert code.after(1) == [2, 3]


def test_a_store_that_was_taken_apart_is_no_visit() -> None:
    apart = [line.replace("STG.E.EF.128", "STG.E") for line in RESULT]
    with pytest.raises(ValueError, match=r"makes no visit 2 of rows, elements of 2 bytes, in accesses of 16 bytes"):
        costs(WORK, sass(*SUMS, *apart), element_bytes=2)


def test_without_a_loop_what_stands_in_loops_is_left_out() -> None:
    statistics = Work("statistics", "token_statistics.cu: slices", ((0, 2, 0),), 0, 1, ids="any_suppressed")
    line = 1 + [" any_suppressed(" in line for line in source("token_statistics.cu")].index(True)
    looking = [".L_x_0:", "LDG.E.64 R2, desc[UR8][R2.64]", "ISETP.GE P0, PT, R2, R3, PT", "@P0 BRA `(.L_x_0)"]
    load = "LDG.E.128 R4, desc[UR8][R6.64]"
    search = [".L_x_2:", load, "@P2 BRA `(.L_x_2)"]
    head = ["@P3 EXIT", load, "@P0 BRA `(.L_x_1)"]
    tail = [".L_x_1:", load, *["MUFU.EX2 R4, R4"] * 8, "@!P4 BRA `(.L_x_3)"]
    code = sass(*head, *looking, *tail, *search, ".L_x_3:", "EXIT")
    for at in (3, 4, 5):
        code.lines[at] = {("token_statistics.cu", line), ("token_statistics.cu", 1)}
    assert costs(statistics, code, element_bytes=2) == {
        "statistics, visit 1": Cost(14 / 8, 1),
        f"statistics, {LLADA_IDS} ids": Cost(4 * 3 / 64, 0),  # four looks of each lane, for the 64 logits of each
    }
    always = sass(*head, *looking, *tail[:-1], *search, "EXIT")  # a search that every thread makes
    with pytest.raises(ValueError, match="makes no visit 1 of statistics"):
        costs(statistics, always, element_bytes=2)


def source(file: str) -> list[str]:
    return (machine_code.CUDA / file).read_text().splitlines()


def test_the_lines_of_a_function() -> None:
    lines = source("tad_loss.cu")
    near = [lines[number - 1] for _, number in sorted(machine_code._lines("tad_loss.cu: tad_loss_kernel", "near"))]
    assert " void near(" in near[0]
    assert any("kBatch<Element>" in line for line in near)
    assert not any("kPairBatch" in line for line in near)
    assert machine_code._lines("tad_loss.cu: tad_loss_kernel", "") == set()


# Of ncu on an H200 (docs/benchmarks.md).
@pytest.mark.parametrize(("registers", "blocks"), [(80, 3), (72, 3), (64, 4), (55, 4), (48, 5), (40, 6), (88, 2)])
def test_blocks_by_registers_are_what_an_h200_says(registers: int, blocks: int) -> None:
    assert blocks_at_once(registers, 0)[0] == blocks


@pytest.mark.parametrize(("kept", "blocks"), [(61.75, 3), (123.5, 1)])
def test_blocks_by_shared_memory_are_what_an_h200_says(kept: float, blocks: int) -> None:
    assert blocks_at_once(80, int(kept * 1024) + 2112)[1] == blocks


def test_plans_are_those_of_the_header() -> None:
    assert plan_rows([(126_464, 2), (126_464, 8), (152_064, 4), (126_464, 2)]) == {
        (126_464, 2): (4, 126_464 // 4 * 2),
        (126_464, 8): (16, 126_464 // 16 * 8),
        (152_064, 4): (16, 152_064 // 16 * 4),
    }


def test_the_least_times() -> None:
    """Of 2,048 blocks of 1,000 columns some multiprocessors have 15, and most have 16."""
    assert least_us(512, 4_000, 4, 4 * 4_000, Cost(19, 2)) == pytest.approx(
        [512 * 16_000 / 4.3e6, 16 * 1_000 / 32 * 19 / 4 / 1_900, 16 * 1_000 * 2 / 16 / 1_900]
    )


def test_a_block_less_and_a_longer_loop_change_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_code, "WORKS", (WORK,))
    monkeypatch.setattr(machine_code, "CALLS", {"a call": {("rows", 1): 1}})
    monkeypatch.setattr(machine_code, "VOCABULARIES", (126_464,))
    monkeypatch.setattr(machine_code, "plan_rows", lambda sizes: dict.fromkeys(sizes, (4, 63_232)))
    names = [KERNEL.format(element) for element in machine_code.ELEMENT_BYTES]

    def rows(code: list[str], registers: int) -> list[str]:
        return table(dict.fromkeys(names, sass(*code)), dict.fromkeys(names, (registers, 2_112)))

    before = rows(SUMS + RESULT, 80)
    assert before[1].split()[:3] == ["code", "60", "1"]
    assert before[4].split() == ["loop", "BFloat16", "2.62", "1.00", "rows,", "visit", "1"]
    less = [(old, new) for old, new in zip(before, rows(SUMS + RESULT, 81)) if old != new]
    plans, shares = less[:2], less[2:]
    assert [(old[:4], " 3, 3 " in old, " 2, 3 " in new) for old, new in plans] == [("plan", True, True)] * 2
    assert [old.split()[0] for old, _ in shares] == ["share"] * 4
    alone, call = (row.split() for row in before if row.startswith("share BFloat16"))
    assert (alone[-1], call[-1]) == ("rows", "call")
    assert int(alone[6]) > int(call[6])
    assert all(int(old.split()[6]) > int(new.split()[6]) for old, new in shares)  # of 512 rows
    wait = [SUMS[0], "MEMBAR.ALL.GPU", *SUMS[1:-1], "NOP", SUMS[-1], *RESULT]
    changed = {old[:4] for old, new in zip(before, rows(wait, 80)) if old != new}
    assert changed >= {"code", "loop", "plan"}
    monkeypatch.setattr(machine_code, "plan_rows", lambda sizes: dict.fromkeys(sizes, (8, 0)))
    with pytest.raises(ValueError, match=r"1 x 126464 BFloat16 do not stay in shared memory"):
        rows(SUMS + RESULT, 80)


def test_ptx_that_a_later_gpu_does_not_know_is_an_error(tmp_path: Path) -> None:
    ptxas = tmp_path / "bin" / "ptxas"
    ptxas.parent.mkdir()
    ptxas.write_text('#!/bin/sh\ncase "$*" in *sm_120*) echo "unknown instruction"; exit 1;; esac\n')
    ptxas.chmod(0o755)
    with pytest.raises(ValueError, match=r"a.ptx does not assemble for sm_120:\nunknown instruction"):
        cuda_resources.assemble(SimpleNamespace(home=tmp_path), tmp_path / "a.ptx")
