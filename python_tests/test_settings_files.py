"""What a YAML file of settings says, and what is refused in it by name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tad_ext.settings import OptionError, Settings, parse


@dataclass(frozen=True)
class Example(Settings):
    text: str = "unset"
    rate: float = 1.0
    steps: int = 10
    clip: float | None = 1.0
    verbose: bool = False
    quiet: bool = True
    rates: tuple[float, ...] = ()
    texts: tuple[str, ...] = field(default=(), metadata={"commas": True})


@pytest.fixture
def read(tmp_path):
    """Settings from the content of a file."""

    def settings(content: str | bytes) -> Example:
        file = tmp_path / "settings.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return parse(Example, ["--config", str(file)], program="tad job")

    return settings


@pytest.mark.parametrize(
    ("content", "name", "value"),
    [
        ("steps: 010", "steps", 10),  # not octal
        ("steps: +5", "steps", 5),
        ("steps: !!int '3'", "steps", 3),
        ("rate: 1e-4", "rate", 1e-4),
        ("rate: 2E5", "rate", 2e5),
        ("rate: .5", "rate", 0.5),
        ("rate: 5.", "rate", 5.0),
        ("rates: [1e-4, 010, -.5]", "rates", (1e-4, 10.0, -0.5)),
        ("clip: ~", "clip", None),
        ("clip:", "clip", None),
        ("clip: none", "clip", None),
        ("verbose: yes", "verbose", True),
        ("verbose: On", "verbose", True),
        ("quiet: no", "quiet", False),
        ("quiet: off", "quiet", False),
        ("text: yes", "text", "yes"),
        ("text: off", "text", "off"),
        ("text: 2024-01-02", "text", "2024-01-02"),
        ("text: 2024-13-45", "text", "2024-13-45"),
        ("text: 1:30", "text", "1:30"),
        ("text: 1_000", "text", "1_000"),
        ("text: '3'", "text", "3"),
        ("text: !!str 3", "text", "3"),
        ("texts: [yes, a, 'null']", "texts", ("yes", "a", "null")),
        ("text: a\r\nsteps: 3\r\n", "text", "a"),
    ],
)
def test_a_word_means_what_it_looks_like(read, content, name, value):
    found = getattr(read(content), name)
    assert found == value
    assert type(found) is type(value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(read):
    assert read("\ufefftext: a\n") == Example(text="a")


def test_anchors_are_read(read):
    assert read("rates: &same [1, 2]\nrate: &one 3\nclip: *one\n") == Example(rates=(1, 2), rate=3, clip=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<<: {steps: 3}", "unknown key '<<'; known keys: text"),
        ("rates: &same [1]\n<<: *same", "unknown key '<<'"),
        ("base: &base {steps: 3}\n<<: *base", "unknown key 'base'"),
        ("steps: 3\n'steps': 4", "key 'steps' is written twice"),
        ("steps: 0x10", r"steps is '0x10' \(str\); expected an integer"),
        ("steps: 0o10", r"steps is '0o10' \(str\); expected an integer"),
        ("steps: 1:30", r"steps is '1:30' \(str\); expected an integer"),
        ("steps: 1_000", r"steps is '1_000' \(str\); expected an integer"),
        ("steps: 1e3", r"steps is 1000.0 \(float\); expected an integer"),
        ("steps: !!int many", r"steps is 'many' \(str\); expected an integer"),
        ("steps: " + "9" * 5000, r"steps is '9{79}\.\.\. \(5,002 characters\) \(str\); expected an integer"),
        ("rate: .nan", r"rate is '.nan' \(str\); expected a finite number"),
        ("rate: -.inf", r"rate is '-.inf' \(str\); expected a finite number"),
        ("rate: 1e999", r"rate is '1e999' \(str\); expected a finite number"),
        ("rate: 1" + "0" * 400, r"rate is 10+\.\.\. \(401 characters\) \(int\); expected a finite number"),
        ("rate: '0.5'", r"rate is '0.5' \(str\); expected a finite number"),
        ("rates: [1, .inf]", r"rates is \[1, '.inf'\] \(list\); expected a list, each entry a finite number"),
        ("rates: [[1]]", "line 1: rates holds a list; expected a list, each entry a finite number"),
        ("text: a\nrates: [{a: 1}]", "line 2: rates holds a mapping; expected a list, each"),
        ("rates: &a [*a]", "line 1: rates holds a list; expected a list"),
        ("rates: " + "[" * 5000, "is not a file of settings: it is nested too deeply"),
        ("rates: !!omap []", "rates holds a value of type tag:yaml.org,2002:omap; expected a list"),
        ("text: {a: 1}", "line 1: text holds a mapping; expected text"),
        ("text: !mine a", "line 1: text has the tag !mine; expected text"),
        ("text: !!timestamp a", "text has the tag .*timestamp; expected text"),
        (
            "text: !!python/object/apply:os.getcwd []",
            "text holds a value of type tag:yaml.org,2002:python/.*; expected",
        ),
        ("!mine {text: a}", "holds a value of type !mine; expected a mapping"),
        ("just words", "holds a single value; expected a mapping"),
        ("? [a, b]\n: 3", "line 1: a list is no key; expected the name of a setting"),
        ("text: 'a\u2028b'", r"is not a YAML file: character 8 is U\+2028, which old YAML takes for a line's end"),
        ("text: a\x85steps: 3", r"character 7 is U\+0085"),
        ("text: a\x0cb", "is not a YAML file: unacceptable character #x000c"),
        ('text: "a\\ud800"', r"text is 'a\\ud800' \(str\); expected text"),
        ('text: "a\\0"', r"text is 'a\\x00' \(str\); expected text"),
        ("text: a\n---\ntext: b", "is not a YAML file: expected a single document"),
        ("\ttext: a", r"is not a YAML file: .*'\\t'"),
        (b"text: \xff\xfe", "is not a YAML file: .*utf-8"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(read, content, message):
    with pytest.raises(OptionError, match=message) as caught:
        read(content)
    assert "settings.yaml" in str(caught.value)
    assert len(str(caught.value)) < 600
