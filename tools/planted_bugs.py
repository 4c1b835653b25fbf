"""Plants bugs in the CUDA kernels, one at a time, and requires the kernels' tests to catch each of them.

    python tools/planted_bugs.py                   all bugs, two at a time
    python tools/planted_bugs.py --list            what there is (tools/planted_bugs.diff)
    python tools/planted_bugs.py --only NAME       this one (may be repeated)

The tests run the kernels' own source on the host (csrc/cuda_on_host). They are built from a copy of csrc/, where the
table says so under a sanitizer or otherwise; on the copy they must pass, and with any one bug in it the test named in
the table must fail. Needs cmake and a C++20 compiler; CMAKE_GENERATOR=Ninja saves some time.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_suffix(".diff")
# How the tests are compiled. A sanitizer more than doubles a bug's time; most show without one.
BUILDS = {
    "plain": "-DTAD_SANITIZE=",
    "address": "-DTAD_SANITIZE=address,alignment",
    "thread": "-DTAD_SANITIZE=thread",
    "like-a-gpu": "-DTAD_LIKE_A_GPU=ON",
}
BUILD_SECONDS = 600
TEST_SECONDS = 300


@dataclass(frozen=True)
class Bug:
    """One change of one file under csrc/, `old` to `new`, and the test that must fail."""

    name: str
    file: str
    old: str
    new: str
    caught_by: str
    build: str = "plain"

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
    bugs = []
    for entry in re.split("^@@ ", path.read_text(), flags=re.MULTILINE)[1:]:
        heading, *lines = [line for line in entry.splitlines() if line and not line.startswith("#")]
        name, file, caught_by, *build = re.split("[:,] ", heading)
        old, new = ("\n".join(line[1:] for line in lines if line[0] != sign) for sign in "+-")
        bugs.append(Bug(name, file, old, new, caught_by, *build))
    return bugs


class Copy:
    """A copy of the C++ sources, in which one bug after the other is planted and built."""

    def __init__(self, folder: Path, build: str, cmake: str) -> None:
        """Copies and configures."""
        self.folder, self.build_folder, self.cmake = folder, folder / "build", cmake
        shutil.copytree(ROOT / "csrc", folder / "csrc")
        shutil.copy(ROOT / "CMakeLists.txt", folder)
        flags = [BUILDS[build], "-DCMAKE_BUILD_TYPE=Release"]
        self._cmake("-S", folder, "-B", self.build_folder, *flags, "-DCMAKE_CXX_FLAGS_RELEASE=-Og")

    def finding(self, test: str) -> str | None:
        """Builds and runs a test: what it says where it fails, None where it passes."""
        self._cmake("--build", self.build_folder, "--parallel", "1", "--target", test)
        try:
            tested = _run(self.build_folder / test, seconds=TEST_SECONDS)
        except subprocess.TimeoutExpired:
            return f"{test}: no end after {TEST_SECONDS} s"
        return f"{test}: {first_words(tested.stdout)}" if tested.returncode != 0 else None

    def finding_with(self, bug: Bug) -> str | None:
        """What the bug's test says with the bug in place, None where it passes."""
        path = self.folder / "csrc" / bug.file
        source = path.read_text()
        path.write_text(bug.planted(source))
        try:
            return self.finding(bug.caught_by)
        finally:
            path.write_text(source)

    def _cmake(self, *arguments: str | Path) -> None:
        ran = _run(self.cmake, *arguments, seconds=BUILD_SECONDS)
        if ran.returncode != 0:
            raise RuntimeError(f"cmake {' '.join(map(str, arguments))} failed:\n{ran.stdout}")


def _run(*command: str | Path, seconds: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TAD_TEST_FAILURES": "1"}  # the first failed check says enough
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace", timeout=seconds, env=environment
    )


