"""Names, text forms and the registry of the policies."""

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from policy_cases import EVERY_POLICY, FILTER, named_policies

from tad_ext.decoding import (
    KLASS,
    AdaBlock,
    ConfidenceThreshold,
    EntropyThreshold,
    LocalLeap,
    NamedPolicy,
    SchED,
    TopK,
    parse_policy,
)
from tad_ext.decoding.policies import policies_by_name, text_form
from tad_ext.settings import Count


def test_parse_policy():
    assert parse_policy("topk:1") == TopK(1)
    assert parse_policy("confidence:0.9") == ConfidenceThreshold(0.9)
    assert parse_policy(" entropy : 1.5 ") == EntropyThreshold(1.5)


@given(named_policies())
def test_the_string_of_a_policy_names_it(policy):
    assert parse_policy(str(policy)) == policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown name ''"),
        ("entropie:0.5", "unknown name 'entropie'"),
        ("entropy", "policy 'entropy'"),
        ("entropy:", "policy 'entropy:'"),
        ("entropy:low", "'low'"),
        ("entropy:nan", r"EntropyThreshold.threshold must be a finite number in \[0, 1000000\], got 'nan'"),
        ("entropy:-0.1", r"got -0.1"),
        ("confidence:90", r"ConfidenceThreshold.threshold must be a finite number in \[0, 1\], got 90"),
        ("topk:0", r"TopK.k must be an integer in \[1, 2147483647\], got 0"),
        ("topk:1.5", "'1.5'"),
    ],
)
def test_parse_policy_refuses(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_policy(text)
    assert '"entropy:0.5"' in str(error.value)  # says what would be right


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("topk", TopK(1)),
        ("topk:k=3", TopK(3)),
        ("klass", KLASS(0.9, 0.01, 2)),
        ("klass:0.6", KLASS(0.6)),
        (" klass : divergence = 0.015 , threshold=0.6 ", KLASS(0.6, 0.015)),
        ("klass:0.6,divergence=0.015", KLASS(0.6, 0.015)),
        ("localleap:radius=8", LocalLeap(radius=8)),
        ("sched:schedule=linear", SchED(schedule="linear")),
        ("adablock:delimiters=198+13", AdaBlock(delimiters=(198, 13))),
        ("adablock:delimiters=", AdaBlock(delimiters=())),
    ],
)
def test_parameters_by_name_and_defaults(text, policy):
    assert parse_policy(text) == policy


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (TopK(3), "topk:3"),
        (KLASS(0.6), "klass:0.6"),
        (KLASS(0.6, 0.015), "klass:threshold=0.6,divergence=0.015,forwards=2"),
        (SchED(schedule="linear"), "sched:high=7.5,low=2.5,schedule=linear,rate=4.0,steps=0,order=entropy"),
    ],
)
def test_what_a_policy_is_written_as(policy, text):
    assert str(policy) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entropy", "EntropyThreshold.threshold is missing"),
        ("klass:threshhold=1", r"'threshhold=1' names no parameter of KLASS \(there are: threshold, divergence, forw"),
        ("klass:0.9,0.01", r"'0.01' names no parameter of KLASS"),
        ("klass:0.9,threshold=0.8", "KLASS.threshold is given twice"),
        ("klass:", "KLASS.threshold must be a finite number in .*, got ''"),
        ("klass:threshold=1.5", r"KLASS.threshold must be a finite number in \[0, 1\], got 1.5"),
        ("klass:forwards=0", r"KLASS.forwards must be an integer in \[1, 2147483647\], got 0"),
        ("klass:forwards=two", "KLASS.forwards must be an integer in .*, got 'two'"),
        ("sched:schedule=square", "SchED.schedule must be one of cosine, linear, exp, got 'square'"),
        (
            "adablock:delimiters=13+dot",
            r"AdaBlock.delimiters must be a list, each entry an integer in .*, got '13\+dot'",
        ),
        ("sched:rate=-1", r"SchED.rate must be a finite number in \[0, 1000000\], got -1.0"),
    ],
)
def test_errors_name_policy_field_and_value(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_policy(text)
    assert f"policy {text!r}" in str(error.value)


def test_a_word_must_be_text():
    with pytest.raises(TypeError, match=r"SchED\.schedule must be one of cosine, linear, exp, got 1"):
        SchED(schedule=1)


def test_every_policy_is_described():
    assert sorted({text.partition(":")[0] for text in EVERY_POLICY}) == sorted(policies_by_name)
    for name, policy in policies_by_name.items():
        assert policy.name == name
        assert policy.rule
        assert policy.source
        assert policy.__doc__
    assert text_form(TopK) == "topk:1"
    assert text_form(EntropyThreshold) == "entropy:THRESHOLD"
    assert text_form(KLASS) == "klass:threshold=0.9,divergence=0.01,forwards=2"


@pytest.mark.parametrize("name", sorted(policies_by_name))
def test_the_text_form_is_understood(name):
    text = text_form(policies_by_name[name])
    assert parse_policy(text.replace("THRESHOLD", "0.25").replace("FILTER", FILTER)).name == name


def test_defining_a_policy_is_enough(registry):
    @dataclass(frozen=True)
    class Leftmost(NamedPolicy, name="leftmost", rule="the k lowest positions", source="a test"):
        k: Count = 1
        side: Literal["left", "right"] = "left"

        def __call__(self, statistics, state):
            return -state.positions.float(), state.eligible.cumsum(dim=-1) <= self.k

    assert registry["leftmost"] is Leftmost
    assert parse_policy("leftmost:k=2,side=right") == Leftmost(2, "right")
    assert str(Leftmost(2)) == "leftmost:2"
    with pytest.raises(ValueError, match=r"Leftmost.k must be an integer in \[1, 2147483647\], got 0"):
        parse_policy("leftmost:0")


def test_a_policy_without_parameters(registry):
    @dataclass(frozen=True)
    class Never(NamedPolicy, name="never", rule="nothing", source="a test"):
        def __call__(self, statistics, state):
            return statistics.confidence, state.eligible & False

    assert str(Never()) == text_form(Never) == "never"
    assert parse_policy("never") == Never()
    with pytest.raises(ValueError, match=r"'1' names no parameter of Never \(there are: none\)"):
        parse_policy("never:1")


def test_a_policy_without_a_rule_is_refused(registry):
    @dataclass(frozen=True)
    class Nothing(NamedPolicy, name="nothing", rule="nothing", source="a test"):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Nothing()


def test_a_name_is_given_once(registry):
    with pytest.raises(ValueError, match="policy name 'topk' of Other is taken by TopK"):

        class Other(NamedPolicy, name="topk", rule="another", source="a test"):
            pass


def test_a_field_of_an_unknown_type_is_refused(registry):
    @dataclass(frozen=True)
    class Odd(NamedPolicy, name="odd", rule="nothing", source="a test"):
        tokens: list = ()

        def __call__(self, statistics, state):
            return statistics.confidence, state.eligible

    with pytest.raises(TypeError, match=r"Odd\.tokens has type"):
        Odd()
