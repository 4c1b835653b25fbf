"""Where a response states its number, and when two ways to write one are the same."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.data.numeric_answers import extract_number, normalize_number


@pytest.mark.parametrize(
    ("value", "ways"),
    [
        (
            "72",
            [
                "72",
                " 72 ",
                "72.",
                "72.0",
                "072",
                "$72",
                "\\$72",
                "$72.00",
                "€72",
                "72%",
                "72 %",
                "72\\%",
                "$72$",
                "**72**",
            ],
        ),
        ("72", ["x = 72", "72 clips", "72 kg.", "72 miles/hour", "72°", "144/2", "\\frac{144}{2}"]),
        ("72", ["72\\text{ clips}", "\\text{72 clips}", "\\textbf{72}", "72\\,\\mathrm{km}"]),
        ("1080", ["1,080", "1080", "$1,080.00", "1{,}080", "1\\,080", "1,\\!080"]),
        ("2500000", ["2,500,000", "2500000 dollars"]),
        ("-5", ["-5", "$-5", "-$5", "\N{MINUS SIGN}5", "-10/2"]),
        ("1/2", ["0.5", ".5", "1/2", "2/4", "1 / 2", "\\frac{1}{2}", "\\dfrac{1}{2}", "\\frac12", "0.50 cups"]),
        ("3/2", ["1.5", "1 1/2", "1\\frac{1}{2}", "3/2", "$1.50"]),
        ("-3/2", ["-1.5", "-1 1/2"]),
        ("1/3", ["1/3", "2/6"]),
        ("0", ["0", "0.00", "-0", "0/7"]),
    ],
)
def test_one_value_has_one_normal_form(value: str, ways: list[str]) -> None:
    assert {way: normalize_number(way) for way in ways} == dict.fromkeys(ways, value)


@pytest.mark.parametrize(
    "text",
    [
        "", "seventy-two", "x", "3 hours 20 minutes", "5\\text{ hours and }20\\text{ minutes}", "10^3", "2 + 3",
        "72 - x", "3, 4", "1,08", "1,0800", "3.14.15", "1e3", "5/x", "2/0", "9" * 5000, "٧٢",
    ],
)  # fmt: skip
def test_what_is_not_one_number(text: str) -> None:
    assert normalize_number(text) is None


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3), st.booleans(), st.sampled_from(["", "$", "\\$"]))
def test_decimals_are_exact(number: Decimal, commas: bool, currency: str) -> None:
    text = f"{currency}{number:,}" if commas else f"{currency}{number}"
    expected = Fraction(int(number * 1000), 1000)
    assert normalize_number(text) == str(expected)
    assert extract_number(f"So \\boxed{{{text}}}.") == extract_number(f"work\n#### {text}") == str(expected)
    assert extract_number(f"7 and 8, so the answer is {text}.") == str(expected)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("We get 3 + 4 = 7.", "7"),
        ("The total is $1,080.", "1080"),
        ("It is **12**, not less.", "12"),
        ("I end in the middle of 5 + 3 =", "3"),
        ("10-4", "4"),
        ("x-7", "7"),  # subtractions have no signed number
        ("(4)-5", "5"),
        ("from -5 to -10", "-10"),
        ("mix H2O", None),
        ("no number", None),
        ("", None),
        ("#### 72", "72"),
        ("48/2 = 24\n#### 72\nAnd 5 remarks.", "72"),
        ("#### 5\n#### 6", "6"),
        ("#### Step 1: add\nThe answer is 9.", "9"),
        ("#### 1. First, add\nThe answer is 9 then.", "9"),
        ("\\boxed{72} is right. 5 more words.", "72"),
        ("#### 5\nso \\boxed{72}", "72"),
        ("\\boxed{1} or rather \\boxed{2}", "2"),
        ("\\boxed{\\frac{3}{4}} 9", "3/4"),
        ("\\boxed{\\text{72 clips}} 9", "72"),
        ("\\boxed {72}", "72"),
        ("\\boxed{} in the end, 72", "72"),
        ("\\boxed{seventy-two}, that is 72", None),  # the box counts
        ("\\boxed{70 or 72}", None),
        ("\\boxed{72", "72"),  # the canvas was too short for the brace
    ],
)
def test_the_final_answer_of_a_response(response: str, answer: str | None) -> None:
    assert extract_number(response) == answer


@given(st.text(alphabet="0123456789,./$%-#\\boxed{}frac \n", max_size=60))
def test_no_response_is_too_strange(response: str) -> None:
    answer = extract_number(response)
    assert answer is None or normalize_number(answer) == answer
