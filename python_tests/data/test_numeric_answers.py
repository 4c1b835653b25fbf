"""Where a response states its number, and when two ways to write one are the same."""
# ruff: noqa: RUF001 - signs of multiplication and quotation marks are what is tested

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.data.answers.numbers import extract_number, normalize_number


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
        (
            "-1/2",
            ["-\\frac{1}{2}", "-\\dfrac12", "- \\tfrac{1}{2}", "$-\\frac{1}{2}$", "\\frac{-1}{2}", "x = -\\frac12"],
        ),
        ("-1/2", ["-{1/2}", "\\text{-}\\frac{1}{2}", "- 0.5", "-\\frac{\\text{1}}{2}", "\N{MINUS SIGN}\\frac{1}{2}"]),
        ("-3/2", ["-1\\frac{1}{2}", "-\\frac{3}{2}", "-\\frac{3}2", "-\\frac3{2}", "-\\frac 3 2"]),
        ("1/12", ["\\frac{1}{12}", "\\frac1{12}", "\\frac{\\text{1}}{12}", "\\frac{1}{{12}}", "+\\frac{ 1 }{ 12 }"]),
        (
            "12",
            ["12 m^2", "12\\text{ m}^2", "12\\ \\text{m}^{2}", "12\\,\\mathrm{cm}^2", "12~\\text{cm}^{3}", "12 m/s^2"],
        ),
        (
            "12",
            [
                "12 m²",
                "12 cm³.",
                "12 N·m",
                "12 m·s⁻²",
                "12 kg\\cdot m^{-1}",
                "12\\ \\mathrm{m\\cdot s^{-1}}",
                "12 m ^ 2",
            ],
        ),
        (
            "30",
            ["30^\\circ", "30^{\\circ}", "30^\\circ\\text{C}", "30^{\\circ} F", "30°", "30 °C", "30\\degree", "30 º"],
        ),
        ("12", ["€12", "£12", "¥12", "₹12", "12€", "12 £", "12¢", "\\$12", "\\pounds 12", "\\euro12"]),
        ("12", ["\\text{\\$}12", "\\$\\text{12}", "\\$12/hour", "$12 / day", "\\$12 \\text{ per hour}", "€ 12.00"]),
        (
            "12",
            [
                "{12}",
                "{{12}}",
                "\\text{12}",
                "\\textbf{\\text{12}}",
                "{\\bf 12}",
                "\\mathbf{{12}}",
                "{" * 50 + "12" + "}" * 50,
            ],
        ),
        ("12", ["+12", "+ 12", "+$12", "$+12", "+\\$12", "+12 m", "x = +12"]),
        ("-5", ["-€5", "€-5", "- £5", "-\\$5"]),
        (
            "1500",
            ["1.5 \\times 10^3", "1.5 \\times 10^{3}", "1.5 \\cdot 10^3", "1.5 × 10³", "1.5 times 10^3", "1.5*10^3"],
        ),
        (
            "1500",
            [
                "1.5 x 10^3 miles",
                "\\$1.5\\times10^{3}",
                "15 · 10^{2}",
                "150,000 \\times 10^{-2}",
                "1.5 \\times 10^{ 3 }",
            ],
        ),
        ("-3/2000", ["-1.5 \\times 10^{-3}", "-\\frac{3}{2} \\times 10^{-3}"]),
        (
            "1000",
            ["1'000", "1\N{RIGHT SINGLE QUOTATION MARK}000", "$1'000.00", "1\u202f000", "1\u00a0000", "1\u2009000"],
        ),
        ("1000000", ["1'000'000", "1\\,000\\,000", "1{,}000{,}000"]),
    ],
)
def test_one_value_has_one_normal_form(value: str, ways: list[str]) -> None:
    assert {way: normalize_number(way) for way in ways} == dict.fromkeys(ways, value)


