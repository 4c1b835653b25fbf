"""Where a response states its mathematical answer, and when two answers are the same."""
# ruff: noqa: RUF001 - signs of mathematics are what is tested

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad_ext.data.answers.math_answers import extract_math_answer, same_math_answer
from tad_ext.data.answers.math_equivalence import check_math_verify

pytest.importorskip("math_verify", reason="needs math-verify, which the extra 'math' installs")

SAME = r"""
    3.0 | 3
    .5 | 0.50
    1{,}000 | 1000
    1,\!000 | 1,000
    1.5\times 10^3 | 1500
    10^3 | 1000
    \frac12 | \dfrac{1}{2}
    \frac12 | 0.5
    \tfrac12 | 1/2
    11 \frac{2}{3} | \frac{35}{3}
    -5 | −5
    \$32,\!348 | 32348
    50\% | 50
    50 | 50\%
    20\text{ percent} | 20\%
    10\text{ cm}^2 | 10
    15\mbox{ cm}^2 | 15 cm^2
    8\sqrt{3} \text { square inches} | 8\sqrt3
    65 | 65 tickets
    48^\circ | 48°
    27^\circ, 63^\circ | 63, 27
    \text{4:30 p.m.} | 4:30 p.m.
    \text{4:30 p.m.} | 4:30 PM
    \text{June 20} | June 20
    \text{(A)} | A
    A | \text{A}
    \text{A,C,F} | C, A, F
    \text{Saturday} | saturday
    5 | x=5
    x = 5 | 5.0
    10 | m + n = 10
    5 | 2 + 3 = 5
    y=2x+3 | 2x+3
    y=2x+3 | 2x-y+3=0
    4x-5y=-50 | 5y=4x+50
    -2,1 | x=1 \text{ or } x=-2
    3 \text{ or } 5 | 5, 3
    1 \pm \sqrt{19} | 1+\sqrt{19}, 1-\sqrt{19}
    \{1,2\} | \{ 2, 1 \}
    x \in [-2,7] | [-2,7]
    (-\infty,-2] \cup [-1,\infty) | [-1,∞)\cup(-∞,-2]
    \left(\frac34,5\right) | (3/4, 5)
    \begin{pmatrix} 1/2 \\ 3 \end{pmatrix} | \begin{bmatrix} \frac12 \\ 3 \end{bmatrix}
    \frac{\sqrt{2}}{2} | \frac{1}{\sqrt 2}
    \frac{3}{4}\pi | 0.75\pi
    (r+5)^2 | r^2+10r+25
    (1+i)^2 | 2i
    \frac{1}{i} | -i
    \cos 13^\circ | \sin 77^\circ
    2^{2005} | 2\cdot2^{2004}
    11010_2 | 11010_{2}
    1:2 | \frac{1}{2}
    f(2) < f(1) < f(4) | f(2)<f(1)<f(4)
    \emptyset | \varnothing
"""

DIFFERENT = r"""
    1/2 | 1/3
    \frac{1}{3} | 0.33
    \frac{1}{3} | 0.333333
    \sqrt{2} | 1.414214
    5 | -5
    .38 | 38
    1,000 | 1
    1,000 | 000
    2 3 | 23
    50\% | 0.5
    100000000000000000001 | 100000000000000000000
    2^{2005} | 2^{2005}+1
    \frac{1}{2004!} | \frac{1}{2005!}
    \frac{1}{2004!} | 0
    10^{-20} | 10^{-21}
    \infty | -\infty
    5 | \frac{1}{0}
    (1,2) | (2,1)
    [0,1) | (0,1)
    (0,1] | [0,1)
    \{1,2\} | \{1,3\}
    3,5 | 3
    3 | 3,5
    x=1,x=2 | x=1
    1\pm\sqrt{2} | 1+\sqrt{2}
    (-\infty,2)\cup(3,\infty) | (-\infty,3)\cup(2,\infty)
    \begin{pmatrix}1&2\end{pmatrix} | \begin{pmatrix}1\\2\end{pmatrix}
    x^2 | x^3
    4t | 4
    4t | t
    3R^2 | 3r^2
    -3i | 3i
    \sin x | \cos x
    xy | x+y
    a=9 | b=9
    y=2x+3 | y=3x+2
    4x-5y=-50 | -50
    0 | x-3z=0
    A | B
    C | c
    \text{ACF} | \text{FCA}
    \text{east} | \text{seat}
    \text{even} | \text{odd}
    \text{no solution} | 0
    2:30 | 3:30
    1:15 | 2:30
    1:2 | 2:1
    9\text{ a.m.} | 9\text{ p.m.}
    9\text{ a.m.} | 9
    101_2 | 5
    101_2 | 101_3
    101_2 | 101
    \overline{CD} | \overline{AB}
    65 | 65 \text{ or } 70
    f(2)<f(1)<f(4) | f(4)<f(1)<f(2)
"""


