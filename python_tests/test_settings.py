from dataclasses import dataclass, field

import pytest

from tad_ext.settings import OptionError, Settings, Switch, explanation, options_of, parse, setting


@dataclass(frozen=True)
class Example(Settings):
    model: str = field(metadata={"help": "checkpoint folder"})
    rate: float = field(default=1e-3, metadata={"help": "learning rate, 50 % of the usual"})
    steps: int = 10
    clip: float | None = None
    name: str | None = "run"
    verbose: bool = False
    thresholds: tuple[float, ...] = (0.1, 0.5)
    targets: tuple[str, ...] | None = None


def read(tmp_path, *argv, yaml=None):
    if yaml is not None:
        (tmp_path / "settings.yaml").write_text(yaml, encoding="utf-8")
        argv = ("--config", str(tmp_path / "settings.yaml"), *argv)
    return parse(Example, argv)


def test_defaults(tmp_path):
    assert read(tmp_path, "--model", "m") == Example(model="m")


def test_the_command_line_overrides_yaml_overrides_defaults(tmp_path):
    settings = read(tmp_path, "--steps", "3", yaml="model: from_yaml\nsteps: 2\nrate: 0.5\n")
    assert (settings.model, settings.steps, settings.rate, settings.clip) == ("from_yaml", 3, 0.5, None)


def test_every_kind_from_the_command_line(tmp_path):
    settings = read(
        tmp_path, "--model", "m", "--rate", "2e-5", "--clip=1", "--name", "none", "--verbose",
        "--thresholds", "0.1,0.3", "0.5", "--targets", "q", "v",
    )  # fmt: skip
    assert settings == Example("m", 2e-5, 10, 1.0, None, True, (0.1, 0.3, 0.5), ("q", "v"))
    assert isinstance(settings.clip, float)


def test_every_kind_from_yaml(tmp_path):
    text = "model: m\nrate: 2e-5\nclip: 1\nname: null\nverbose: true\nthresholds: [1, 0.3]\ntargets: [q, v]\nsteps: 4\n"
    settings = read(tmp_path, yaml=text)
    assert settings == Example("m", 2e-5, 4, 1.0, None, True, (1.0, 0.3), ("q", "v"))
    assert isinstance(settings.rate, float)
    assert isinstance(settings.thresholds[0], float)


def test_a_false_flag_overrides_a_true_one_in_yaml(tmp_path):
    assert read(tmp_path, "--verbose", "false", yaml="model: m\nverbose: true").verbose is False


@pytest.mark.parametrize("argv", [["--no-verbose"], ["--no_verbose"], ["--verbose", "false"], ["--verbose=no"]])
def test_ways_to_say_no(tmp_path, argv):
    assert read(tmp_path, *argv, yaml="model: m\nverbose: true").verbose is False


@pytest.mark.parametrize(
    "argv", [["--verbose"], ["--verbose", "true"], ["--verbose=on"], ["--no-verbose", "--verbose"]]
)
def test_ways_to_say_yes(tmp_path, argv):
    assert read(tmp_path, "--model", "m", *argv).verbose is True


@pytest.mark.parametrize(
    "value", ["-5+3=?", "-", "--", "- a list", "--end of a text", "-1", "-h2", "--1", "a=b", "", "\n"]
)
def test_a_value_may_begin_with_a_dash(tmp_path, value):
    assert read(tmp_path, "--model", value).model == value
    assert read(tmp_path, f"--model={value}").model == value
    assert read(tmp_path, "--model", "m", "--targets", value or "a", "b").targets == (value or "a", "b")


def test_a_value_that_reads_like_an_option_is_attached(tmp_path):
    assert read(tmp_path, "--model=--end").model == "--end"
    assert read(tmp_path, "--model=--steps=3").model == "--steps=3"
    assert read(tmp_path, "--model", "m", "--targets=--a", "b", "--targets=--c").targets == ("--a", "b", "--c")


def test_of_an_option_given_twice_a_list_has_both_and_else_the_last_counts(tmp_path):
    settings = read(tmp_path, "--model", "m", "--steps", "1", "--thresholds", "1", "--thresholds", "2,3", "--steps=2")
    assert (settings.steps, settings.thresholds) == (2, (1.0, 2.0, 3.0))


