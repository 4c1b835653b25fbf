"""Claims: one process has a piece of work, and what a process leaves behind is free again."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tad_ext.sharing import claims
from tad_ext.sharing.claims import Claims


def test_a_claim_is_had_by_one_until_it_is_given_back(tmp_path: Path) -> None:
    with Claims(tmp_path, "") as one, Claims(tmp_path, "") as other:
        assert one.take("a")
        assert not other.take("a")
        assert not one.take("a")
        assert other.take("b")
        one.give_back("a")
        assert other.take("a")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_come_at_once_share_without_overlap(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from tad_ext.sharing.claims import Claims\n"
    script += "with Claims(Path(sys.argv[1]), '') as own:\n"
    script += "    print(*[number for number in range(40) if own.take(str(number))], flush=True); sys.stdin.read()"
    command, pipe = [sys.executable, "-c", script, str(tmp_path)], subprocess.PIPE
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    shares = [process.stdout.readline().split() for process in processes if process.stdout]  # all are alive until here
    for process in processes:
        process.communicate()
    assert sorted(int(number) for share in shares for number in share) == list(range(40))
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_has_claimed_is_free(tmp_path: Path) -> None:
    script = "import os, sys; from pathlib import Path; from tad_ext.sharing.claims import Claims\n"
    script += "Claims(Path(sys.argv[1]), '').take('a'); os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert (tmp_path / ".claim-a").exists()
    with Claims(tmp_path, "") as own:
        assert own.take("a")


def test_who_is_the_last_to_leave_removes_what_the_dead_have_left(tmp_path: Path) -> None:
    script = "import os, sys; from pathlib import Path; from tad_ext.sharing.claims import Claims\n"
    script += "claims = [Claims(Path(sys.argv[1]), '')._signed() for _ in range(20)]\n"  # any order of a folder's files
    script += "[one.__enter__() for one in claims]; os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert len(list(tmp_path.glob(".tmp-*-claim"))) == 20
    with Claims(tmp_path, "") as own:
        assert own.take("a")
    assert list(tmp_path.iterdir()) == []


HERE = {"machine": socket.gethostname()}


@pytest.mark.parametrize("changes", [{}, HERE, HERE | {"space": None}])
@pytest.mark.parametrize(("age", "free"), [(10, False), (1_000, True)])
def test_of_a_process_elsewhere_only_signs_of_life_are_known(
    tmp_path: Path, changes: dict[str, Any], age: float, free: bool
) -> None:
    """On another machine, or in another container of this one."""
    claim = tmp_path / ".claim-a"
    elsewhere = {"machine": "another", "space": "", "pid": os.getpid(), "started": "1", "claims": "", "work": ""}
    claim.write_text(json.dumps(elsewhere | changes))
    os.utime(claim, (time.time() - age,) * 2)
    with Claims(tmp_path, "") as own:
        assert own.take("a") == free


def test_what_this_process_has_left_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken, Claims(tmp_path, "") as one:
        assert one.take("a")
        broken.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(PermissionError))
        one.__exit__()
    assert (tmp_path / ".claim-a").exists()
    with Claims(tmp_path, "") as other:
        assert other.take("a")


def test_who_would_do_something_else_is_refused(tmp_path: Path) -> None:
    with Claims(tmp_path, "this") as one, Claims(tmp_path, "that") as other:
        assert one.take("a")
        message = rf"another run, process {os.getpid()} on .*, works in '{tmp_path}' on"
        for piece in ("a", "b"):
            with pytest.raises(ValueError, match=message):
                other.take(piece)
        other.give_back("b")
        assert one.take("b")
    with Claims(tmp_path, "that") as other:
        assert other.take("a")


def test_claims_are_kept_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "FRESHENED", 0.05)
    with Claims(tmp_path, "") as own:
        own.take("a")
        os.utime(tmp_path / ".claim-a", (0, 0))
        deadline = time.monotonic() + 30
        while (tmp_path / ".claim-a").stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / ".claim-a").stat().st_mtime > 0
