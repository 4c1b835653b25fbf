"""The house's floors: which room of the package may import from which, and what production may not include."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [
    {"cli"},
    {"jobs"},
    {"distillation", "evaluation"},
    {"decoding", "data"},
    {"models", "ops", "settings", "sharing", "files", "interrupts", "terminal"},
]


def imports() -> dict[str, set[str]]:
    """Room -> the other rooms that its files import from, at their top or in a function."""
    package = ROOT / "tad_ext"
    found: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        place = file.relative_to(package).with_suffix("").parts
        if len(place) > 1 or not place[0].startswith("__"):
            found.setdefault(place[0], set()).update(
                name for name in imported(file, ("tad_ext", *place)) if name != place[0]
            )
    return found


def called_by_name() -> set[tuple[str, str]]:
    """(file, room above its own) where a text names what an upper floor has, as ``pkgutil.resolve_name`` takes it."""
    package = ROOT / "tad_ext"
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    found = set()
    for file in package.rglob("*.py"):
        room = file.relative_to(package).with_suffix("").parts[0]
        for other in re.findall(r"[\"']tad_ext\.(\w+)[\w.]*:\w+[\"']", file.read_text()):
            if room in floor_of and floor_of[other] < floor_of[room]:
                found.add((str(file.relative_to(package)), other))
    return found


def imported(file: Path, module: tuple[str, ...]) -> set[str]:
    """The rooms that one file imports from."""
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            start = module[: -node.level] if node.level else ()
            path = (*start, *(node.module or "").split(".")) if node.module else start
            paths = [(*path, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            paths = [tuple(alias.name.split(".")) for alias in node.names]
        else:
            continue
        rooms |= {path[1] for path in paths if path[0] == "tad_ext" and len(path) > 1}
    return rooms


def test_every_room_stands_on_a_floor_and_imports_from_none_above():
    floor_of = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    arrows = imports()
    assert set(arrows) == set(floor_of)
    upward = [(room, other) for room, others in arrows.items() for other in others if floor_of[other] < floor_of[room]]
    assert upward == []


def test_one_thing_above_is_called_by_its_name():
    """``model.generate``, which transformers' users expect on a model; it is decoding's."""
    assert called_by_name() == {("models/base.py", "decoding")}


def test_there_is_no_circle_of_rooms():
    assert len(list(TopologicalSorter(imports()).static_order())) == len(imports())


def test_a_job_is_its_settings_and_its_run_and_uses_no_other_job_but_in_the_demo():
    for folder in (ROOT / "tad_ext" / "jobs").iterdir():
        if not folder.is_dir() or folder.name.startswith("__"):
            continue
        assert {"__init__.py", "config.py", "run.py"} <= {file.name for file in folder.iterdir()}
        others = {
            match
            for file in folder.glob("*.py")
            for match in re.findall(r"tad_ext\.jobs\.(\w+)", file.read_text())
            if match not in (folder.name, "common")
        }
        assert not others or folder.name == "demo", (folder.name, others)


def test_production_includes_nothing_of_tests_or_of_the_simulator():
    for folder in ("common", "cpu", "cuda", "bindings"):
        for file in (ROOT / "csrc" / folder).iterdir():
            for included in re.findall(r'#include "([^"]+)"', file.read_text()):
                allowed = included == "../cuda_on_host/platform.h" and file.name == "platform.cuh"
                assert allowed or not re.search(r"\btests/|cuda_on_host/", included), (file.name, included)
