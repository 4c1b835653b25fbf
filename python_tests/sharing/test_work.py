"""Work in units: who takes which, that all of it is done once, and what is judged beside it."""

import threading
import time
from pathlib import Path

import pytest

from tad_ext.data.tasks.judging import judged
from tad_ext.sharing.claims import Claims
from tad_ext.sharing.journal import Journal, read_journals
from tad_ext.sharing.work import Place, Unit, units_of, work_together

KEYS = [f"k{number}" for number in range(25)]


class Results:
    """Units of two groups, and which of their keys are done, by whom."""

    def __init__(self) -> None:
        self.units = [*units_of(KEYS, 4, group="a"), *units_of(KEYS, 4, group="b")]
        self.done: list[tuple[str, str]] = []
        self.taken: list[tuple[int, list[str]]] = []

    def open_units(self) -> list[Unit[str]]:
        return [unit for unit in self.units if (unit.group, unit.keys[-1]) not in self.done]

    def work(self, folder: Path, place: Place, **options: int) -> None:
        def do(taken: list[Unit[str]]) -> None:
            self.taken.append((place.rank, [unit.name for unit in taken]))
            time.sleep(0.01)
            for unit in taken:
                if unit in self.open_units():
                    self.done += [(unit.group, key) for key in unit.keys]

        work_together(folder, "work", self.open_units, do, place=place, wait=0.01, **options)


def test_units_are_the_list_cut_in_pieces_with_names_of_their_own() -> None:
    units = units_of(KEYS, 4)
    assert [key for unit in units for key in unit.keys] == KEYS
    assert [units[0].name, units[1].name, units[-1].name] == ["00000000-4", "00000004-4", "00000024-1"]


def test_a_process_alone_takes_a_group_at_a_time_or_so_many_units(tmp_path: Path) -> None:
    results = Results()
    results.work(tmp_path, Place())
    assert [len(names) for _, names in results.taken] == [7, 7]
    assert all(len({name[0] for name in names}) == 1 for _, names in results.taken)
    results = Results()
    results.work(tmp_path, Place(), most=3)
    assert [len(names) for _, names in results.taken] == [3, 3, 1, 3, 3, 1]
    assert sorted(results.done) == sorted((group, key) for group in "ab" for key in KEYS)
    assert list(tmp_path.iterdir()) == []


def test_ranks_share_without_overlap_and_begin_apart(tmp_path: Path) -> None:
    results = Results()
    threads = [threading.Thread(target=results.work, args=(tmp_path, Place(rank, 3))) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(results.done) == sorted((group, key) for group in "ab" for key in KEYS)
    first = {rank: names[0] for rank, names in reversed(results.taken)}
    assert len(set(first.values())) == 3
    assert all(len(names) <= 14 // 3 for _, names in results.taken)


def test_who_finds_all_taken_waits_until_it_is_done(tmp_path: Path) -> None:
    results = Results()
    with Claims(tmp_path, "work") as other:
        for unit in results.units:
            assert other.take(unit.name)
        waiting = threading.Thread(target=results.work, args=(tmp_path, Place()))
        waiting.start()
        time.sleep(0.1)
        assert waiting.is_alive()
        assert results.taken == []
        results.done = [(unit.group, key) for unit in results.units for key in unit.keys]
        waiting.join(timeout=60)
    assert not waiting.is_alive()
    assert results.taken == []


@pytest.mark.parametrize(("rank", "world_size"), [("1", "1"), ("-1", "2"), ("0", "x")])
def test_a_place_that_makes_no_sense(monkeypatch: pytest.MonkeyPatch, rank: str, world_size: str) -> None:
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world_size)
    with pytest.raises(ValueError, match="0 <= RANK < WORLD_SIZE"):
        Place.of_this_process()


def test_journals_give_back_what_was_written_but_for_what_is_damaged(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"of": "this"})
    for number in range(4):
        journal.add({"number": number, "text": "a\u2028b\r"})
    lines = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\n".join([*lines[:2], lines[2][:9], *lines[3:]]) + b'{"number": 9')
    ((path, heading, rows),) = read_journals(tmp_path, dict, dict, of="a test")
    assert (path, heading) == (journal.path, {"of": "this"})
    assert rows == [{"number": number, "text": "a\u2028b\r"} for number in (0, 2, 3)]
    assert read_journals(tmp_path, dict, dict, of="a test", wanted=lambda path: False) == []
    (tmp_path / ".rows-0.jsonl").write_text("7\n")
    with pytest.raises(ValueError, match=r"\.rows-0\.jsonl: expected what a test has written down"):
        read_journals(tmp_path, lambda value: dict(value), dict, of="a test")


def test_responses_are_judged_in_order_while_others_come() -> None:
    may_end = threading.Event()

    def responses():  # type: ignore[no-untyped-def]
        yield 0
        yield 1
        may_end.set()  # asked for while 0 is still judged
        yield 2

    def judge(number: int) -> int:
        assert number or may_end.wait(timeout=30)
        return 10 * number

    assert list(judged(responses(), judge)) == [0, 10, 20]
    with pytest.raises(ZeroDivisionError):
        list(judged([1, 0], lambda number: 1 // number))
