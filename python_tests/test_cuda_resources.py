"""The reading of ptxas's report and the comparison with the committed table, on a report written by hand."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import cuda_resources
from cuda_resources import NUMBERS, Usage, check, compare, demangle, main, parse, render, short_name, with_accesses

REPORT = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'tad::cuda::(anonymous namespace)::rows<float, 8>' for 'sm_80'
ptxas info    : Function properties for tad::cuda::(anonymous namespace)::rows<float, 8>
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 1024 bytes smem, 376 bytes cmem[0]
ptxas info    : Compile time = 10.822 ms
ptxas info    : Compiling entry function 'tad::cuda::plain' for 'sm_80'
ptxas info    : Function properties for tad::cuda::plain
    160 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 160 bytes cumulative stack size
ptxas info    : Compile time = 2.326 ms
ptxas info    : Function properties for tad::cuda::helper
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""
ROWS = Usage("a.cu: rows<float, 8>", "sm_80", registers=40, stack=0, spill_stores=0, spill_loads=0, shared=1024)
PLAIN = Usage("a.cu: plain", "sm_80", registers=255, stack=160, spill_stores=8, spill_loads=12, shared=0)
HELPER = Usage("a.cu: helper", "sm_80", registers=None, stack=16, spill_stores=0, spill_loads=0, shared=0)
PTX = """\
.visible .entry _ZN3tad4cuda4rowsIfLi8EEEvNS_4ArgsE(
\t.param .align 8 .b8 _ZN3tad4cuda4rowsIfLi8EEEvNS_4ArgsE_param_0[64]
)
.maxntid 256
{
\tld.param.b64 \t%rd1, [_ZN3tad4cuda4rowsIfLi8EEEvNS_4ArgsE_param_0];
\tld.global.v4.u32 \t{%r1, %r2, %r3, %r4}, [%rd1];
\tld.global.nc.v2.b64 \t{%rd2, %rd3}, [%rd1+16];
\tld.global.u16 \t%rs1, [%rd1+32];
\tld.shared.v4.u32 \t{%r1, %r2, %r3, %r4}, [%r9];
\tst.global.cs.v4.u32 \t[%rd4], {%r1, %r2, %r3, %r4};
\t@%p1 st.global.u32 \t[%rd4+16], %r1;
{
.reg .pred over;
}
\tst.global.v2.f32 \t[%rd4+20], {%f1, %f2};
}
\t// .globl plain
.visible .entry plain(
\t.param .b64 plain_param_0
)
{
\tret;
}
"""
VERSION = "13.0.88"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cuda_resources, "ROOT", tmp_path)
    monkeypatch.setattr(cuda_resources, "TABLE", tmp_path / "resources.txt")
    monkeypatch.setattr(cuda_resources, "CODE", tmp_path / "machine_code.txt")
    monkeypatch.setattr(cuda_resources, "find_nvdisasm", lambda toolkit: tmp_path)
    monkeypatch.setattr(cuda_resources, "read_machine_code", lambda *_: ["code  2  rows", "plan  3  rows"])
    return tmp_path / "resources.txt"


def test_kernels_and_device_functions_are_read() -> None:
    assert parse(REPORT, "a.cu", "sm_80") == [ROWS, PLAIN, HELPER]


def test_accesses_to_global_memory_are_counted_by_their_size() -> None:
    rows = dataclasses.replace(ROWS, kernel="a.cu: rows<float, 8>")
    plain = dataclasses.replace(PLAIN, kernel="a.cu: plain")
    counted = dataclasses.replace(rows, loads_16=2, loads_less=1, stores_16=1, stores_less=2)
    assert with_accesses([rows, plain, HELPER], PTX) == [counted, plain, HELPER]
    with pytest.raises(ValueError, match=r"a.cu: gone for sm_80: PTX has no such kernel"):
        with_accesses([dataclasses.replace(rows, kernel="a.cu: gone")], PTX)


@pytest.mark.parametrize(
    ("mangled", "name"),
    [
        ("_ZN3tad4cuda4rowsIfLi8EEEvNS_4ArgsE", "rows<float, 8>"),
        ("_ZN3tad4cuda12_GLOBAL__N_11fINS_3RowI13__nv_bfloat16Li8EEE6__halfLNS_4KindE1EEEvPFfiEi",
         "f<Row<bf16, 8>, fp16, (Kind)1>"),
        ("_ZN3tad6helperEfi", "helper"),
        ("plain", "plain"),
    ],
)  # fmt: skip
def test_names_keep_what_tells_instances_apart(mangled: str, name: str) -> None:
    assert short_name(demangle(mangled)) == name


def test_a_report_in_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a.cu for sm_80: ptxas's report about .*rows.* has an unknown form"):
        parse(REPORT.replace("Used 40 registers", "40 registers used"), "a.cu", "sm_80")
    with pytest.raises(ValueError, match=r"reports no properties of .*plain"):
        parse(REPORT.replace("Function properties for tad::cuda::plain", "Properties"), "a.cu", "sm_80")


def test_two_kernels_of_one_short_name_are_refused() -> None:
    first_kernel, rest = REPORT.split("ptxas info    : Compiling entry function 'tad::cuda::plain")
    for twin in (REPORT.replace("tad::cuda::plain", "other::rows<float, 8>"), first_kernel * 2):
        with pytest.raises(ValueError, match=r"a.cu: rows<float, 8> for sm_80: two functions"):
            parse(twin, "a.cu", "sm_80")
    helper = rest[rest.index("ptxas info    : Function properties for tad::cuda::helper") :]
    assert parse(REPORT + helper, "a.cu", "sm_80") == [ROWS, PLAIN, HELPER]
    with pytest.raises(ValueError, match=r"a.cu: helper for sm_80: two functions"):
        parse(REPORT + helper.replace("16 bytes", "24 bytes"), "a.cu", "sm_80")


def test_the_table_does_not_depend_on_the_order_of_compilation() -> None:
    assert render([PLAIN, ROWS, HELPER], VERSION) == render([HELPER, ROWS, PLAIN], VERSION)


@pytest.mark.parametrize("column", NUMBERS)
def test_a_change_in_any_column_is_an_error_that_shows_it(column: str) -> None:
    changed = dataclasses.replace(ROWS, **{column: 7})
    diff, wrong = compare(render([ROWS, HELPER], VERSION), render([changed, HELPER], VERSION))
    assert wrong
    assert diff == [f"- {ROWS.line()}", f"+ {changed.line()}"]


def test_missing_and_new_kernels_are_errors_with_any_nvcc() -> None:
    both, one = render([ROWS, HELPER], VERSION), render([ROWS], VERSION)
    for other in (VERSION, "13.1.5"):
        assert compare(both, one.replace(VERSION, other)) == ([f"- {HELPER.line()}"], True)
        assert compare(one, both.replace(VERSION, other)) == ([f"+ {HELPER.line()}"], True)
    assert compare("", one)[1]


def test_another_nvcc_may_use_other_registers() -> None:
    changed = dataclasses.replace(ROWS, registers=48)
    diff, wrong = compare(render([ROWS], VERSION), render([changed], "13.1.5"))
    assert len(diff) == 2
    assert not wrong


def test_write_then_check(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "resources.txt" in (check([ROWS], VERSION, write=False) or "")
    assert check([ROWS], VERSION, write=True) is None
    assert check([ROWS], VERSION, write=False) is None
    changed = dataclasses.replace(ROWS, shared=2048)
    error = check([changed], VERSION, write=False) or ""
    assert changed.line() in error
    assert "--write" in error
    assert check([changed], "13.1.5", write=False) is None
    assert "warning" in capsys.readouterr().out


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("column", ["spill_stores", "spill_loads"])
def test_no_table_accepts_a_spill(column: str, write: bool, table: Path) -> None:
    spilling = dataclasses.replace(ROWS, **{column: 4})
    table.write_text(render([spilling], VERSION) + "# a comment\n")
    before = table.read_bytes()
    assert "spill" in (check([spilling], VERSION, write=write) or "")
    assert table.read_bytes() == before


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.usefixtures("table")
def test_a_kernel_that_keeps_rows_leaves_them_their_memory(write: bool) -> None:
    left = cuda_resources.reserved_shared_bytes()
    for loader, shared, refused in (("ByThreads", left + 16, True), ("NotKept", left + 16, False)):
        kernel = dataclasses.replace(ROWS, kernel=f"a.cu: rows<float, {loader}>", shared=shared)
        error = check([kernel], VERSION, write=write)
        assert ("static arrays" in (error or "")) == refused
    fits = dataclasses.replace(ROWS, kernel="a.cu: rows<float, ByBulkCopies>", shared=left)
    assert "static arrays" not in (check([fits], VERSION, write=write) or "")


def test_without_nvcc_only_require_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cuda_resources, "find_toolkit", lambda: None)
    for arguments, status in (([], 0), (["--require"], 1)):
        monkeypatch.setattr(sys, "argv", ["cuda_resources.py", *arguments])
        assert main() == status
        assert "NOT checked" in capsys.readouterr().out


def test_what_is_the_same_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch, table: Path) -> None:
    compiled = []
    monkeypatch.setattr(cuda_resources, "find_toolkit", lambda: SimpleNamespace(version=VERSION))
    monkeypatch.setattr(cuda_resources, "compile_all", lambda *_: compiled.append(1) or [ROWS])
    for arguments, status, times in (
        ([], 1, 1),  # no table yet
        (["--write"], 0, 2),
        ([], 0, 2),
        (["--again"], 0, 3),
    ):
        monkeypatch.setattr(sys, "argv", ["cuda_resources.py", *arguments])
        assert (main(), len(compiled)) == (status, times), arguments
    monkeypatch.setattr(sys, "argv", ["cuda_resources.py"])
    code = table.with_name("machine_code.txt")
    code.write_text(code.read_text().replace("plan  3", "plan  2").replace(f"nvcc {VERSION}", "nvcc 13.1.5"))
    assert (main(), len(compiled)) == (0, 4), "the machine code of another nvcc"
    code.write_text(code.read_text().replace("13.1.5", VERSION))
    assert (main(), len(compiled)) == (0, 4)
    code.write_text(code.read_text().replace(cuda_resources.digest(*cuda_resources.SOURCES), "0" * 16))
    assert (main(), len(compiled)) == (1, 5), "other machine code"
    code.unlink()
    monkeypatch.setattr(cuda_resources, "find_nvdisasm", lambda toolkit: None)
    assert (main(), len(compiled)) == (0, 5), "without nvdisasm"
    table.write_text(table.read_text().replace(cuda_resources.digest(*cuda_resources.SOURCES), "0" * 16))
    assert (main(), len(compiled)) == (0, 6), "other sources, the same kernels"
    assert (main(), len(compiled)) == (0, 6)
