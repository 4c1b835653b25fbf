"""The table of planted bugs fits the sources, and the tool says what a test found."""

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
import planted_bugs
from planted_bugs import BUILDS, ROOT, Bug, first_words, main, read_table

BUGS = read_table()


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_every_bug_has_its_place_and_its_test(bug: Bug) -> None:
    source = (ROOT / "csrc" / bug.file).read_text()
    assert bug.planted(source) != source
    folder, name = bug.caught_by.split("_", 1)
    assert (ROOT / "csrc" / "tests" / folder / f"{name}.cpp").exists()
    assert bug.build in BUILDS


def test_names_are_different() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 8


def test_a_bug_is_written_as_in_a_diff(tmp_path: Path) -> None:
    path = tmp_path / "bugs.diff"
    path.write_text(
        "# a comment\n\n@@ late: a.h, a_test\n-  sync();\n   read();\n+  sync();\n"
        "\n# ---- others ----\n@@ gone: b.h, b_test, thread\n-x\n"
    )
    late, gone = read_table(path)
    assert late == Bug("late", "a.h", "  sync();\n  read();", "  read();\n  sync();", "a_test", "plain")
    assert gone == Bug("gone", "b.h", "x", "", "b_test", "thread")


def test_a_place_that_is_gone_or_not_the_only_one_is_refused() -> None:
    bug = dataclasses.replace(BUGS[0], name="gone", old="a + b")
    with pytest.raises(ValueError, match=r"bug gone: .*'a \+ b' 0 times, expected once"):
        bug.planted("a - b")
    with pytest.raises(ValueError, match="2 times"):
        bug.planted("a + b; a + b")


def test_an_unknown_bug_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--only", "nothing"])
    assert "argument --only: 'nothing', expected a name that --list prints" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("x\na_test.cpp:7: failed: b is 1 [V 8]\na_test.cpp:8: failed: c", "a_test.cpp:7: failed: b is 1 [V 8]"),
        ("==7==ERROR: AddressSanitizer: bad\nSUMMARY: AddressSanitizer: bad /tmp/csrc/b.cuh:3 in void f()",
         "AddressSanitizer: bad csrc/b.cuh:3"),
        ("/tmp/a/csrc/cuda/b.cuh:3:1: runtime error: load of", "csrc/cuda/b.cuh:3:1: runtime error: load of"),
        ("one\ntwo", "a crash: one / two"),
    ],
)  # fmt: skip
def test_the_first_words_of_a_failure(output: str, words: str) -> None:
    assert first_words(output) == words


def test_exit_status_says_whether_all_were_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def all_but_the_first_are_caught(bugs: list[Bug], jobs: int, cmake: str) -> int:
        asked.append((len(bugs), jobs, cmake))
        return len(BUGS) - len(bugs)

    monkeypatch.setattr(planted_bugs, "plant", all_but_the_first_are_caught)
    assert main(["--cmake", sys.executable]) == 0
    assert main(["--only", BUGS[0].name, "--jobs", "1", "--cmake", sys.executable]) == 1
    assert asked == [(len(BUGS), 2, sys.executable), (1, 1, sys.executable)]