def test_none_overrides_a_number_in_yaml(tmp_path):
    assert read(tmp_path, "--clip", "none", yaml="model: m\nclip: 1.0").clip is None


def test_options_may_be_written_with_underscores():
    @dataclass(frozen=True)
    class Config(Settings):
        gen_length: int = 1

    for flag in ("--gen-length", "--gen_length"):
        assert parse(Config, [flag, "8"]).gen_length == 8
        assert parse(Config, [f"{flag}=8"]).gen_length == 8


def test_negative_numbers(tmp_path):
    assert read(tmp_path, "--model", "m", "--rate", "-0.5").rate == -0.5


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_an_integer_of_any_size_is_one_but_no_number_that_is_finite(number):
    assert Example("m", steps=number).steps == number
    with pytest.raises(ValueError, match=r"rate must be a finite number, got -?10+\.\.\. \(40. characters\)"):
        Example("m", rate=number)


def test_an_empty_yaml_file_sets_nothing(tmp_path):
    assert read(tmp_path, "--model", "m", yaml="# nothing here\n") == Example(model="m")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "m", "--steps", "many"], "--steps is 'many'; expected an integer"),
        (["--model", "m", "--steps", "1.5"], "--steps is '1.5'; expected an integer"),
        (["--model", "m", "--rate", "fast"], "--rate is 'fast'; expected a finite number"),
        (["--model", "m", "--clip", "low"], "--clip is 'low'; expected a finite number or none"),
        (["--model", "m", "--verbose", "maybe"], "--verbose is 'maybe'; expected true or false"),
        (
            ["--model", "m", "--thresholds", "0.1,x"],
            "--thresholds is '0.1,x'; expected a list, each entry a finite number",
        ),
        (["--model", "m", "--step", "3"], "unknown argument --step; did you mean --steps?"),
        (["--model", "m", "stray"], "unknown argument stray"),
        (["--model"], "argument --model: expected one argument$"),
        (["--model", "m", "--steps", "--rate", "1"], "argument --steps: expected one argument"),
        (["--model", "m", "--targets"], "argument --targets: expected at least one argument$"),
        (["--model", "caf\udce9"], "--model is 'caf.'; expected text"),
        (["--model", "m", "--targets", "q", "\ud83d"], "--targets is 'q .'; expected a list, each entry text"),
        (["--model", "--end"], "argument --model: expected one argument; .* is written --model=--end"),
        (["--model", "m", "--targets", "q", "--end"], "unknown argument --end; as a value .* written --targets=--end"),
        (
            ["--model", "m", "--no-verbose=true"],
            "--no-verbose takes no value, got 'true'; expected --no-verbose or --v",
        ),
        (["--model", "m", "--no-verbose", "true"], "unknown argument true"),
        (["--model", "m", "--no-steps"], "unknown argument --no-steps"),
        (["--model", "m", "--no-verbos"], "unknown argument --no-verbos; did you mean --no-verbose?"),
        (["--model", "m", "--rate", "nan"], "--rate is 'nan'; expected a finite number"),
        (["--model", "m", "--rate=-inf"], "--rate is '-inf'; expected a finite number"),
        (["--model", "m", "--rate", "1e400"], "--rate is '1e400'; expected a finite number"),
        (["--model", "m", "--clip", "Infinity"], "--clip is 'Infinity'; expected a finite number or none"),
        (
            ["--model", "m", "--thresholds", "0.1", "nan"],
            "--thresholds is '0.1 nan'; expected a list, each entry a fin",
        ),
        (
            ["--model", "m", "--steps", "9" * 5000],
            r"--steps is '9{80}\.\.\. \(5,000 characters\)'; expected an integer",
        ),
        (["--steps", "3"], r"missing --model \(in YAML: model\)"),
    ],
)
def test_bad_arguments_are_named(tmp_path, argv, message):
    with pytest.raises(OptionError, match=message):
        read(tmp_path, *argv)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("model: m\nstep: 3", "settings.yaml: unknown key 'step'; did you mean steps.*known keys: model, rate, steps"),
        ("model: m\nzzz: 3", "settings.yaml: unknown key 'zzz'; known keys: model, rate"),
        ("model: m\nsteps: many", "settings.yaml: steps must be an integer, got 'many'"),
        ("model: m\nsteps: 1.5", "steps must be an integer, got 1.5"),
        ("model: m\nsteps: true", "steps must be an integer, got True"),
        ("model: m\nsteps: null", "steps must be an integer, got None"),
        ("model: m\nverbose: 1", "verbose must be true or false, got 1"),
        ("model: 3", "model must be text, got 3"),
        ("model: m\nrate: quick", "rate must be a finite number, got 'quick'"),
        ("model: m\nthresholds: 0.5", "thresholds must be a list, each entry a finite number, got 0.5"),
        ("model: m\nthresholds: [0.5, x]", r"thresholds\[1\] must be a finite number, got 'x'"),
        ("model: m\nmodel: n", "settings.yaml is not a YAML file: key 'model' is written twice"),
        ("- model", r"holds \['model'\]; expected a mapping"),
        ("model: [", "settings.yaml is not a YAML file"),
        ("steps: 3", "missing --model"),
    ],
)
def test_bad_yaml_is_named(tmp_path, yaml, message):
    with pytest.raises(OptionError, match=message):
        read(tmp_path, yaml=yaml)


