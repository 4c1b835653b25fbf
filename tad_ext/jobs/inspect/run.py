"""`tad inspect`: what trajectory files hold, in numbers and as a map of the reveal order; or one of them replayed."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tad_ext.data.trajectories.files import Part, read_parts, repeats
from tad_ext.data.trajectories.journal import read_journals
from tad_ext.data.trajectories.metadata import TrajectoryMetadata
from tad_ext.data.trajectories.statistics import RunStatistics, reveal_order, run_statistics
from tad_ext.files import output_folder, write_json
from tad_ext.jobs.inspect.config import InspectConfig
from tad_ext.jobs.inspect.heat_map import plot_reveal_orders, shaded
from tad_ext.jobs.inspect.replay import replay
from tad_ext.sharing.claims import CLAIM
from tad_ext.terminal import printable

REPORT, PICTURE = "inspect.json", "reveal_order.png"
_LENGTHS = {
    "steps": "forwards",
    "prompt_tokens": "tokens of the prompt",
    "teacher_prompt_tokens": "tokens of the teacher's prompt",
    "response_tokens": "tokens of the response",
    "answers_per_problem": "answers per problem",
}


@dataclass(frozen=True)
class Folder:
    """What a folder holds, whether or not a collection still writes into it."""

    path: str
    parts: list[Part]
    waiting: int  #: answers that are written down and not yet in a part
    claimed: int  #: pieces of work that processes have claimed


def inspect(config: InspectConfig) -> None:
    """Prints what the folders hold, and writes it to `output`, if that is given; or replays trajectories.

    Raises ValueError for a folder that is none, a file that cannot be read, or no such trajectory.
    """
    output = None if config.output is None else output_folder(config.output)
    folders = [_read(path) for path in config.trajectories]
    parts = [part for folder in folders for part in folder.parts]
    for file, fault in repeats(parts):
        raise ValueError(f"{file} {fault}")
    if config.replay is not None:
        _replay(config, parts)
        return
    statistics = run_statistics(parts, _eos_token_ids(config))
    orders = {one.run: _order(parts, one) for one in statistics if one.kept}
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for folder in folders:
        console.print(_heading(folder))
    for number, one in enumerate(statistics, 1):
        console.print()
        console.print(_title(number, one), style="bold")
        for line in _counts(one):
            console.print(line)
        console.print(_table(one))
        if one.run in orders:
            console.print("when positions are revealed, by the share of the forwards that has passed:")
            for line in shaded(orders[one.run]):
                console.print(line)
    if output is not None:
        write_json(output / REPORT, _report(folders, statistics, orders))
        if orders:
            named = {_title(number, one): orders[one.run] for number, one in enumerate(statistics, 1) if one.kept}
            plot_reveal_orders(named, output / PICTURE)
        print(f"written to {output}")


def _read(path: str) -> Folder:
    folder = Path(path)
    journals = read_journals(folder)  # first: what is in a part by the time that these are read, waits no more
    parts = read_parts(folder)
    done = {(part.metadata, key) for part in parts for key in part.keys}
    written = {(run, row.key) for _, run, rows in journals for row in rows}
    return Folder(path, parts, len(written - done), sum(1 for _ in folder.glob(f"{CLAIM}*")))


def _eos_token_ids(config: InspectConfig) -> Sequence[int]:
    if config.model is None:
        return ()
    from tad_ext.models.loading import load_config  # here, because the models' libraries take seconds to import

    return load_config(config.model).eos_token_ids or ()


def _replay(config: InspectConfig, parts: Sequence[Part]) -> None:
    """Every trajectory of the problem and sample that was asked for: runs may have one each."""
    from tad_ext.models.loading import load_tokenizer

    key = (config.replay, config.sample)
    found = [(part, item) for part in parts for item in part.trajectories if item.key == key]
    if not found:
        known = dict.fromkeys(item.id for part in parts for item in part.trajectories)
        some = ", ".join(map(repr, list(known)[:3]))
        raise ValueError(
            f"replay is {config.replay!r} and sample {config.sample}, of which there is no trajectory in "
            f"{', '.join(config.trajectories)}; expected one of {len(known)} problems ({some}, ...)"
        )
    tokenizer = load_tokenizer(str(config.model))
    for part, item in found:
        right = "right" if item.correct else "wrong"
        print(f"{item.id}, sample {item.sample}, of {_name(part.metadata)}: {right} answer {item.answer!r}")
        replay(item, part.metadata.mask_token_id, tokenizer)


def _order(parts: Sequence[Part], one: RunStatistics) -> np.ndarray:
    return reveal_order([item for part in parts if part.metadata == one.run for item in part.trajectories])


def _heading(folder: Folder) -> str:
    text = (
        f"{folder.path}: {len(folder.parts)} files, {sum(len(part.trajectories) for part in folder.parts)} trajectories"
    )
    if folder.waiting or folder.claimed:
        text += (
            f"; a collection is not finished: {folder.waiting} answers are written down and not yet in a file, "
            f"{folder.claimed} pieces of work are claimed"
        )
    return text


def _title(number: int, one: RunStatistics) -> str:
    return f"run {number}: {_name(one.run)}"


def _name(run: TrajectoryMetadata) -> str:
    return printable(
        f"{run.task} {run.split}, {run.policy} at temperature {run.temperature:g}, {run.gen_length} positions in "
        f"blocks of {run.block_length}, seed {run.seed}, by {run.model}"
    )


def _counts(one: RunStatistics) -> Iterator[str]:
    share = "" if one.acceptance is None else f" ({100 * one.acceptance:.1f} % of the decoded)"
    decoded = "" if one.decoded is None else f"{one.decoded} answers decoded, "
    yield f"{decoded}{one.right} right{share}, {one.kept} kept, of {one.problems} problems; {one.files} files"
    behind = ""
    if one.states_behind_eos is not None and one.positions_behind_eos is not None:
        behind = (
            f"; behind the end of sequence: {100 * one.states_behind_eos:.1f} % of the states, "
            f"{100 * one.positions_behind_eos:.1f} % of the positions"
        )
    yield f"{one.states} states, {one.bytes / max(one.kept, 1):.0f} bytes per trajectory{behind}"


def _table(one: RunStatistics) -> Table:
    table = Table("", "min", "median", "mean", "max", box=None, padding=(0, 2, 0, 0))
    for name, title in _LENGTHS.items():
        spread = getattr(one, name)
        if spread is not None:
            table.add_row(title, f"{spread.least}", f"{spread.median:g}", f"{spread.mean:.1f}", f"{spread.most}")
    return table


def _report(
    folders: Sequence[Folder], statistics: Sequence[RunStatistics], orders: dict[TrajectoryMetadata, np.ndarray]
) -> dict[str, Any]:
    return {
        "folders": [
            {"path": one.path, "files": len(one.parts), "waiting": one.waiting, "claimed": one.claimed}
            for one in folders
        ],
        "runs": [
            asdict(one)
            | {"acceptance": one.acceptance}
            | {"reveal_order": orders[one.run].round(4).tolist() if one.run in orders else None}
            for one in statistics
        ],
    }
