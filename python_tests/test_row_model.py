"""The model of a multiprocessor of an H200 that shares in machine_code.txt are expected by."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from row_model import COPY, EXPECTED, LAUNCH, MEASURED, OF_SLICES, Ahead, Rows, Times, microseconds

AT_ONCE = Times(0, 0, 0)
KL = Rows(15_808, 4, 2, 46, 8)
STATISTICS = Rows(7_904, 2, 0, 28, 16, at_once=6, pieces=1)
# 512 rows of bfloat16 (but for one), each kernel alone, by Nsight Compute; instructions as it counted them
# (docs/benchmarks.md).
ON_THE_H200 = {
    "cross-entropy": (Rows(31_616, 2, 2, 20, 4), MEASURED, 90),
    "cross-entropy beside a teacher": (Rows(15_808, 2, 2, 25, 8), MEASURED, 118),
    "KL": (KL, MEASURED, 164),
    "log-softmax, forward": (Rows(31_616, 2, 2, 17, 4), MEASURED, 82),
    "log-softmax, backward": (Rows(31_616, 4, 2, 19, 4), MEASURED, 120),
    "statistics": (STATISTICS, OF_SLICES, 94),
    "statistics, suppressed ids": (replace(STATISTICS, instructions=39.7), OF_SLICES, 139),
    "statistics, float32": (replace(STATISTICS, read=4, instructions=24.6, at_once=5), OF_SLICES, 111),
}


@pytest.mark.parametrize(("rows", "times", "us"), ON_THE_H200.values(), ids=ON_THE_H200)
def test_what_an_h200_measured_is_met(rows: Rows, times: Times, us: float) -> None:
    assert microseconds(rows, 512, times, Ahead.NO) == pytest.approx(us, rel=0.05)


@pytest.mark.parametrize("ahead", Ahead)
def test_nothing_is_faster_than_its_bytes(ahead: Ahead) -> None:
    """A block alone that executes nothing takes as long as its bytes; and no kernel is faster than a copy."""
    no_work = replace(KL, instructions=0, at_once=1)
    assert microseconds(no_work, 512, AT_ONCE, ahead) == pytest.approx(LAUNCH + 512 * KL.moved / COPY, rel=0.02)
    for rows, _, _ in ON_THE_H200.values():
        assert microseconds(rows, 2_048, AT_ONCE, ahead) > 2_048 * rows.moved / COPY


def test_what_takes_longer_takes_longer() -> None:
    us = microseconds(KL, 512, EXPECTED, Ahead.NO)
    assert us < microseconds(KL, 512, EXPECTED._replace(reduction=3), Ahead.NO)
    assert us < microseconds(KL, 512, EXPECTED._replace(issued=0.5), Ahead.NO)
    assert us < microseconds(replace(KL, instructions=92), 512, EXPECTED, Ahead.NO)
    assert us > microseconds(replace(KL, pieces=8), 512, EXPECTED, Ahead.WRITING)
    assert us > microseconds(replace(KL, in_turn=42_000), 512, EXPECTED, Ahead.NO)
    slices = replace(STATISTICS, instructions=12)
    assert microseconds(slices, 512, OF_SLICES, Ahead.NO) > microseconds(slices, 512, OF_SLICES, Ahead.SUMMING)
