"""Units, ranks and runs that continue a folder leave no trace in it, and a folder of another run is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from collection_runs import LenientTask, config, files, make_model, rows
from earlier_versions import bytes_fingerprint
from every_family import edit_json, with_changes
from safetensors.torch import save_file

from tad_ext.data.trajectories.files import read_parts, read_trajectories, write_part
from tad_ext.data.trajectories.journal import Journal, Row
from tad_ext.decoding.policies.learned import FilterNetwork
from tad_ext.jobs.collect import run as collection
from tad_ext.jobs.collect.plan import CollectionPlan
from tad_ext.jobs.collect.run import collect
from tad_ext.jobs.select.config import SelectConfig
from tad_ext.jobs.select.run import select
from tad_ext.settings import made
from tad_ext.sharing.claims import Claims

pytestmark = pytest.mark.slow


def test_units_batches_and_ranks_leave_no_trace(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(config(model, tmp_path / "plain"))
    collect(config(model, tmp_path / "units", unit_size=5, batch_size=20))
    for rank in (2, 0, 1):
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("RANK", str(rank))
        summary = collect(config(model, tmp_path / "ranks"))
    assert summary.decoded == summary.total == 20
    assert rows(tmp_path / "plain") == rows(tmp_path / "units")
    assert files(tmp_path / "plain") == files(tmp_path / "ranks")


def test_only_what_is_missing_is_decoded(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect(config(model, tmp_path))
    whole = files(tmp_path)
    next(tmp_path.glob("part-00000008-*.parquet")).unlink()
    decoded = count_decoded(monkeypatch)
    collect(config(model, tmp_path))
    assert decoded == [8]
    assert files(tmp_path) == whole


def test_a_file_of_problems_may_grow_and_a_limit_may_rise_and_fall(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = LenientTask().problems("train", limit=20, seed=0)
    listed = [problems[0], *problems[2:9], *problems[10:]]
    monkeypatch.setattr(LenientTask, "problems", lambda *_, limit, **__: listed[:limit], raising=False)
    collect(config(model, tmp_path / "grown", limit=11))
    before = files(tmp_path / "grown")
    listed[:] = problems  # two more, somewhere among the others
    decoded = count_decoded(monkeypatch)
    collect(config(model, tmp_path / "grown", limit=20))
    assert decoded == [9]
    assert files(tmp_path / "grown").items() > before.items()
    collect(config(model, tmp_path / "plain", limit=20))
    assert rows(tmp_path / "grown") == rows(tmp_path / "plain")
    del decoded[:]
    summary = collect(config(model, tmp_path / "plain", limit=12))  # nothing is lost, and nothing left to do
    assert (decoded, summary.decoded, summary.total) == ([], 12, 12)
    real = LenientTask().teacher_prompt
    monkeypatch.setattr(LenientTask, "teacher_prompt", lambda _, *given: [*real(*given), 5], raising=False)
    with pytest.raises(ValueError, match="was collected from other problems or prompts"):
        collect(config(model, tmp_path / "plain", limit=12))  # also where not every problem of a part is given


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
        ({"keep": "all"}, "'correct'", "'all'"),
        ({"top_p": 0.9}, "1.0", "0.9"),
        ({"top_k": 3}, "None", "3"),
        ({"policy": "topk:2"}, "'topk:1'", "'topk:2'"),
        ({"cache": "dual"}, "'none'", "'dual'"),
    ],
)
def test_a_folder_of_other_settings_is_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], found: str, wanted: str
) -> None:
    collect(config(model, tmp_path, limit=2))
    before = files(tmp_path)
    monkeypatch.setattr(collection, "load_model", None)
    (name,) = setting
    message = (
        rf"output: .*part-00000000-[0-9a-f]{{8}}.parquet was collected with {name} = {found}, this run has {wanted}"
    )
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
    with pytest.raises(ValueError, match=r"part-00000000-.*.parquet was collected from other problems or prompts"):
        collect(config(model, output, limit=2))


def test_another_filter_in_the_same_file_is_refused(model: str, tmp_path: Path) -> None:
    file, given = tmp_path / "filter.safetensors", {"block_length": 4, "limit": 2}
    policy = {"policy": f"learn2pd:filter={file}"}
    save_file(FilterNetwork(4, 1).state_dict(), file)
    collect(config(model, tmp_path / "out", **policy, **given))
    collect(config(model, tmp_path / "out", **policy, **given))
    save_file(FilterNetwork(4, 1).state_dict(), file)
    with pytest.raises(ValueError, match=r"was collected with policy_fingerprint = '\w+', this run has '\w+'"):
        collect(config(model, tmp_path / "out", **policy, **given | {"limit": 1}))


def test_a_reformatted_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    model = Path(make_model(tmp_path / "model", seed=0))
    collect(config(str(model), tmp_path / "plain"))
    collect(config(str(model), tmp_path / "out", limit=9))
    edit_json(
        model / "config.json", with_changes({"eos_token_ids": [22, 23], "use_cache": True, "attention_dropout": 0.5})
    )
    collect(config(str(model), tmp_path / "out"))
    assert rows(tmp_path / "out") == rows(tmp_path / "plain")


def test_another_model_continues_a_folder_only_if_one_insists(tmp_path: Path) -> None:
    model, output = Path(make_model(tmp_path / "model", seed=0)), tmp_path / "out"
    collect(config(str(model), output, limit=9))
    before, noted = files(output), read_trajectories(output)[0][0].model_revision
    edit_json(model / "config.json", with_changes({"rms_norm_eps": 0.125}))
    message = r"out' holds was made with another model: rms_norm_eps 1e-06, this model's is 0\.125; choose"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            collect(config(str(model), output))
        assert files(output) == before
    collect(config(str(model), output, allow_other_model=True))
    assert len(files(output)) > len(before)
    assert [run.model_revision for run in read_trajectories(output)[0]] == [noted]  # one folder, one model


def test_a_folder_of_an_earlier_version_is_continued(tmp_path: Path) -> None:
    model, output = Path(make_model(tmp_path / "model", seed=0)), tmp_path / "out"
    collect(config(str(model), output, limit=9))
    noted = bytes_fingerprint(model)
    for part in read_parts(output):
        metadata = replace(part.metadata, model_revision=noted)
        write_part(part.path, metadata, part.trajectories, coverage=part.coverage)
    collect(config(str(model), output))
    assert {part.metadata.model_revision for part in read_parts(output)} == {noted}
    edit_json(model / "config.json", with_changes({"use_cache": True}))
    message = f"in one hash of an earlier version, {noted}, this model's is {bytes_fingerprint(model)}; .*allow_other"
    with pytest.raises(ValueError, match=message):
        collect(config(str(model), output))
    collect(config(str(model), output, allow_other_model=True))


def test_a_damaged_part_is_named_and_kept(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path, limit=2))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match=f"{path}: expected a complete Parquet file"):
        collect(config(model, tmp_path, limit=2))
    assert path.exists()
    path.unlink()
    collect(config(model, tmp_path, limit=2))
    (metadata,), found = read_trajectories(tmp_path)
    write_part(path, metadata, found)  # as a converter would
    with pytest.raises(ValueError, match="does not say what it was decoded from"):
        collect(config(model, tmp_path, limit=2))


def test_a_journal_of_other_settings_is_refused_and_kept(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path / "plain", limit=2))
    (metadata,), _ = read_trajectories(tmp_path / "plain")
    journal = Journal(tmp_path, replace(metadata, temperature=0.5))
    journal.add(Row("a", 0, "", [1], [1], 1, True, None))
    message = rf"output: {journal.path} was collected with temperature = 0.5, this run has 1.0"
    with pytest.raises(ValueError, match=message):
        collect(config(model, tmp_path, limit=2))
    journal.path.write_text("no journal\n" + journal.path.read_text())
    with pytest.raises(ValueError, match=f"{journal.path}: expected what a collection has written down"):
        collect(config(model, tmp_path, limit=2))
    assert journal.path.exists()


def test_an_answer_may_hold_what_ends_a_line_elsewhere_and_a_damaged_row_costs_itself(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LenientTask, "extract_answer", lambda _, text: f"{text}\u2028\x85\ry")
    collect(config(model, tmp_path / "plain", keep="all"))
    decoded = count_decoded(monkeypatch)
    (metadata,), found = read_trajectories(tmp_path / "plain")
    plan = CollectionPlan.make(config(model, tmp_path / "out", keep="all"))
    journal = Journal(tmp_path / "out", metadata)
    for one in found[:5]:
        answer = (one.response_ids.tolist(), one.reveal_step.tolist(), one.num_steps, one.correct, one.answer)
        journal.add(Row(*one.key, plan.digest([one.key]), *answer))
    lines = journal.path.read_bytes().split(b"\n")
    journal.path.write_bytes(b"\n".join([*lines[:2], lines[2][:20] + bytes(50) + lines[2][70:], *lines[3:]]))
    collect(config(model, tmp_path / "out", keep="all"))
    assert decoded == [16]  # of twenty
    assert files(tmp_path / "out") == files(tmp_path / "plain")


def test_two_runs_that_would_do_something_else_do_not_mix(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CollectionPlan.make(config(model, tmp_path / "out"))
    with Claims(other.output, other.work) as claims:
        assert claims.take(other.units()[2].name)
        for changes in ({"unit_size": 5}, {"limit": 10}, {"samples": 2}, {"temperature": 0.5}):
            with pytest.raises(ValueError, match=r"another run, process .* works in .* on other problems or"):
                collect(config(model, tmp_path / "out", **changes))
    assert files(tmp_path / "out") == {}
    collect(config(model, tmp_path / "out"))


def test_a_row_of_a_problem_that_has_changed_is_not_used(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect(config(model, tmp_path / "plain", limit=2, keep="all"))
    (metadata,), (first, _) = read_trajectories(tmp_path / "plain")
    decoded = count_decoded(monkeypatch)
    (tmp_path / "out").mkdir()
    for digest, count in (
        ("of another prompt", 2),
        (CollectionPlan.make(config(model, tmp_path / "x")).digest([first.key]), 1),
    ):
        Journal(tmp_path / "out", metadata).add(
            Row(
                *first.key,
                digest,
                first.response_ids.tolist(),
                first.reveal_step.tolist(),
                12,
                first.correct,
                first.answer,
            )
        )
        collect(config(model, tmp_path / "out", limit=2, keep="all"))
        assert decoded.pop() == count
        assert files(tmp_path / "out") == files(tmp_path / "plain")
        next((tmp_path / "out").glob("part-*")).unlink()


def test_leftovers_of_a_unit_are_removed_by_who_takes_it(model: str, tmp_path: Path) -> None:
    kept = [".tmp-01234567-part-00000008-00000000.parquet", "notes.txt"]
    for name in [*kept, ".tmp-89abcdef-part-00000000-00000008.parquet"]:
        (tmp_path / name).write_text("half")
    collect(config(model, tmp_path, limit=2))
    assert [name for name in files(tmp_path) if not name.startswith("part-")] == kept


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of every call that decodes from now on, how many prompts it got."""
    counts: list[int] = []
    real = collection.decode_stream

    def counted(model: Any, prompts: Any, *arguments: Any, **options: Any) -> Any:
        counts.append(len(prompts))
        return real(model, prompts, *arguments, **options)

    monkeypatch.setattr(collection, "decode_stream", counted)
    return counts


def test_a_selection_is_continued_only_where_nothing_was_left_out(model: str, tmp_path: Path) -> None:
    collect(config(model, tmp_path / "in"))
    for name, changes in (("whole", {}), ("some", {"limit": 5})):
        select(made(SelectConfig, {"trajectories": (str(tmp_path / "in"),), "output": str(tmp_path / name)} | changes))
    before = files(tmp_path / "whole")
    collect(config(model, tmp_path / "whole"))
    assert files(tmp_path / "whole") == before
    with pytest.raises(ValueError, match="does not say what it was decoded from, expected a part of tad collect"):
        collect(config(model, tmp_path / "some"))
