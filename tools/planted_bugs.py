"""Plants bugs in the CUDA kernels, one at a time, and requires the kernels' tests to catch each of them.

    python tools/planted_bugs.py                   all bugs, two at a time
    python tools/planted_bugs.py --list            what there is (tools/planted_bugs.toml)
    python tools/planted_bugs.py --only NAME       this one (may be repeated)

The tests run the kernels' own source on the host (csrc/tests/cuda_on_host.h). They are built from a copy of csrc/ under
sanitizers; on the copy they must pass, and with any one bug in it the test named in the table must fail. Needs cmake
and a C++20 compiler.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_suffix(".toml")
SANITIZERS = {"address": "address,undefined", "thread": "thread"}
BUILD_SECONDS = 600
TEST_SECONDS = 300


@dataclass(frozen=True)
class Bug:
    """One change of one file under csrc/, `old` to `new`, and the test that must fail under a sanitizer."""

    name: str
    file: str
    old: str
    new: str
    caught_by: str
    sanitizer: str = "address"

    def planted(self, source: str) -> str:
        """The source with the bug in it; ValueError where its place is not found exactly once."""
        if source.count(self.old) != 1:
            raise ValueError(
                f"bug {self.name}: csrc/{self.file} holds {self.old!r} {source.count(self.old)} times, expected once: "
                f"bring {TABLE.name} up to date"
            )
        return source.replace(self.old, self.new)


def read_table(path: Path = TABLE) -> list[Bug]:
    """All bugs."""
    return [Bug(**entry) for entry in tomllib.loads(path.read_text())["bug"]]


class Copy:
    """A copy of the C++ sources, in which one bug after the other is planted and built."""

    def __init__(self, folder: Path, sanitizer: str) -> None:
        """Copies and configures."""
        self.folder, self.build_folder = folder, folder / "build"
        shutil.copytree(ROOT / "csrc", folder / "csrc")
        shutil.copy(ROOT / "CMakeLists.txt", folder)
        flags = [f"-DTAD_SANITIZE={SANITIZERS[sanitizer]}", "-DCMAKE_BUILD_TYPE=Release"]
        self._run("cmake", "-S", folder, "-B", self.build_folder, *flags, "-DCMAKE_CXX_FLAGS_RELEASE=-O1")

    def finding(self, tests: list[str]) -> str | None:
        """Builds and runs some tests: what the first one that fails says, None where all pass."""
        built = self._run("cmake", "--build", self.build_folder, "--target", *tests, seconds=BUILD_SECONDS)
        if built.returncode != 0:
            raise RuntimeError(f"{self.folder} does not compile:\n{built.stdout}")
        for test in tests:
            try:
                tested = self._run(self.build_folder / test, seconds=TEST_SECONDS)
            except subprocess.TimeoutExpired:
                return f"{test}: no end after {TEST_SECONDS} s"
            if tested.returncode != 0:
                return f"{test}: {first_words(tested.stdout)}"
        return None

    def finding_with(self, bug: Bug) -> str | None:
        """What the bug's test says with the bug in place, None where it passes."""
        path = self.folder / "csrc" / bug.file
        source = path.read_text()
        path.write_text(bug.planted(source))
        try:
            return self.finding([bug.caught_by])
        finally:
            path.write_text(source)

    def _run(self, *command: str | Path, seconds: int = 60) -> subprocess.CompletedProcess[str]:
        tools = str(Path(sys.executable).parent)  # a cmake that pip installed stands beside python
        environment = {**os.environ, "PATH": tools + os.pathsep + os.environ.get("PATH", "")}
        return subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            env=environment,
        )


def first_words(output: str) -> str:
    """What a failed test said first: a failed check, or the report of a sanitizer or of the emulation."""
    line = re.search(r"^.*(: failed: |Sanitizer: |runtime error: |cuda_on_host: ).*$", output, re.MULTILINE)
    if not line:
        return "a crash: " + " / ".join(output.strip().splitlines()[-3:])
    return re.sub(r"^=*(\d+==)?|\S*/(?=csrc/)| on (unknown )?address.*| \(pid=\d+\)", "", line.group())


class Copies:
    """Copies to plant in: as many at a time as there are jobs, each first tested without any bug."""

    def __init__(self, folder: Path, tests: dict[str, list[str]]) -> None:
        """`tests`: for each sanitizer, those that some bug needs."""
        self.folder, self.tests = folder, tests
        self.idle: dict[str, queue.SimpleQueue[Copy]] = {sanitizer: queue.SimpleQueue() for sanitizer in tests}
        self.lock = threading.Lock()
        self.count = 0

    def finding_with(self, bug: Bug) -> str | None:
        """As Copy.finding_with; RuntimeError where a test fails without the bug."""
        idle = self.idle[bug.sanitizer]
        copy = idle.get() if not idle.empty() else self._fresh(bug.sanitizer)
        try:
            return copy.finding_with(bug)
        finally:
            idle.put(copy)

    def _fresh(self, sanitizer: str) -> Copy:
        with self.lock:
            self.count += 1
            number = self.count
        copy = Copy(self.folder / str(number), sanitizer)
        if finding := copy.finding(self.tests[sanitizer]):
            raise RuntimeError(f"the tests fail without any bug: {finding}")
        print(f"{sanitizer} sanitizer, without any bug: {', '.join(self.tests[sanitizer])} pass", flush=True)
        return copy


def plant(bugs: list[Bug], jobs: int) -> int:
    """Plants all of `bugs`, `jobs` at a time, and prints a line for each; how many were not caught."""
    tests = {s: sorted({bug.caught_by for bug in bugs if bug.sanitizer == s}) for s in SANITIZERS}
    missed = 0
    with tempfile.TemporaryDirectory(prefix="planted_bugs_") as folder, ThreadPoolExecutor(jobs) as pool:
        copies = Copies(Path(folder), tests)
        running = {pool.submit(copies.finding_with, bug): bug for bug in bugs}
        for done in as_completed(running):
            finding = done.result()
            missed += finding is None
            print(f"{running[done].name}: " + (f"caught by {finding}" if finding else "NOT CAUGHT"), flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught")
    return missed


def main(arguments: list[str] | None = None) -> int:
    """Plants the chosen bugs; 1 where one of them is not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the bugs, their files and what must catch them")
    parser.add_argument("--only", action="append", metavar="NAME", help="plant this bug (may be repeated)")
    parser.add_argument("--jobs", type=int, default=2, help="bugs at a time (default: 2)")
    options = parser.parse_args(arguments)
    bugs = read_table()
    if options.list:
        for bug in bugs:
            print(f"{bug.name:50} csrc/{bug.file:26} {bug.caught_by}, {SANITIZERS[bug.sanitizer]}")
        return 0
    for name in options.only or []:
        if name not in {bug.name for bug in bugs}:
            parser.error(f"argument --only: {name!r}, expected a name that --list prints")
    if options.jobs < 1:
        parser.error(f"argument --jobs: {options.jobs}, expected at least 1")
    for bug in bugs:
        bug.planted((ROOT / "csrc" / bug.file).read_text())  # a table that is out of date ends here
    return 1 if plant([bug for bug in bugs if not options.only or bug.name in options.only], options.jobs) else 0


if __name__ == "__main__":
    sys.exit(main())
