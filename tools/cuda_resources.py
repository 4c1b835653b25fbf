"""Compiles every CUDA kernel, warnings as errors, and compares what each one uses with csrc/cuda/resources.txt, and its
machine code with csrc/cuda/machine_code.txt (machine_code.py).

A kernel that spills registers, or suddenly takes twice as many, still computes the right numbers; only its speed is
gone, and no test on a machine without a GPU would notice. So is that of one whose 16-byte stores the compiler has taken
apart, which cost half the bandwidth on an H200 once. ptxas and PTX say so at compile time, so this does notice. Dynamic
shared memory is chosen at launch and is not in the table; it is in that of the machine code. GPUs after Hopper run PTX:
it must assemble for them.

The tables name the sources they are of. Where these and nvcc are the same, nothing is compiled again; --again does.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from pathlib import Path

import machine_code
from cuda_toolkit import (
    CHECKED_ARCHITECTURES,
    LATER_ARCHITECTURES,
    NVCC_FLAGS,
    WARNINGS_AS_ERRORS,
    Toolkit,
    demangle,
    find_nvdisasm,
    find_toolkit,
    short_name,
)
from sass import Code, read_kernels
from unchanged import digest

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "csrc" / "cuda" / "resources.txt"
CODE = TABLE.with_name("machine_code.txt")
OBJECTS = ROOT / "build" / "cuda"
ACCEPT = "python tools/cuda_resources.py --write"
SOURCES = (
    *("csrc/cuda/*.cu", "csrc/cuda/*.cuh", "csrc/cuda/*.h", "csrc/common/*.h"),
    *("tools/cuda_toolkit.py", "tools/machine_code.py", "tools/row_model.py", "tools/sass.py"),
)

TITLE = f"""\
# What each CUDA kernel uses, as ptxas reports it: registers per thread; bytes of stack and of register spills per
# thread; bytes of shared memory per block. "-" for registers: a device function of its own, not a kernel.
# And as PTX has it: how many of its loads from global memory, and stores to it, are of 16 bytes, and how many of less.
# Checked in CI, written by `{ACCEPT}`.
"""
SOURCES_ARE = "# Of the sources with the digest "


@dataclass(frozen=True)
class Usage:
    """One kernel on one architecture: bytes, registers (None for a device function that is no kernel), and accesses."""

    kernel: str
    architecture: str
    registers: int | None
    stack: int
    spill_stores: int
    spill_loads: int
    shared: int
    loads_16: int = 0
    loads_less: int = 0
    stores_16: int = 0
    stores_less: int = 0

    def line(self) -> str:
        """The kernel's line of the table."""
        numbers = [getattr(self, name) for name in NUMBERS]
        return COLUMNS.format(self.architecture, *("-" if one is None else one for one in numbers), self.kernel)


NUMBERS = tuple(field.name for field in fields(Usage)[2:])
COLUMNS = "{:8}" + "".join(f"{{:>{len(name) + 1}}}" for name in NUMBERS) + "  {}"
HEADING = COLUMNS.format("arch", *NUMBERS, "kernel")


def parse(report: str, file: str, architecture: str) -> list[Usage]:
    """The kernels in a demangled report of `ptxas -v` about one source file."""
    entries = set(re.findall(r"Compiling entry function '(.+)' for", report))
    blocks = re.split(r"Function properties for (.+)\n", report)[1:]
    found: dict[str, Usage] = {}
    for name, block in zip(blocks[::2], blocks[1::2]):
        properties = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", block)
        used = re.search(r"Used (\d+) registers.*", block) if name in entries else None
        if properties is None or (name in entries and used is None):
            raise ValueError(f"{file} for {architecture}: ptxas's report about {name} has an unknown form:\n{block}")
        shared = re.search(r"(\d+) bytes smem", used[0]) if used else None
        stack, stores, loads = map(int, properties.groups())
        registers = int(used[1]) if used else None
        kernel = f"{file}: {short_name(name)}"
        usage = Usage(kernel, architecture, registers, stack, stores, loads, int(shared[1]) if shared else 0)
        if kernel in found and (used or found[kernel] != usage):  # a device function may be reported once per caller
            raise ValueError(f"{kernel} for {architecture}: two functions share this shortened name, rename one")
        found[kernel] = usage
    if missing := entries - set(blocks[::2]):
        raise ValueError(f"{file} for {architecture}: ptxas reports no properties of {sorted(missing)}")
    return list(found.values())


def render(usages: Iterable[Usage], version: str) -> str:
    """The table as text. The names come last, so that a new one does not move the columns of the others."""
    lines = [usage.line() for usage in sorted(usages, key=lambda usage: (usage.kernel, usage.architecture))]
    return as_table(TITLE, version, [HEADING, *lines])


