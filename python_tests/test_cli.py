import subprocess
import sys
from pathlib import Path

import pytest
from fake_jobs import FakeSettings, add_job, replace_run

from tad_ext.cli import main
from tad_ext.jobs import jobs
from tad_ext.settings import options_of

JOBS = jobs()


@pytest.fixture
def job(monkeypatch):
    """Makes `tad job` call a function with its settings."""
    seen = []

    def register(function=lambda settings: None):
        def run(settings):
            seen.append(settings)
            return function(settings)

        add_job(monkeypatch, run)
        return seen

    return register


@pytest.mark.parametrize("name", JOBS)
def test_every_command_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"usage: tad {name}" in text
    assert f"tad {name}" in text.partition("example:")[2]
    options = text.partition("options:")[2].partition("example:")[0]
    assert "--config FILE" in options
    explained = [line for line in options.splitlines() if line.startswith("  --")]
    assert len(explained) >= (2 if name in ("doctor", "policies") else 3)


def test_a_command_of_two_words(capsys):
    assert main(["plot", "trace", "--help"]) == 0
    assert "usage: tad plot trace" in capsys.readouterr().out
    assert main(["plot"]) == 2
    assert "unknown command 'plot'; expected one of " in capsys.readouterr().err
    assert main(["plot", "trace"]) == 2
    assert "tad plot trace: error: missing --input" in capsys.readouterr().err


@pytest.mark.parametrize("name", JOBS)
def test_every_option_has_a_meaning(name):
    for option in options_of(JOBS[name].settings):
        assert option.help, f"{name} {option.flag}"


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_the_overview_names_every_command(argv, capsys):
    assert main(argv) == 0
    text = capsys.readouterr().out
    for name, command in JOBS.items():
        assert name in text
        assert command.settings.summary in text


def test_an_unknown_command(capsys):
    assert main(["colect"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("tad: error: unknown command 'colect'; expected one of collect, compare, convert, demo, ")
    assert err.endswith("(see tad --help)\n")


def test_the_job_gets_its_settings(job, tmp_path):
    seen = job()
    (tmp_path / "job.yaml").write_text("model: m\nsteps: 3\n")
    assert main(["job", "--config", str(tmp_path / "job.yaml"), "--steps", "5"]) == 0
    assert seen == [FakeSettings(model="m", steps=5)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "missing --model"),
        (["--modle", "m"], "did you mean --model?"),
        (["--model", "m", "--steps", "x"], "--steps is 'x'; expected an integer"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(job, capsys, argv, message):
    seen = job()
    assert main(["job", *argv]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("tad job: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert out == ""
    assert seen == []


def test_an_unknown_yaml_key_names_the_file_and_the_known_keys(job, capsys, tmp_path):
    job()
    (tmp_path / "job.yaml").write_text("model: m\nstepz: 3\n")
    assert main(["job", "--config", str(tmp_path / "job.yaml")]) == 2
    assert "job.yaml: unknown key 'stepz'; did you mean steps?; known keys: model, steps" in capsys.readouterr().err


def raising(source):
    """A job compiled as if it stood in a module of tad_ext, so that its errors count as meant for the user."""
    names = {"__name__": "tad_ext.somewhere"}
    exec(f"def run(settings):\n    {source}", names)
    return names["run"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("raise ValueError('rank is 0; expected >= 1')", 2),
        ("raise TypeError('rank is 0; expected >= 1')", 2),
        ("raise FileNotFoundError('rank is 0; expected >= 1')", 2),
        ("raise RuntimeError('rank is 0; expected >= 1')", 1),
        ("raise FloatingPointError('rank is 0; expected >= 1')", 1),
    ],
)
def test_an_error_raised_on_purpose_is_one_line(job, capsys, source, code):
    job(raising(source))
    assert main(["job", "--model", "m"]) == code
    assert capsys.readouterr().err == "tad job: error: rank is 0; expected >= 1\n"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import json; json.loads('[')", ValueError),
        ("assert False", AssertionError),
        ("raise KeyError('model')", KeyError),
    ],
)
def test_a_bug_keeps_its_traceback(job, source, error):
    job(raising(source))
    with pytest.raises(error):
        main(["job", "--model", "m"])


def test_an_error_raised_outside_the_package_is_a_bug(job):
    def elsewhere(settings):
        raise ValueError("not ours")

    job(elsewhere)
    with pytest.raises(ValueError, match="not ours"):
        main(["job", "--model", "m"])


def test_a_missing_file_is_one_line_wherever_it_is_opened(job, capsys):
    job(lambda settings: Path("/nonexistent/file").read_text())
    assert main(["job", "--model", "m"]) == 2
    assert "/nonexistent/file" in capsys.readouterr().err


def test_ctrl_c_is_calm(job, capsys):
    def interrupted(settings):
        raise KeyboardInterrupt

    job(interrupted)
    assert main(["job", "--model", "m"]) == 130
    assert capsys.readouterr().err == "\ntad job: stopped\n"

    def interrupted_with_a_message(settings):
        raise KeyboardInterrupt("3 of 4 are done")

    job(interrupted_with_a_message)
    assert main(["job", "--model", "m"]) == 130
    assert capsys.readouterr().err == "\ntad job: stopped: 3 of 4 are done\n"


def test_the_exit_code_of_a_job_is_passed_on(job):
    job(lambda settings: 1)
    assert main(["job", "--model", "m"]) == 1
    job(lambda settings: {"result": 1})
    assert main(["job", "--model", "m"]) == 0


@pytest.fixture
def two_processes(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")


@pytest.mark.parametrize("name", [name for name, command in JOBS.items() if not command.settings.shared])
def test_commands_that_write_and_share_no_work_are_refused_under_torchrun(name, two_processes, monkeypatch, capsys):
    replace_run(monkeypatch, name, lambda settings: 7)
    required = [option.flag for option in options_of(JOBS[name].settings) if option.required]
    required += {"generate": ["--prompt"], "convert": ["--jsonl"]}.get(name, [])
    code = main([*name.split(), *(word for flag in required for word in (flag, "x"))])
    if name in ("doctor", "policies", "validate"):
        assert code == 7
        return
    assert code == 2
    assert capsys.readouterr().err == (
        f"tad {name}: error: expected one process, got WORLD_SIZE=2: only tad collect, tad distill, tad evaluate, tad "
        f"lm-eval, tad sft share their work among processes; start this command without torchrun or accelerate, once "
        f"for each GPU if you like (--device cuda:1) (see tad {name} --help)\n"
    )


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("collect", []),
        ("distill", ["--trajectories", "t"]),
        ("evaluate", []),
        ("lm-eval", ["--tasks", "t"]),
        ("sft", ["--data", "d"]),
    ],
)
def test_commands_that_share_their_work_are_not(name, given, two_processes, monkeypatch):
    replace_run(monkeypatch, name, lambda settings: 7)
    assert main([name, "--model", "m", "--output", "o", *given]) == 7


def test_help_needs_no_torch():
    program = (
        "import sys, tad_ext.cli; code = tad_ext.cli.main(sys.argv[1:]); "
        "print([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    for arguments in (["--help"], *([*name.split(), "--help"] for name in JOBS)):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]", arguments


def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "tad_ext", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown command 'nothing'" in done.stderr
