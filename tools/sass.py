"""A kernel's machine code as nvdisasm prints it: the loops that its instructions form, and the ways through them."""

import re
import subprocess
from functools import cached_property
from pathlib import Path

from cuda_toolkit import demangle, short_name

ROW_ACCESS = re.compile(r"(LD[GS]|STG)\S*\.128")  # of 16 bytes, to global memory and where rows are kept
SMALL_ACCESS = re.compile(r"(LDG|STG)(?!\S*\.128)")


class Code:
    """A kernel's instructions, by their number, and of each the source lines (file, line) it was inlined from."""

    def __init__(self, sass: str) -> None:
        """Of what `nvdisasm -c -gi` prints of one kernel."""
        self.instructions: list[str] = []
        self.lines: list[set[tuple[str, int]]] = []
        self._labels: dict[str, int] = {}
        lines: set[tuple[str, int]] = set()
        for line in sass.splitlines():
            if source := re.match(r'\s*//## File "(?:[^"]*/)?([^"/]+)", line (\d+)', line):
                if self.lines and lines is self.lines[-1]:
                    lines = set()
                lines.add((source[1], int(source[2])))
            elif label := re.match(r"(\.L_\w+):", line):
                self._labels[label[1]] = len(self.instructions)
            elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
                self.instructions.append(instruction[1])
                self.lines.append(lines)

    def operation(self, at: int) -> str:
        """Such as "LDG.E.128", without its predicate and operands."""
        return re.sub(r"^@!?\w+ ", "", self.instructions[at]).split()[0]

    def after(self, at: int) -> list[int]:
        """The instructions that may follow one; behind a call, that to which it returns."""
        text, operation = self.instructions[at], self.operation(at)
        branches = re.search(r"^(?:@\S+ )?BR(?:A\b.*`\(|X\b.*BRANCH_TARGETS )([.\w,]+)", text)
        ends = text.startswith(("EXIT", "BRA `", "BRX ")) or operation.startswith("RET")
        targets = branches[1].split(",") if branches else []
        return [self._labels[target] for target in targets] + ([] if ends else [at + 1])

    @cached_property
    def _order_and_back(self) -> tuple[list[int], set[tuple[int, int]]]:
        """All that is reached, each before what follows it but for edges back to where a loop begins; and these."""
        way = {0: iter(self.after(0))}  # to where we are, and what of each is still to be followed
        seen, done, back = {0}, [], set()
        while way:
            at, left = next(reversed(way.items()))
            following = next(left, None)
            if following is None:
                del way[at]
                done.append(at)
            elif following in way:
                back.add((at, following))
            elif following not in seen:
                seen.add(following)
                way[following] = iter(self.after(following))
        return done[::-1], back

    @cached_property
    def loops(self) -> dict[int, set[int]]:
        """The instructions of each loop, by its first one; at 0 all there are."""
        order, back = self._order_and_back
        before: dict[int, list[int]] = {at: [] for at in order}
        for at in order:
            for following in self.after(at):
                before[following].append(at)
        loops = {0: set(order)}
        for end, first in back:
            loop, left = loops.setdefault(first, {first}), [end]
            while left:
                if (at := left.pop()) not in loop:
                    loop.add(at)
                    left += before[at]
        return loops

    def own(self, first: int) -> set[int]:
        """What of a loop is in no loop inside."""
        return self.loops[first].difference(*(loop for loop in self.loops.values() if loop < self.loops[first]))

    def loops_of(self, lines: set[tuple[str, int]], *, of_rows: bool = True) -> list[int]:
        """Loops that have code of these source lines (none: of any); of `of_rows` those without smaller accesses."""
        found = []
        for first in self.loops:
            own = self.own(first)
            small = any(SMALL_ACCESS.match(self.operation(at)) for at in own)
            if first > 0 and not (of_rows and small) and (not lines or self.seen(first, lines)):
                found.append(first)
        return found

    def seen(self, first: int, lines: set[tuple[str, int]]) -> int:
        """How many of some source lines a loop has code of."""
        return len(lines & set().union(*(self.lines[at] for at in self.own(first))))

    def innermost(self, some: list[int]) -> list[int]:
        """Those of some loops that access rows, and in which there is no other one that does."""
        rows = [first for first in some if any(ROW_ACCESS.match(self.operation(at)) for at in self.loops[first])]
        return [first for first in rows if not any(self.loops[other] < self.loops[first] for other in rows)]

    def way(self, first: int, within: set[int]) -> list[str]:
        """The operations on the way once round a loop, or from the beginning to an end, that stays `within`: of those
        with the most accesses of 16 bytes the shortest.
        """
        order, back = self._order_and_back
        best = {first: (0, 0, first)}  # accesses and less instructions on the way to each, from where
        ends = []
        for at in (at for at in order if at in within and at in best):
            accesses, length, _ = best[at]
            here = (accesses + bool(ROW_ACCESS.match(self.operation(at))), length - 1, at)
            for following in self.after(at):
                if (at, following) not in back:
                    best[following] = max(best.get(following, here), here)
            if (at, first) in back or self.operation(at) == "EXIT":
                ends.append(here)
        way = [max(ends)[2]]
        while way[-1] != first:
            way.append(best[way[-1]][2])
        return [self.operation(at) for at in reversed(way)]


def read_kernels(nvdisasm: Path, cubin: Path) -> dict[str, Code]:
    """The kernels of a file, by their names in resources.txt."""
    sass = subprocess.run([nvdisasm, "-c", "-gi", cubin], capture_output=True, text=True, check=True).stdout
    sections = re.split(r"^\t\.section\t\.text\.(\w+),", sass, flags=re.MULTILINE)[1:]
    names = short_name(demangle("\n".join(sections[::2]))).splitlines()
    return {f"{cubin.stem}.cu: {name}": Code(code) for name, code in zip(names, sections[1::2])}