def as_table(title: str, version: str, rows: list[str]) -> str:
    """The text of a table of the sources as they are, compiled by this version of nvcc."""
    return title + "\n".join([f"{SOURCES_ARE}{digest(*SOURCES)}", f"nvcc {version}", *rows]) + "\n"


def is_of_now(table: Path, version: str) -> bool:
    """Whether a table is of the sources as they are, and of this version of nvcc."""
    return table.exists() and as_table("", version, []) in table.read_text()


def compare(committed: str, measured: str) -> tuple[list[str], bool]:
    """The lines in which two tables differ, as a diff, and whether that is an error.

    With another nvcc than the table's, other numbers are to be expected, and only other names are an error.
    """
    old, new = _rows(committed), _rows(measured)
    diff = [line for line in difflib.ndiff(old[1:], new[1:]) if line[0] in "-+"]  # - committed, + measured
    same_nvcc = old[:1] == new[:1]
    return diff, bool(diff) and (same_nvcc or _names(old) != _names(new))


def _rows(table: str) -> list[str]:
    """The version line, the heading and the kernels."""
    return [line for line in table.splitlines() if not line.startswith("#")]


def _names(table: list[str]) -> set[tuple[str, str]]:
    """Of the table's lines: each begins with a word and ends with a name."""
    return {(line.split(None, 1)[0], line.rpartition("  ")[2]) for line in table[2:]}


def compile_kernels(toolkit: Toolkit, source: Path, architecture: str) -> list[Usage]:
    """One source file for one architecture; a ValueError holds the compiler's messages."""
    virtual = architecture.replace("sm_", "compute_")
    folder = OBJECTS / f"{source.stem}.{architecture}"
    folder.mkdir(exist_ok=True)
    flags = [*NVCC_FLAGS, *WARNINGS_AS_ERRORS, f"-gencode=arch={virtual},code={architecture}", "-Xptxas", "-v"]
    kept = ["--keep", "--keep-dir", str(folder)]
    command = [str(toolkit.nvcc), *flags, *kept, "-c", str(source), "-o", str(folder / "object.o")]
    result = subprocess.run(command, capture_output=True, text=True)
    report = demangle(result.stdout + result.stderr)
    if result.returncode != 0:
        messages = "\n".join(line for line in report.splitlines() if not line.startswith("ptxas info"))
        raise ValueError(f"{source.name} does not compile for {architecture}:\n{messages}")
    ptx = folder / f"{source.stem}.ptx"
    if architecture == CHECKED_ARCHITECTURES[-1]:
        assemble(toolkit, ptx)
    return with_accesses(parse(report, source.name, architecture), ptx.read_text())


def assemble(toolkit: Toolkit, ptx: Path) -> None:
    """Makes machine code for later GPUs from PTX, as their driver does. A ValueError holds the assembler's messages."""
    for later in LATER_ARCHITECTURES:
        command = [toolkit.home / "bin" / "ptxas", "-O1", f"-arch={later}", ptx, "-o", ptx.with_suffix(f".{later}")]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise ValueError(f"{ptx.name} does not assemble for {later}:\n{result.stdout}{result.stderr}")


def with_accesses(usages: list[Usage], ptx: str) -> list[Usage]:
    """The kernels with their accesses to global memory in PTX. ValueError if it does not have one of the kernels."""
    # A kernel ends where the next one, or a function, begins: a lone brace may also be inlined assembly's.
    kernels = re.findall(r"\.entry (\w+)\((.*?)(?=\n\S*\s?\.(?:entry|func)\b|\Z)", ptx, re.DOTALL)
    counts: dict[str, Counter[str]] = {}
    for name, body in kernels:
        counts[short_name(demangle(name))] = count = Counter[str]()
        for kind, vector, bits in re.findall(r"\b(ld|st)\.[\w.:]*?global[\w.:]*?(?:\.v([24]))?\.[a-z](\d+)\s", body):
            size = "16" if int(vector or 1) * int(bits) == 128 else "less"
            count[f"{'loads' if kind == 'ld' else 'stores'}_{size}"] += 1
    for usage in usages:
        if usage.registers is not None and usage.kernel.partition(": ")[2] not in counts:
            raise ValueError(f"{usage.kernel} for {usage.architecture}: PTX has no such kernel")
    return [replace(usage, **counts.get(usage.kernel.partition(": ")[2], {})) for usage in usages]


def compile_all(toolkit: Toolkit, sources: list[Path]) -> list[Usage]:
    """Every source for every architecture, on all cores, saying what is done. A ValueError holds what failed."""
    OBJECTS.mkdir(parents=True, exist_ok=True)
    usages: list[Usage] = []
    failures = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            pool.submit(compile_kernels, toolkit, source, architecture): f"{source.name} for {architecture}"
            for source in sources
            for architecture in CHECKED_ARCHITECTURES
        }
        for count, job in enumerate(as_completed(jobs), 1):
            print(f"[{count}/{len(jobs)}] {jobs[job]}", file=sys.stderr, flush=True)
            try:
                usages += job.result()
            except ValueError as error:
                failures.append(str(error))
    if failures:
        raise ValueError("\n\n".join(failures))
    return usages


