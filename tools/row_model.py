"""How long an H200 takes for rows, by a model of one of its multiprocessors, for machine_code.py.

A kernel's blocks take turns on a multiprocessor. A block asks for its part of a row, sums what has come, reduces with
the other blocks of its cluster, and writes what follows from the sums. Transfers share the bandwidth that a copy has,
and what is executed shares the issue slots; a block's beginning, the first bytes' latency and the reduction take a time
of their own. What these take was fitted to eight kernels as an H200 measured them: with two numbers for the five that
keep rows (MEASURED), two others for the three of the statistics (OF_SLICES) the model meets all within 5 %
(python_tests/test_row_model.py). For today's kernels that keep rows EXPECTED is reckoned from that, not fitted
(docs/log.md).
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import NamedTuple

# An H200: multiprocessors, cycles per us, bytes that a copy moves per us; schedulers of a multiprocessor, each of which
# issues an instruction of a warp per cycle.
MULTIPROCESSORS, CYCLES, COPY, SCHEDULERS, WARP = 132, 1_900, 4.3e6, 4, 32
LAUNCH = 2.0  # us before a kernel's first block, and behind its last one
STAGGER = 0.3  # us between the first blocks of a multiprocessor, if nothing keeps them apart
CACHED = 0.35  # us to the first bytes from the second-level cache, roughly


class Times(NamedTuple):
    """Us that nothing shares: from a block's beginning to what it asks for, from there to the first bytes, and from a
    block's last sums to what all threads know of the row's. And the share of the issue slots that warps fill at most.
    """

    begin: float
    latency: float
    reduction: float
    issued: float = 1.0


MEASURED = Times(2.0, 0.8, 2.5)  # fitted
EXPECTED = Times(1.5, 0.8, 0.9)  # less what was removed since
OF_LOG_SOFTMAX = EXPECTED._replace(reduction=1.1)  # a logarithm or exponential that all wait for
OF_SLICES = Times(0.5, 0.8, 1.5, 0.62)  # of the statistics: the slots as counted, begin and reduction fitted


class Ahead(Enum):
    """When a block asks for more than the row it is at."""

    NO = "never"
    WRITING = "piece by piece as it writes a row: it stays, and the next row is its own"
    SUMMING = "before its last visit: the next block's is on its way to the second-level cache"


@dataclass(frozen=True)
class Rows:
    """What a block does with its part of a row: logits, bytes of each that are read and written, instructions a thread
    executes for each in all; blocks that share a row; blocks that a multiprocessor works on at a time; pieces in which
    a part comes and goes; bytes of the block before, which the first ones wait for before they ask, as long as a copy
    takes for so many.
    """

    logits: int
    read: int
    written: int
    instructions: float
    blocks: int
    at_once: int = 3
    pieces: int = 4
    in_turn: int = 0

    @property
    def moved(self) -> float:
        """Bytes of a row that come or go."""
        return self.blocks * self.logits * (self.read + self.written)


@dataclass
class Event:
    """Something that happens once, and the processes that wait for it."""

    has_happened: bool = False
    waiting: list[Iterator] = field(default_factory=list)


@dataclass
class Multiprocessor:
    """Runs processes: generators of what they need next, ("wait", us), ("memory", bytes), ("issue", instructions of
    warps), or an event. Memory and issue slots are shared evenly by those that need them.
    """

    issued: float = 1.0  # of the issue slots, at most
    now: float = 0.0
    timers: list[tuple[float, int, Iterator]] = field(default_factory=list)
    shared: dict[str, list[list]] = field(default_factory=lambda: {"memory": [], "issue": []})  # what is left, whose
    _numbers: Iterator[int] = field(default_factory=count)

    def go_on(self, process: Iterator) -> None:
        """Until the process has to wait."""
        for demand in process:
            if isinstance(demand, Event):
                if demand.has_happened:
                    continue
                demand.waiting.append(process)
            elif demand[0] == "wait":
                heapq.heappush(self.timers, (self.now + demand[1], next(self._numbers), process))
            else:
                self.shared[demand[0]].append([demand[1], process])
            return

    def happens(self, event: Event) -> None:
        """Whoever waits for it goes on."""
        event.has_happened = True
        for process in event.waiting:
            self.go_on(process)

    def run(self) -> float:
        """Until all processes are over: the time then, in us."""
        speed = {"memory": COPY / MULTIPROCESSORS, "issue": SCHEDULERS * CYCLES * self.issued}
        while self.timers or any(self.shared.values()):
            rates = {kind: speed[kind] / len(active) for kind, active in self.shared.items() if active}
            steps = [min(left for left, _ in self.shared[kind]) / rate for kind, rate in rates.items()]
            step = min(steps + [due - self.now for due, _, _ in self.timers[:1]])
            self.now += step
            ready = []
            for kind, rate in rates.items():
                for one in self.shared[kind]:
                    one[0] -= step * rate
                ready += [process for left, process in self.shared[kind] if left <= 1e-6]
                self.shared[kind] = [one for one in self.shared[kind] if one[0] > 1e-6]
            while self.timers and self.timers[0][0] <= self.now + 1e-9:
                ready.append(heapq.heappop(self.timers)[2])
            for process in ready:
                self.go_on(process)
        return self.now


def _block(machine: Multiprocessor, of: Rows, times: Times, rows: int, late: float, ahead: Ahead) -> Iterator:
    """A block's rows, one after the other; but where it stays, a block for each of them."""
    executed = of.logits * of.instructions / WARP / of.pieces / 2  # for a piece, in each of two visits

    def bring(piece: Event) -> Iterator:
        yield "wait", times.latency
        yield "memory", of.logits * of.read / of.pieces
        machine.happens(piece)

    def ask() -> Event:
        piece = Event()
        machine.go_on(bring(piece))
        return piece

    stays, prefetches = ahead is Ahead.WRITING, ahead is Ahead.SUMMING
    yield "wait", late
    coming: list[Event] = []
    for row in range(rows):
        last = row == rows - 1
        if not (stays and coming):
            yield "wait", times.begin
        if prefetches and coming:
            yield "wait", CACHED
        for piece in coming or [ask() for _ in range(of.pieces)]:
            yield piece
            yield "issue", executed
        yield "wait", times.reduction
        coming = [ask() for _ in range(of.pieces)] if prefetches and not last else []
        for _ in range(of.pieces):
            yield "issue", executed
            machine.go_on(iter([("memory", of.logits * of.written / of.pieces)]))
            if stays and not last:
                coming.append(ask())


def microseconds(of: Rows, rows: int, times: Times, ahead: Ahead) -> float:
    """Us for so many rows: of the whole number of turns that is nearest to what a multiprocessor has, in proportion."""
    blocks = rows * of.blocks / MULTIPROCESSORS
    at_once = min(of.at_once, math.ceil(blocks))
    turns = max(1.0, blocks / at_once)
    machine = Multiprocessor(times.issued)
    for number in range(at_once):
        late = (STAGGER + of.in_turn / (COPY / MULTIPROCESSORS)) * number
        machine.go_on(_block(machine, of, times, round(turns), late, ahead))
    return LAUNCH + machine.run() * turns / round(turns)