def pairs(table: str) -> list[tuple[str, ...]]:
    return [tuple(side.strip() for side in line.split(" | ")) for line in table.strip().splitlines()]


@pytest.mark.parametrize(("gold", "given"), pairs(SAME))
def test_two_spellings_of_one_answer(gold: str, given: str) -> None:
    assert same_math_answer(gold, given)


@pytest.mark.parametrize(("gold", "given"), pairs(DIFFERENT))
def test_near_misses(gold: str, given: str) -> None:
    assert not same_math_answer(gold, given)
    assert not same_math_answer(given, gold)


@pytest.mark.parametrize("nothing", ["", " ", "$$", r"\,", "."])
def test_what_says_nothing_is_never_right(nothing: str) -> None:
    assert not same_math_answer("5", nothing)
    assert not same_math_answer(nothing, nothing)
    assert extract_math_answer(rf"\boxed{{{nothing}}}") is None


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{\frac{1}{2}} and $3$", r"\frac{1}{2}"),
        (r"\boxed{1}, or rather \fbox{ 2 }", "2"),
        (r"\boxed{5} \boxed{} \boxed{72", "5"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        ("$3$\n#### x^2\n", "x^2"),
        ("#### Step 1\nThe answer is 9.", "9"),
        ("The final answer is $x = 5$. I hope it is correct.", "$x = 5$"),
        ("The answer is therefore $3$ or $5$, as $1 < 2$ shows. Really.", "$3$ or $5$, as $1 < 2$"),
        ("**Answer:** 3.5 cm. Next", "3.5 cm"),
        ("The answer to this question is (B)", "(B)"),
        ("The answer is 1. No, the answer is 2.", "2"),
        ("Answer:\n\\[ 5 \\]", r"\[ 5 \]"),
        (r"First $2$, then \(3x\).", r"\(3x\)"),
        ("It costs \\$5, that is $$7$$", "$$7$$"),
        ("so there are 5 ways", None),
        ("", None),
    ],
)
def test_what_a_response_states(response: str, answer: str | None) -> None:
    assert extract_math_answer(response) == answer


FRAGMENTS = [
    *"0159xi,.-+=(){}[]|^_/:;%$!<> \n\\", r"\frac", r"\sqrt", r"\pi", r"\boxed{", r"\text{ cm}", r"\left", r"\cup", "°",
    r"\infty", r"\pm", r"\begin{pmatrix}", "&", r"\\", r"\end{pmatrix}", "answer is ", "\n#### ", "or", "−", "\x00",
    "\ud800",
]  # fmt: skip
TEXTS = st.text(max_size=30) | st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join)


@settings(max_examples=300)
@given(TEXTS)
def test_what_is_extracted_is_the_same_as_itself(response: str) -> None:
    for text in (response, rf"\boxed{{{response}}}"):
        answer = extract_math_answer(text)
        assert answer is None or same_math_answer(answer, answer)


@settings(max_examples=100)
@given(TEXTS, TEXTS)
def test_no_text_is_too_strange(gold: str, given: str) -> None:
    assert same_math_answer(gold, given) in (True, False)


@given(st.fractions(max_denominator=20), st.fractions(max_denominator=20))
def test_numbers_are_compared_exactly(one: Fraction, other: Fraction) -> None:
    fraction = rf"\frac{{{other.numerator}}}{{{other.denominator}}}"
    assert same_math_answer(str(one), fraction) == same_math_answer(fraction, str(one)) == (one == other)


@pytest.mark.parametrize(
    "piece", ["{", "}", "{}", r"\boxed{", r"\(", "$", r"\text{", "answer is ", "answer ", " ", "1,"]
)
def test_long_responses_are_read_in_linear_time(piece: str) -> None:
    """Anything worse than linear would take minutes here."""
    long = piece * (100_000 // len(piece))
    extract_math_answer(long)
    extract_math_answer(rf"\boxed{{{long}}}")
    assert not same_math_answer("5", long)
    assert not same_math_answer("5", rf"\frac{{{long}")


def test_the_library_is_there_or_named() -> None:
    check_math_verify()