def read_machine_code(nvdisasm: Path, sources: list[Path], usages: list[Usage]) -> list[str]:
    """The rows of the machine code's table. ValueError if a kernel does not do what the table is about."""
    architecture = CHECKED_ARCHITECTURES[-1]
    kernels: dict[str, Code] = {}
    cubins = [OBJECTS / f"{source.stem}.{architecture}" / f"{source.stem}.cubin" for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda cubin: read_kernels(nvdisasm, cubin), cubins):
            kernels |= found
    of_it = [usage for usage in usages if usage.architecture == architecture]
    return machine_code.table(kernels, {usage.kernel: (usage.registers or 0, usage.shared) for usage in of_it})


def check(usages: list[Usage], version: str, *, write: bool) -> str | None:
    """Compares with the committed table, or writes it. Returns what is wrong, None if nothing is."""
    if spilling := [usage.line() for usage in usages if usage.spill_stores or usage.spill_loads]:
        return "\n".join(["these kernels spill registers, which no table may hold:", HEADING, *spilling])
    left = reserved_shared_bytes()
    if crowded := [usage.line() for usage in usages if ", By" in usage.kernel and usage.shared > left]:
        title = f"of a kernel that keeps rows, static arrays have {left:,} bytes of shared memory (platform.cuh):"
        return "\n".join([title, HEADING, *crowded])
    return check_table(TABLE, render(usages, version), write=write)


def reserved_shared_bytes() -> int:
    """What platform.cuh leaves to the static arrays of a kernel that asks for all other shared memory: with more, every
    launch is refused.
    """
    source = (machine_code.CUDA / "platform.cuh").read_text()
    found = re.search(r"kReservedSharedBytes = (\d+) << 10;", source)
    if found is None:
        raise ValueError("platform.cuh does not say what kReservedSharedBytes are, in KiB")
    return int(found[1]) << 10


def check_table(table: Path, measured: str, *, write: bool) -> str | None:
    """Compares a committed table with what it should be, or writes it. Returns what is wrong, None if nothing is."""
    print(*_rows(measured), sep="\n", flush=True)
    if write:
        table.write_text(measured)
        return None
    diff, wrong = compare(table.read_text() if table.exists() else "", measured)
    headings = [row for row in _rows(measured) if row.endswith(("  kernel", "  work"))]
    if wrong:
        report = "\n".join([*headings, *diff])
        title = f"{table.relative_to(ROOT)} (-) differs from what was compiled (+)"
        return f"{title}:\n{report}\nIf this is meant, accept it with `{ACCEPT}`."
    if not diff:
        table.write_text(measured)  # of these sources now
    else:
        print("\n".join(["warning: the table was made with another nvcc (-), this one differs (+):", *headings, *diff]))
    return None


def main() -> int:
    """The command; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("--again", action="store_true", help="compile although the sources are those of the table")
    parser.add_argument("--require", action="store_true", help="fail where there is no nvcc, instead of saying so")
    arguments = parser.parse_args()
    arguments.again |= arguments.write
    toolkit = find_toolkit()
    if toolkit is None:
        print("CUDA kernels NOT compiled and their resources NOT checked: no nvcc on the PATH or in CUDA_HOME")
        return 1 if arguments.require or arguments.write else 0
    nvdisasm = find_nvdisasm(toolkit)
    if nvdisasm is None:
        print("machine code NOT checked: no nvdisasm (PyPI has it: nvidia-cuda-nvdisasm)")
        if arguments.require or arguments.write:
            return 1
    tables = [TABLE, CODE] if nvdisasm else [TABLE]
    if all(is_of_now(table, toolkit.version) for table in tables) and not arguments.again:
        names = " and ".join(str(table.relative_to(ROOT)) for table in tables)
        print(f"the CUDA kernels and nvcc {toolkit.version} are those of {names}: nothing to compile")
        return 0
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    wrong = []
    try:
        usages = compile_all(toolkit, sources)
        wrong.append(check(usages, toolkit.version, write=arguments.write))
        if nvdisasm:
            rows = read_machine_code(nvdisasm, sources, usages)
            wrong.append(check_table(CODE, as_table(machine_code.TITLE, toolkit.version, rows), write=arguments.write))
    except ValueError as error:
        wrong.append(str(error))
    errors = [f"error: {one}" for one in wrong if one]
    if errors:
        print(*errors, sep="\n\n", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
