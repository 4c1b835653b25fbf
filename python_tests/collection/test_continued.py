"""Units, ranks and runs that continue a folder leave no trace in it, and a folder of another run is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collection_runs import LenientTask, config, files, make_model, rows
from earlier_versions import bytes_fingerprint
from every_family import edit_json, with_changes
from hypothesis import given
from hypothesis import strategies as st

from tad_ext.data.trajectories import read_parts, read_trajectories, write_part
from tad_ext.data.trajectory_metadata import ProblemRange
from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.plan import open_units
from tad_ext.jobs.collect.run import collect

pytestmark = pytest.mark.slow


@given(
    st.integers(1, 60), st.integers(1, 16), st.lists(st.integers(0, 59), unique=True, max_size=12), st.integers(1, 5)
)
def test_units_cover_what_is_left_exactly_once(problems: int, unit_size: int, starts: list[int], length: int) -> None:
    covered: list[ProblemRange] = []
    for start in sorted(starts):
        stop = min(start + length, problems)
        if stop > start >= (covered[-1].stop if covered else 0):
            covered.append(ProblemRange(start, stop, 0, stop - start, ""))
    units = list(open_units(problems, covered, unit_size))
    done = [index for item in covered for index in range(item.start, item.stop)]
    assert sorted([*done, *(index for unit in units for index in unit)]) == list(range(problems))
    assert all(unit.start // unit_size == (unit.stop - 1) // unit_size for unit in units)  # so that one rank owns it


def test_units_batches_and_ranks_leave_no_trace(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(config(model, tmp_path / "plain"))
    collect(config(model, tmp_path / "units", unit_size=5, batch_size=20))
    for rank in (2, 0, 1):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("RANK", str(rank))
        summary = collect(config(model, tmp_path / "ranks", unit_size=4))
    assert summary.problems == summary.total == 20  # the last one counts everything
    assert {name[:10] for name in files(tmp_path / "ranks")} == {"part-00000", "part-00001", "part-00002"}
    assert rows(tmp_path / "plain") == rows(tmp_path / "units") == rows(tmp_path / "ranks")


def test_only_missing_units_are_decoded(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(config(model, tmp_path))
    whole = files(tmp_path)
    (tmp_path / "part-00000-00000008.parquet").unlink()
    decoded: list[int] = []
    real = collection.decode

    def counted(model: Any, prompts: Any, *arguments: Any, **options: Any) -> Any:
        decoded.append(len(prompts))
        return real(model, prompts, *arguments, **options)

    monkeypatch.setattr(collection, "decode", counted)
    collect(config(model, tmp_path))
    assert decoded == [8]
    assert files(tmp_path) == whole


def test_more_problems_continue_and_fewer_are_refused(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path / "grown", limit=11))
    before = files(tmp_path / "grown")
    collect(config(model, tmp_path / "grown", limit=20))
    assert files(tmp_path / "grown").items() > before.items()
    collect(config(model, tmp_path / "plain"))
    assert rows(tmp_path / "grown") == rows(tmp_path / "plain")
    with pytest.raises(
        ValueError, match=r"output: .*00000008.parquet covers problems up to number 16, this run has 12 only \(limit\)"
    ):
        collect(config(model, tmp_path / "plain", limit=12))


@pytest.mark.parametrize(("before", "after", "found"), [("all", "correct", 2), ("correct", "all", 1)])
def test_what_is_kept_does_not_change_in_between(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, found: int
) -> None:
    right = LenientTask().problems("train", limit=1, seed=0)[0].id
    monkeypatch.setattr(LenientTask, "is_correct", lambda _, problem, text: problem.id == right)
    collect(config(model, tmp_path, limit=2, keep=before))
    message = rf"was not collected with keep = '{after}': it holds {found} trajectories of 2 problems, 1 of them right"
    with pytest.raises(ValueError, match=message):
        collect(config(model, tmp_path, limit=2, keep=after))


@pytest.mark.parametrize(
    ("setting", "found", "wanted"),
    [
        ({"temperature": 0.5}, "1.0", "0.5"),
        ({"gen_length": 8}, "12", "8"),
        ({"block_length": 12}, "4", "12"),
        ({"stop_at_eos": True}, "False", "True"),
        ({"split": "test"}, "'train'", "'test'"),
        ({"dtype": "bfloat16"}, "'float32'", "'bfloat16'"),
        ({"seed": 1}, "0", "1"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], found: str, wanted: str
) -> None:
    collect(config(model, tmp_path, limit=2))
    before = files(tmp_path)
    monkeypatch.setattr(collection, "load_model", None)
    (name,) = setting
    message = rf"output: .*part-00000-00000000.parquet was collected with {name} = {found}, this run has {wanted}"
    with pytest.raises(ValueError, match=message):
        collect(config(model, tmp_path, limit=2, **setting))
    assert files(tmp_path) == before


def test_another_model_and_other_problems_are_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    collect(config(model, output, limit=2))
    other = make_model(tmp_path / "other", seed=1)
    with pytest.raises(
        ValueError,
        match=r"out' holds was made with another model: other weights in model\.",
    ):
        collect(config(other, output, limit=2))
    real = LenientTask().teacher_prompt
    monkeypatch.setattr(LenientTask, "teacher_prompt", lambda _, *given: [*real(*given), 5], raising=False)
    with pytest.raises(ValueError, match=r"part-00000-00000000.parquet was collected from other problems or prompts"):
        collect(config(model, output, limit=2))


def test_a_reformatted_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    model = Path(make_model(tmp_path / "model", seed=0))
    collect(config(str(model), tmp_path / "plain"))
    collect(config(str(model), tmp_path / "out", limit=9))
    edit_json(
        model / "config.json", with_changes({"eos_token_ids": [22, 23], "use_cache": True, "attention_dropout": 0.5})
    )
    collect(config(str(model), tmp_path / "out"))
    assert [row.response_ids.tolist() for row in rows(tmp_path / "out")] == [
        row.response_ids.tolist() for row in rows(tmp_path / "plain")
    ]


def test_another_model_continues_a_folder_only_if_one_insists(tmp_path: Path) -> None:
    model, output = Path(make_model(tmp_path / "model", seed=0)), tmp_path / "out"
    collect(config(str(model), output, limit=9))
    before, noted = files(output), read_trajectories(output)[0].model_revision
    edit_json(model / "config.json", with_changes({"rms_norm_eps": 0.125}))
    message = r"out' holds was made with another model: rms_norm_eps 1e-06, this model's is 0\.125; choose"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            collect(config(str(model), output))
        assert files(output) == before
    collect(config(str(model), output, allow_other_model=True))
    assert len(files(output)) > len(before)
    assert read_trajectories(output)[0].model_revision == noted  # one folder, one model


def test_a_folder_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    model, output = Path(make_model(tmp_path / "model", seed=0)), tmp_path / "out"
    collect(config(str(model), output, limit=9))
    noted = bytes_fingerprint(model)
    for part in read_parts(output):
        metadata = replace(part.metadata, model_revision=noted)
        write_part(part.path, metadata, part.trajectories, problems=part.problems)
    collect(config(str(model), output))
    assert {part.metadata.model_revision for part in read_parts(output)} == {noted}
    edit_json(model / "config.json", with_changes({"use_cache": True}))
    message = f"in one hash of an earlier version, {noted}, this model's is {bytes_fingerprint(model)}; .*allow_other"
    with pytest.raises(ValueError, match=message):
        collect(config(str(model), output))
    collect(config(str(model), output, allow_other_model=True))


def test_a_damaged_part_is_named_and_kept(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path, limit=2))
    path = tmp_path / "part-00000-00000000.parquet"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"{path}: expected a complete Parquet file"):
        collect(config(model, tmp_path, limit=2))
    assert path.exists()
    path.unlink()
    collect(config(model, tmp_path, limit=2))
    metadata, found = read_trajectories(tmp_path)
    write_part(path, metadata, found)  # as a converter would: it covers no problems of a task
    with pytest.raises(ValueError, match="does not name the problems it covers"):
        collect(config(model, tmp_path, limit=2))


def test_only_this_ranks_leftovers_are_removed(model: str, tmp_path: Path) -> None:
    kept = [".tmp-01234567-part-00001-00000000.parquet", "notes.txt"]
    for name in [*kept, ".tmp-89abcdef-part-00000-00000008.parquet"]:
        (tmp_path / name).write_text("half")
    collect(config(model, tmp_path, limit=2))
    assert list(files(tmp_path)) == [kept[0], kept[1], "part-00000-00000000.parquet"]


def test_a_second_run_in_the_same_folder_is_noticed(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(config(model, tmp_path / "other", limit=2))
    real = collection.decode

    def slow(*arguments: Any, **options: Any) -> Any:
        written = tmp_path / "other" / "part-00000-00000000.parquet"
        written.rename(tmp_path / "out" / "part-00003-00000000.parquet")
        return real(*arguments, **options)

    monkeypatch.setattr(collection, "decode", slow)
    with pytest.raises(RuntimeError, match=r"part-00003-00000000.parquet appeared .* another run is writing"):
        collect(config(model, tmp_path / "out", limit=2))
    assert len(rows(tmp_path / "out")) <= 2  # still sound
