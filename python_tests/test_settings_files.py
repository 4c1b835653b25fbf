"""What a YAML file of settings says, and what is refused in it by name."""

from dataclasses import dataclass, field

import pytest

from tad_ext.settings import Count, OptionError, Settings, parse


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
    count: Count = 1


@pytest.fixture
def read(tmp_path):
    """Settings from the content of a file."""

    def settings(content: str | bytes) -> Example:
        file = tmp_path / "settings.yaml"
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return parse(Example, ["--config", str(file)])

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
        ("steps: 0x10", "steps must be an integer, got '0x10'"),
        ("steps: 0o10", "steps must be an integer, got '0o10'"),
        ("steps: 1:30", "steps must be an integer, got '1:30'"),
        ("steps: 1_000", "steps must be an integer, got '1_000'"),
        ("steps: 1e3", "steps must be an integer, got 1000.0"),
        ("steps: !!int many", "steps must be an integer, got 'many'"),
        ("steps: " + "9" * 5000, r"steps must be an integer, got '9{79}\.\.\. \(5,002 characters\)"),
        ("count: 0", r"count must be an integer in \[1, 2147483647\], got 0"),
        ("rate: .nan", "rate must be a finite number, got '.nan'"),
        ("rate: -.inf", "rate must be a finite number, got '-.inf'"),
        ("rate: 1e999", "rate must be a finite number, got '1e999'"),
        ("rate: 1" + "0" * 400, r"rate must be a finite number, got 10+\.\.\. \(401 characters\)"),
        ("rate: '0.5'", "rate must be a finite number, got '0.5'"),
        ("rates: [1, .inf]", r"rates\[1\] must be a finite number, got '.inf'"),
        ("rates: [[1]]", r"rates\[0\] must be a finite number, got \[1\]"),
        ("text: a\nrates: [{a: 1}]", r"rates\[0\] must be a finite number, got {'a': 1}"),
        ("rates: &a [*a]", "unconstructable recursive node .*line 1"),
        ("rates: " + "[" * 5000, "is not a file of settings: it is nested too deeply"),
        ("rates: !!omap []", "tag:yaml.org,2002:omap is no type of a setting, .*line 1"),
        ("text: {a: 1}", "text must be text, got {'a': 1}"),
        ("text: !mine a", "!mine is no type of a setting, .*line 1"),
        ("text: !!timestamp a", "timestamp is no type of a setting, .*line 1"),
        ("text: !!python/object/apply:os.getcwd []", "tag:yaml.org,2002:python/.* is no type of a setting"),
        ("!mine {text: a}", "!mine is no type of a setting"),
        ("just words", "holds 'just words'; expected a mapping"),
        ("? [a, b]\n: 3", "found unhashable key .*line 1, column 3"),
        ("text: 'a\u2028b'", r"is not a YAML file: character 8 is U\+2028, which old YAML takes for a line's end"),
        ("text: a\x85steps: 3", r"character 7 is U\+0085"),
        ("text: a\x0cb", "is not a YAML file: unacceptable character #x000c"),
        ('text: "a\\ud800"', r"text must be text, got 'a\\ud800'"),
        ('text: "a\\0"', r"text must be text, got 'a\\x00'"),
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