@pytest.mark.parametrize(
    "text",
    [
        "", "seventy-two", "x", "3 hours 20 minutes", "5\\text{ hours and }20\\text{ minutes}", "10^3", "2 + 3",
        "72 - x", "3, 4", "1,08", "1,0800", "3.14.15", "1e3", "5/x", "2/0", "9" * 5000, "٧٢",
        "10^{3}", "10³", "3x^2", "3 x^2 m", "12 m^22", "12 m^2 3", "1'00", "1'0000", "1 000", "5'11", "±5", "+-5",
        "\\frac{1}{0}", "\\frac{1+2}{3}", "\\frac{a}{2}", "\\frac{1}{2}{3}", "\\frac{1}", "12 \\times 10", "12 × 3",
        "1.5 × 10^{999}", "1.5 × 10^3.5", "1.5 × 10^", "{12} {13}", "\\text{12}13", "30^\\circ 15", "$12 and €13", "+",
    ],
)  # fmt: skip
def test_what_is_not_one_number(text: str) -> None:
    assert normalize_number(text) is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("-\\frac{1}{2}", "\\frac{1}{2}"),
        ("\\frac{1}{12}", "\\frac{11}{2}"),
        ("12 m^2", "122 m"),
        ("12 m^2", "144 m"),
        ("30^\\circ", "300"),
        ("€12", "€1.2"),
        ("{12}", "{1}{2}"),
        ("+5", "-5"),
        ("1.5 \\times 10^{3}", "1.5 \\times 10^{4}"),
        ("1.5 \\times 10^{3}", "1.5"),
        ("1'000", "1"),
        ("1'000", "1.000"),
    ],
)
def test_another_number_stays_another(right: str, wrong: str) -> None:
    assert normalize_number(right) != normalize_number(wrong)
    assert extract_number(f"It is \\boxed{{{right}}}.") == normalize_number(right) is not None
    assert extract_number(f"It is \\boxed{{{wrong}}}.") != normalize_number(right)


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
        ("\\boxed{\\boxed{12}}", "12"),
        ("\\boxed{1 + \\boxed{2}} 9", "2"),
        ("\\boxed{{12}} and } or { 9", "12"),
        ("\\boxed{5} \\boxed{72", "5"),
        ("} \\boxed{1'000}", "1000"),
        ("The area is 12 m^2.", "12"),
        ("The area is 12 m² in all.", "12"),
        ("It is 12\\text{ cm}^{3}", "12"),
        ("per 12 s^{-1}", "12"),
        ("heated to 30^\\circ", "30"),
        ("2^3 = 8", "8"),
        ("which gives -\\frac{1}{2}.", "-1/2"),
        ("10-\\frac{1}{2}", "1/2"),
        ("3+4", "4"),
        ("it costs €5 or £6.", "6"),
        ("about 1.5 \\times 10^3 of them", "1500"),
        ("for 1'000 people", "1000"),
        ("#### 12 m^2", "12"),
        ("#### \\frac{1}{2}", "1/2"),
        ("\\boxed{72", "72"),  # the canvas was too short for the brace
    ],
)
def test_the_final_answer_of_a_response(response: str, answer: str | None) -> None:
    assert extract_number(response) == answer


@given(
    st.text(alphabet="0123456789,./$%-#\\boxed{}frac \n", max_size=60)
    | st.lists(st.sampled_from([*"0159,./$%-+€°^'{} \n", "\\frac", "\\times10^", "\\boxed{", "m^2"])).map("".join)
)
def test_no_response_is_too_strange(response: str) -> None:
    answer = extract_number(response)
    assert answer is None or normalize_number(answer) == answer


LENGTH = 50_000
REPEATED = [
    " ", "\t", "\n", " \n", "\u00a0", "1", "1,", "1,000", ",000", "1 ", "1/", "1/2 ", "1 1/", "0.", ".", "-", "- ",
    "$", "$ ", "{", "}", "{}", "\\", "\\boxed{", "\\boxed{1", "\\boxed ", "\\boxed{}", "\\frac", "\\frac{",
    "\\frac{1}", "\\frac1", "\\text{", "^", "^{", "10^", " x", "1 x 10^3", "a", "a ", "m^2 ", "°", "%", "#",
    "####\n", "=", "a=", "1'000", "⁻", "²", "·", "/a", "*",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("piece", REPEATED)
def test_degenerate_responses_are_read_in_linear_time(piece: str) -> None:
    """Anything worse than linear would take many seconds to days here."""
    repeated = piece * (LENGTH // len(piece))
    for text in (
        f"1{repeated}!",
        f"\\boxed{{1 m{repeated}!}} 2",
        f"#### -{repeated}1!",
        f"a = {repeated}\\frac{{{repeated}",
    ):
        answer = extract_number(text)
        assert answer is None or len(answer) <= 100