def test_a_missing_yaml_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml.*is not a file"):
        read(tmp_path, "--config", str(tmp_path / "nowhere.yaml"))


def test_help_shows_every_option_with_its_meaning_and_default():
    text = explanation(Example, "tad job", description="Does a job.", example="tad job --model m")
    assert "Does a job." in text
    assert "tad job --model m" in text
    assert "checkpoint folder (required)" in text
    assert "50 % of the usual (default: 0.001)" in text
    assert "--verbose, --no-verbose " in text
    for option in options_of(Example):
        assert option.flag in text


def test_a_field_that_has_no_option_form_is_refused():
    @dataclass(frozen=True)
    class Config(Settings):
        table: dict[str, int] = field(default_factory=dict)

    with pytest.raises(TypeError, match=r"Config.table has type"):
        options_of(Config)

    @dataclass(frozen=True)
    class Either(Settings):
        either: bool | int = False

    with pytest.raises(TypeError, match=r"Either.either has type"):
        options_of(Either)


@dataclass(frozen=True)
class Switched(Settings):
    graphs: Switch = setting("auto", help="recorded or not")


@pytest.mark.parametrize(
    ("argv", "yaml", "value"),
    [
        ([], "", "auto"),
        (["--graphs"], "", True),
        (["--graphs", "on"], "", True),
        (["--no-graphs"], "graphs: true", False),
        (["--graphs=false"], "", False),
        (["--graphs", "auto"], "graphs: false", "auto"),
        ([], "graphs: auto", "auto"),
        ([], "graphs: 'auto'", "auto"),
        ([], "graphs: true", True),
        ([], "graphs: off", False),
    ],
)
def test_a_switch_is_true_or_false_or_left_to_the_program(tmp_path, argv, yaml, value):
    (tmp_path / "settings.yaml").write_text(yaml)
    settings = parse(Switched, ["--config", str(tmp_path / "settings.yaml"), *argv])
    assert settings == Switched(value)
    assert settings.graphs is value or value == "auto"


def test_what_a_switch_is_not(tmp_path):
    expected = "true, false or auto"
    with pytest.raises(OptionError, match=f"--graphs is 'maybe'; expected {expected}"):
        parse(Switched, ["--graphs", "maybe"])
    for value in ("maybe", 1):
        (tmp_path / "settings.yaml").write_text(f"graphs: {value}")
        with pytest.raises(OptionError, match=f"graphs must be {expected}, got '?{value}'?"):
            parse(Switched, ["--config", str(tmp_path / "settings.yaml")])
        with pytest.raises(TypeError, match=f"graphs must be {expected}, got '?{value}'?"):
            Switched(value)
    text = explanation(Switched, "tad job", description="Does a job.", example="tad job")
    assert "--graphs, --no-graphs " in text
    assert "recorded or not (default: auto)" in text


def test_texts_may_hold_commas_where_a_setting_says_so():
    @dataclass(frozen=True)
    class Texts(Settings):
        stop: tuple[str, ...] = field(default=(), metadata={"help": "texts", "commas": True})

    def stop(*argv):
        return parse(Texts, argv).stop

    assert stop("--stop", "one, two", "\n\n", "three") == ("one, two", "\n\n", "three")
    assert stop("--stop", "one", "") == ("one", "")
    assert stop() == ()
