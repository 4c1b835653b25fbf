"""Every `tad` command that README, docs, settings files and help show is one, and options named in texts exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from tad_ext.jobs import jobs
from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.settings import made, options_of, parse

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"```\w*\n(.*?)```|`([^`]+)`", re.DOTALL)
COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )*tad (?:plot )?[a-z]+\b.*", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z](?:[\w-]*\w)?(?![\w-])")
JOBS = jobs()
OF_OTHER_COMMANDS = {"plot trace": {"--trace"}, "policies": {"--policy"}}


def commands_of(text: str) -> list[str]:
    """The command lines in code of Markdown, each in one line."""
    found = []
    for block, inline in CODE.findall(text):
        lines = block.replace("\\\n", " ") or inline.replace("\n", " ")
        found += COMMAND.findall(lines)
    return found


def settings_files() -> dict[str, str]:
    """The command in the comment at the top of each."""
    texts = {path.name: path.read_text() for path in (ROOT / "tad_ext" / "configs").glob("*.yaml")}
    return {name: re.search(r"^#\s+(tad .*)$", text, re.MULTILINE)[1] for name, text in texts.items()}


DOCUMENTED = [
    *[(page.name, command) for page in PAGES for command in commands_of(page.read_text(encoding="utf-8"))],
    *[(name, job.settings.example) for name, job in JOBS.items()],
    *settings_files().items(),
]


def parsed(command: str):
    """The settings that a command line stands for, what it leaves out being given."""
    words = shlex.split(command, comments=True)
    del words[: words.index("tad") + 1]
    name = next(name for name in JOBS if words[: len(name.split())] == name.split())
    config, words = JOBS[name].settings, words[len(name.split()) :]
    needed = [f"{option.flag}=somewhere" for option in options_of(config) if option.required]
    if name == "generate":
        needed += [] if {"--prompt", "--prompts", "--interactive"} & set(words) else ["--prompt=one"]
        needed += ["--output=somewhere"] if "--trace" in words else []
    if name == "convert":
        needed += [] if {"--jsonl", "--trajectories"} & set(words) else ["--jsonl=some"]
    return parse(config, [*needed, *words])


def test_commands_are_found():
    """The test below would say nothing without."""
    commands = [command for _, command in DOCUMENTED]
    assert len(commands) > 30
    assert 'tad generate --infill --no-chat --no-stop-at-eos --prompt "..."' in commands
    assert any("--config tad_ext/configs/distill-tiny.yaml" in command for command in commands)


@pytest.mark.parametrize(("where", "command"), DOCUMENTED)
def test_a_documented_command_is_understood(where, command, monkeypatch):
    monkeypatch.chdir(ROOT)  # settings files are named from there
    parsed(command)


def test_the_documented_infilling_goes_together():
    (command,) = {command for _, command in DOCUMENTED if "--infill" in command}
    settings = parsed(command)
    assert (settings.chat, settings.decoding.stop_at_eos, settings.decoding.infill) == (False, False, True)
    with pytest.raises(ValueError, match="infill is true and so is chat: expected --no-chat"):
        made(GenerateConfig, {"model": "m", "prompt": "p", "infill": True, "stop_at_eos": False})


def flags_of(name: str) -> set[str]:
    return {flag for option in options_of(JOBS[name].settings) for flag in option.flags} | {
        "--config",
        "--help",
    }


@pytest.mark.parametrize("name", JOBS)
def test_help_names_only_options_that_the_command_has(name):
    texts = [JOBS[name].description, *(option.help for option in options_of(JOBS[name].settings))]
    mentioned = {flag for text in texts for flag in FLAG.findall(text)}
    assert mentioned <= flags_of(name) | OF_OTHER_COMMANDS.get(name, set())


def messages() -> list[tuple[str, str]]:
    """Every text in the package's code that is no docstring, and where it stands."""
    found = []
    for path in sorted((ROOT / "tad_ext").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        found += [(f"{path.name}:{node.lineno}", node.value) for node in texts if id(node) not in docstrings]
    return found


def test_messages_name_only_options_that_exist():
    known = set().union(*map(flags_of, JOBS)) | {"--version", "--key"}  # of tad itself, and in usage lines
    named = [(flag, place) for place, text in messages() for flag in FLAG.findall(text)]
    assert len(named) > 10
    assert [(flag, place) for flag, place in named if flag not in known] == []
