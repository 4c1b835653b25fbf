"""The model of a multiprocessor of an H200 that shares in machine_code.txt are expected by."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
from row_model import COPY, EXPECTED, LAUNCH, MEASURED, Rows, Times, microseconds, share_of_a_copy

AT_ONCE = Times(0, 0, 0)
KL = Rows(15_808, 4, 2, 46, 8)
# 512 rows of bfloat16, each kernel alone, by Nsight Compute; instructions as it counted them (docs/kernels.md).
ON_THE_H200 = {
    "cross-entropy": (Rows(31_616, 2, 2, 20, 4), 90),
    "cross-entropy beside a teacher": (Rows(15_808, 2, 2, 25, 8), 118),
    "KL": (KL, 164),
    "log-softmax, forward": (Rows(31_616, 2, 2, 17, 4), 82),
    "log-softmax, backward": (Rows(31_616, 4, 2, 19, 4), 120),
}


@pytest.mark.parametrize(("rows", "us"), ON_THE_H200.values(), ids=ON_THE_H200)
def test_what_an_h200_measured_is_met(rows: Rows, us: float) -> None:
    assert microseconds(rows, 512, MEASURED, ahead=False) == pytest.approx(us, rel=0.05)


@pytest.mark.parametrize("ahead", [False, True])
def test_nothing_is_faster_than_its_bytes(ahead: bool) -> None:
    """A block alone that executes nothing takes as long as its bytes; and no kernel is faster than a copy."""
    no_work = replace(KL, instructions=0, at_once=1)
    bytes_alone = 512 * 8 * 15_808 * 6 / COPY
    assert microseconds(no_work, 512, AT_ONCE, ahead=ahead) == pytest.approx(LAUNCH + bytes_alone, rel=0.02)
    for rows, _ in ON_THE_H200.values():
        assert share_of_a_copy(rows, 2_048, AT_ONCE, ahead=ahead) < 1


def test_what_takes_longer_takes_longer() -> None:
    few = share_of_a_copy(KL, 512, EXPECTED, ahead=False)
    assert few > share_of_a_copy(KL, 512, EXPECTED._replace(reduction=3), ahead=False)
    assert few > share_of_a_copy(replace(KL, instructions=92), 512, EXPECTED, ahead=False)
    assert few < share_of_a_copy(replace(KL, pieces=8), 512, EXPECTED, ahead=True)
