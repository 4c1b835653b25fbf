"""tools/unchanged.py: what has passed is not run again while its sources are the same."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import unchanged


@pytest.fixture
def run(tmp_path, monkeypatch):
    """run(code): the exit code, and whether a command that exits with `code` was run."""
    monkeypatch.setattr(unchanged, "ROOT", tmp_path)
    monkeypatch.setattr(unchanged, "PASSED", tmp_path / "passed.txt")
    monkeypatch.delenv("AGAIN", raising=False)
    monkeypatch.delenv("MAKEFLAGS", raising=False)
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "a.cpp").write_text("int a;")

    def run(code=0, name="check"):
        ran = tmp_path / "ran"
        program = f"open({str(ran)!r}, 'w'); raise SystemExit({code})"
        status = unchanged.main([name, "csrc/**/*.cpp", "--", sys.executable, "-c", program])
        found = ran.exists()
        ran.unlink(missing_ok=True)
        return status, found

    return run


def test_what_has_passed_is_not_run_again_until_a_source_changes(run, tmp_path, monkeypatch):
    assert run() == (0, True)
    assert run() == (0, False)
    assert run(name="another") == (0, True)
    assert run() == (0, False), "both are noted"
    for change in (
        lambda: (tmp_path / "csrc" / "a.cpp").write_text("int b;"),
        lambda: (tmp_path / "csrc" / "b.cpp").write_text(""),
        lambda: (tmp_path / "csrc" / "b.cpp").rename(tmp_path / "csrc" / "c.cpp"),
        lambda: monkeypatch.setenv("AGAIN", "1"),
    ):
        change()
        assert run() == (0, True)


def test_make_that_only_shows_what_it_would_run_passes_nothing(run, monkeypatch):
    monkeypatch.setenv("MAKEFLAGS", "n --no-print-directory")
    assert run() == (0, True)
    monkeypatch.setenv("MAKEFLAGS", " --no-print-directory")
    assert run() == (0, True)
    assert run() == (0, False)


def test_what_fails_is_run_again(run):
    assert run(3) == (3, True)
    assert run(0) == (0, True)
    assert run(3) == (0, False)


def test_the_makefile_names_the_helpers_of_the_operators_tests():
    """A helper that is missing there could change what they test, and they would not be run again."""
    root = Path(__file__).resolve().parents[1]
    tests = root / "python_tests"
    (listed,) = re.findall(r"^OP_HELPERS := (.*)$", (root / "Makefile").read_text(), re.MULTILINE)
    helpers = {path.stem: path for path in (tests / "helpers").iterdir()}
    imported, unread = set(), [tests / "conftest.py", *(tests / "ops").glob("*.py")]
    while unread:
        imports = re.findall(r"\b(?:from|import) .*", unread.pop().read_text())  # in the text of programs, too
        new = set(re.findall(r"\w+", " ".join(imports))) & helpers.keys() - imported
        imported |= new
        unread += [helpers[name] for name in new]
    assert sorted(imported) == listed.split()