def first_words(output: str) -> str:
    """What a failed test said first: a failed check, or the report of a sanitizer or of the emulation."""
    line = re.search(r"^.*(: failed: |runtime error: |cuda_on_host: |SUMMARY: ).*$", output, re.MULTILINE)
    if not line:
        return "a crash: " + " / ".join(output.strip().splitlines()[-3:])
    return re.sub(r"^SUMMARY: |\S*/(?=csrc/)|(?<=\d) in .*", "", line.group())  # no temporary paths, no signatures


def by_test(bugs: list[Bug]) -> list[list[Bug]]:
    """The bugs of each test in each build, so that a copy rebuilds little; what takes longest comes first."""
    groups: dict[tuple[str, str], list[Bug]] = {}
    for bug in sorted(bugs, key=lambda bug: bug.file):
        groups.setdefault((bug.caught_by, bug.build), []).append(bug)
    return sorted(groups.values(), key=lambda group: -len(group) * (1 if group[0].build == "plain" else 3))


def plant(bugs: list[Bug], jobs: int, cmake: str) -> int:
    """Plants all of `bugs`, `jobs` at a time, and prints a line for each; how many were not caught. Where a test fails
    without a bug, or a copy cannot be built, nothing more is planted by any job.
    """
    idle: dict[str, queue.SimpleQueue[Copy]] = {build: queue.SimpleQueue() for build in BUILDS}
    stopped = threading.Event()

    def count_missed(group: list[Bug]) -> int:
        """The same of bugs of one test in one build, one after the other in one copy."""
        test, build, missed = group[0].caught_by, group[0].build, 0
        try:
            copy = idle[build].get_nowait()
        except queue.Empty:
            copy = Copy(Path(tempfile.mkdtemp(dir=folder)), build, cmake)
        try:
            if finding := copy.finding(test):
                raise RuntimeError(f"the test fails without any bug, build {build}: {finding}")
            print(f"{test} passes without any bug, build {build}", flush=True)
            for bug in group:
                if stopped.is_set():
                    break
                finding = copy.finding_with(bug)
                missed += finding is None
                print(f"{bug.name}: " + (f"caught by {finding}" if finding else "NOT CAUGHT"), flush=True)
        except RuntimeError:
            stopped.set()
            raise
        idle[build].put(copy)
        return missed

    with tempfile.TemporaryDirectory(prefix="planted_bugs_") as folder, ThreadPoolExecutor(jobs) as pool:
        try:
            missed = sum(pool.map(count_missed, by_test(bugs)))
        except RuntimeError as error:
            pool.shutdown(wait=False, cancel_futures=True)
            sys.exit(f"error: {error}")
    print(f"{len(bugs) - missed} of {len(bugs)} planted bugs caught")
    return missed


def main(arguments: list[str] | None = None) -> int:
    """Plants the chosen bugs; 1 where one of them is not caught."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the bugs, their files and what must catch them")
    parser.add_argument("--only", action="append", metavar="NAME", help="plant this bug (may be repeated)")
    parser.add_argument("--jobs", type=int, default=2, help="bugs at a time (default: 2)")
    parser.add_argument("--cmake", default="cmake", metavar="PATH", help="the cmake to build with (default: cmake)")
    options = parser.parse_args(arguments)
    bugs = {bug.name: bug for bug in read_table()}
    if options.list:
        for bug in bugs.values():
            print(f"{bug.name:50} csrc/{bug.file:26} {bug.caught_by}, {bug.build}")
        return 0
    for name in options.only or []:
        if name not in bugs:
            parser.error(f"argument --only: {name!r}, expected a name that --list prints")
    if options.jobs < 1:
        parser.error(f"argument --jobs: {options.jobs}, expected at least 1")
    if shutil.which(options.cmake) is None:
        parser.error(f"argument --cmake: {options.cmake!r}, expected a program that can be run")
    try:
        for bug in bugs.values():
            bug.planted((ROOT / "csrc" / bug.file).read_text())
    except ValueError as error:
        sys.exit(f"error: {error}")
    chosen = [bug for name, bug in bugs.items() if not options.only or name in options.only]
    return 1 if plant(chosen, options.jobs, options.cmake) else 0


if __name__ == "__main__":
    sys.exit(main())
