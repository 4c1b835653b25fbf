"""bench.paper: every cell is made and measured once, work is shared and goes on, and answers are what numbers say."""

import json
import math
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import bench.paper.__main__ as script
from bench.paper import page as pages
from bench.paper import work
from bench.paper.cells import CONFIDENCE, cells
from bench.paper.claims import AT_2, AT_3, CLAIMS, CURVES, FEW_CLAIMS, ONE, SPEED, VARIED_CLAIMS, Claim
from bench.paper.compare import PUBLISHED, difference, differences, runs_of, student_interval
from bench.paper.measure import Base
from bench.paper.results import OUTCOMES, Result, file_name, packed, read_results, unpacked
from bench.paper.study import FEW, QUICK, STUDY, VARIED
from bench.paper.work import pieces, work_on
from tad_ext.data.trajectories.files import read_trajectories
from tad_ext.evaluation import Evaluation
from tad_ext.evaluation.results import ONE_PER_STEP
from tad_ext.models.loading import load_tokenizer
from tad_ext.sharing import work as shared
from tad_ext.sharing.claims import Claims

pytestmark = pytest.mark.slow

POLICIES = [ONE_PER_STEP, PUBLISHED]
PROBLEMS = 100


# Made and measured


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The work folder of a whole study of toy sizes, and its results."""
    folder = tmp_path_factory.mktemp("paper")
    assert script.main(["--quick", "--output", str(folder)]) == 0
    return folder, folder / "results"


def copied(made, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "paper")
    return folder, folder / "results"


def test_every_cell_is_there(made):
    folder, results = made
    expected = {file_name(CONFIDENCE, 0, None)}
    expected |= {file_name(cell.name, 0, 0 if cell.trained else None) for cell in cells(QUICK).values()}
    assert {str(path.relative_to(results)) for path in results.rglob("*.json")} == expected
    text = (folder / "reproduction.md").read_text()
    assert "**1 base model** (seeds 0), **1 training seed** (0), 12 unseen problems" in text
    assert "23 of 23 cells are there" in text
    assert not list(folder.glob(".claim*"))


def test_what_each_cell_learns_from(made):
    base = Base(QUICK, made[0], 0)
    tokenizer = load_tokenizer(str(base.checkpoint))
    problems = {one.id: one for one in base.task.problems("train", limit=QUICK.problems, seed=0)}
    shown, responses = {}, {}
    for name in ("tad", "privileged_none", "own_none", "own_shown"):
        job = base.job(cells(QUICK)[name], 0)
        _, trajectories = read_trajectories(*job.trajectories)
        assert {one.id for one in trajectories} == set(problems)
        privileged = {
            one.teacher_prompt_ids.tolist() == base.task.teacher_prompt(problems[one.id], tokenizer)
            for one in trajectories
        }
        plain = {one.teacher_prompt_ids.tolist() == one.prompt_ids.tolist() for one in trajectories}
        assert plain != privileged
        shown[name] = privileged == {True} and job.teacher_prompt == "collected"
        responses[name] = [one.response_ids.tolist() for one in trajectories]
    assert shown == {"tad": True, "privileged_none": False, "own_none": False, "own_shown": True}
    assert responses["tad"] == responses["privileged_none"]
    assert responses["own_none"] == responses["own_shown"]


def test_nothing_that_is_asked_was_trained_on(made):
    base = Base(STUDY, made[0], 0)
    trained = {one.question for one in base.task.problems("train", limit=STUDY.problems, seed=0)}
    asked = {one.question for one in base.asked}
    assert len(asked) == STUDY.evaluated >= 2000
    assert not asked & trained


def test_given_responses_are_right(made):
    job = Base(QUICK, made[0], 0).job(cells(QUICK)["sft_given"], 0)
    task, lines = Base(QUICK, made[0], 0).task, [json.loads(line) for line in Path(job.data).read_text().splitlines()]
    problems = task.problems("train", limit=QUICK.problems, seed=0)
    assert [line["prompt"] for line in lines] == [f"{one.question}>" for one in problems]
    assert all(task.is_correct(one, line["response"]) for one, line in zip(problems, lines, strict=True))


def test_a_training_is_the_same_again(made, tmp_path):
    """And nothing else is made: neither bases nor trajectories, which only lacking cells need."""
    folder, results = copied(made, tmp_path)
    lost = results / file_name("tad", 0, 0)
    before = {path: path.read_bytes() for path in results.rglob("*.json")}
    shutil.rmtree(folder / "base-0" / "tad.seed-0")
    shutil.rmtree(folder / "base-0" / "trajectories-own")
    lost.unlink()
    work_on(QUICK, folder, results, (0,), (0,))
    after = {path: path.read_bytes() for path in results.rglob("*.json")}
    assert {path for path in after if after[path] != before[path]} <= {lost}
    assert json.loads(after[lost])["outcomes"] == json.loads(before[lost])["outcomes"]
    assert not (folder / "base-0" / "trajectories-own").exists()


def test_a_study_that_was_stopped_goes_on(made, tmp_path, monkeypatch):
    folder, results = copied(made, tmp_path)
    lost = [results / file_name(name, 0, 0) for name in ("ce_all", "kl_all", "ce_near")]
    for path in lost:
        path.unlink()
    measure = Base.measure

    def stopped(self, cell, seed):
        if cell.name == "kl_all":
            raise KeyboardInterrupt
        return measure(self, cell, seed)

    monkeypatch.setattr(Base, "measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        work_on(QUICK, folder, results, (0,), (0,))
    assert [path.is_file() for path in lost] == [True, False, False]
    first = lost[0].stat().st_mtime_ns
    monkeypatch.setattr(Base, "measure", measure)
    work_on(QUICK, folder, results, (0,), (0,))
    assert all(path.is_file() for path in lost)
    assert lost[0].stat().st_mtime_ns == first


def test_what_another_process_has_is_left_to_it(made, tmp_path, monkeypatch):
    folder, results = copied(made, tmp_path)
    theirs, ours = (results / file_name(name, 0, 0) for name in ("tad", "ce_all"))
    kept = theirs.read_bytes()
    theirs.unlink()
    ours.unlink()
    name = "base-0.tad.seed-0.00000000-1"
    with Claims(folder, work.work_digest(QUICK)) as other:
        assert other.take(name)

        def finished(seconds):
            assert ours.is_file()  # meanwhile
            theirs.write_bytes(kept)
            other.give_back(name)

        monkeypatch.setattr(shared.time, "sleep", finished)
        trained = []
        monkeypatch.setattr(Base, "train", lambda self, cell, seed: trained.append(cell.name) or 0.0)
        work_on(QUICK, folder, results, (0,), (0,))
        assert trained == ["ce_all"]
    assert theirs.read_bytes() == kept


def test_cells_of_all_bases_come_before_the_next_cell(tmp_path):
    names = [piece.name for piece in pieces(STUDY, tmp_path, tmp_path / "results", (0, 1), (0, 1))]
    assert names[:2] == ["base-0", "base-1"]
    of_tad = [names.index(f"base-{base}.tad.seed-{seed}") for base, seed in product((0, 1), (0, 1))]
    assert of_tad == list(range(of_tad[0], of_tad[0] + 4))
    assert names.index("base-1.ce_near.seed-1") < names.index("base-0.own_none.seed-0")


def test_steps_of_varying_length_ask_about_delta_alone(tmp_path):
    names = [piece.name for piece in pieces(VARIED, tmp_path, tmp_path / "results", (0,), (0,))]
    trained = [name for name in names if "seed" in name]
    of_delta = ("tad", "ce_all", "tad_speed", "delta_2", "delta_16", "delta_22", "delta_22_light")
    assert trained == [f"base-0.{name}.seed-0" for name in of_delta]
    assert "base-0.confidence" in names
    assert "base-0.trajectories-own" not in names
    assert "delta_22" not in cells(STUDY)


def test_results_of_another_setting_are_refused(made, tmp_path):
    folder, results = copied(made, tmp_path)
    with pytest.raises(ValueError, match="was measured with steps = 2, expected 3"):
        work_on(replace(QUICK, steps=3), folder, results, (0,), (0,))
    path = results / file_name("tad", 0, 0)
    path.write_text(path.read_text().replace('"rank": 2', '"rank": 4'))
    with pytest.raises(ValueError, match=r"tad\.seed-0\.json was measured with rank = 4"):
        read_results(results)


# Compared


def result(cell, base, seed, right, speed=4):
    """A cell that answers these problems right, whatever the policy, at 1 and at `speed` tokens per forward."""
    correct = np.isin(np.arange(PROBLEMS), right)
    responses = [
        {"correct": bool(one), "tokens": 24, "forwards": 24 // (1 if policy == ONE_PER_STEP else speed)}
        for policy in POLICIES
        for one in correct
    ]
    evaluation = Evaluation(name=cell, task="arithmetic", points=[], responses=responses)
    machine = {"processor": "a processor", "instruction_set": "its set"}
    outcomes, seconds = packed(evaluation, PROBLEMS), {"training": 1.0}
    return Result(cell, base, seed, STUDY.values(), POLICIES, outcomes, PROBLEMS, None, None, seconds, machine)


def rows(**right):
    """Three bases and two seeds of cells with so many right answers, which differ a little between bases."""
    return [
        result(cell, base, seed, range(number + base))
        for cell, number in right.items()
        for base, seed in product((0, 1, 2), (0, 1))
    ]


def test_outcomes_are_kept_as_they_are():
    responses = [
        {"correct": bool(number % 2), "tokens": number, "forwards": 255 - number} for number in range(2 * PROBLEMS)
    ]
    evaluation = Evaluation(name="", task="", points=[], responses=responses)
    arrays = unpacked(packed(evaluation, PROBLEMS), 2, PROBLEMS)
    for name in OUTCOMES:
        assert arrays[name].ravel().tolist() == [int(one[name]) for one in responses]
    with pytest.raises(ValueError, match="outcomes hold 600 values, expected 3 x 3 x 100"):
        unpacked(packed(evaluation, PROBLEMS), 3, PROBLEMS)


def test_an_interval_over_bases_by_hand():
    # The mean of 1, 2 and 6 is 3, their SD sqrt(7), and t of two degrees of freedom 4.303.
    half = 4.303 * math.sqrt(7 / 3)
    assert student_interval([1.0, 2.0, 6.0]) == pytest.approx((3 - half, 3 + half))
    runs = runs_of(
        [result("tad", base, seed, range(50)) for base, seed in product((0, 1, 2), (0, 1))]
        + [result("ce_all", base, 0, range(50 - less)) for base, less in enumerate((0, 1, 5))]
        + [result("ce_all", base, 1, range(50 - less)) for base, less in enumerate((2, 3, 7))]
    )
    found = difference(runs, ("tad", AT_2), ("ce_all", AT_2))
    assert found.mean == pytest.approx(3)  # of the bases' 1, 2 and 6
    assert found.interval == pytest.approx((3 - half, 3 + half))
    assert found.answer == "undecided"


def test_an_interval_over_problems_is_paired():
    """Cells with the same problems right never differ, in whatever resample; one alone varies as a binomial does."""
    right = range(0, PROBLEMS, 2)
    same = difference(
        runs_of([result("tad", 0, 0, right), result("ce_all", 0, 0, right)]), ("tad", AT_3), ("ce_all", AT_3)
    )
    assert (same.mean, same.interval) == (0.0, (0.0, 0.0))
    against_none = difference(
        runs_of([result("tad", 0, 0, right), result("ce_all", 0, 0, [])]), ("tad", AT_3), ("ce_all", AT_3)
    )
    low, high = against_none.interval
    assert against_none.mean == 50.0
    assert (low, high) == pytest.approx((40, 60), abs=1.5)  # of a binomial of 100 and 1/2: 40 to 60
    assert (against_none.lies, against_none.answer) == ("yes", "undecided")  # one base decides nothing


def test_answers_are_what_the_numbers_say():
    claim = next(one for one in CLAIMS if one.name == "tad_ce_all")
    for tad, ce_all, answer in ((80, 60, "yes"), (60, 80, "no")):
        runs = runs_of(rows(tad=tad, ce_all=ce_all))
        assert {one.answer for one in differences(claim, runs).values()} == {answer}
    mixed = [result("tad", base, 0, range(50)) for base in range(3)]
    mixed += [result("ce_all", base, 0, range(50 + change)) for base, change in enumerate((-9, 9, 1))]
    assert {one.answer for one in differences(claim, runs_of(mixed)).values()} == {"undecided"}


def test_a_planted_wrong_ordering_gives_no_with_its_reason():
    text = pages.page({"paper": rows(tad=60, ce_all=80)}, {})
    row = next(line for line in text.splitlines() if "better than CE everywhere" in line)
    assert row.endswith("| at 2: -20.0 [-20.0 to -20.0]; at 3: -20.0 [-20.0 to -20.0] | no |")
    assert "- CE near and KL distant are better than CE everywhere: no reason was tested yet." in text
    reason = {"tad_ce_all": "because it was planted"}
    assert reason["tad_ce_all"] in pages.page({"paper": rows(tad=60, ce_all=80)}, reason)
    right = pages.page({"paper": rows(tad=80, ce_all=60)}, reason)
    row = next(line for line in right.splitlines() if "better than CE everywhere" in line)
    assert row.endswith("| yes |")
    assert "because it was planted" not in right


def test_one_base_leans_and_is_no_no():
    text = pages.page({"paper": [result("tad", 0, 0, range(30)), result("ce_all", 0, 0, range(60))]}, {})
    row = next(line for line in text.splitlines() if "better than CE everywhere" in line)
    assert row.endswith("| undecided, leans no |")
    assert "a reason that was tested" not in text
    assert "**With one base nothing is decided.**" in text


def test_speed_is_tokens_per_forward_at_the_published_threshold():
    runs = runs_of([result("tad", 0, 0, range(9), speed=4), result("kl_all", 0, 0, range(9), speed=2)])
    assert difference(runs, ("tad", SPEED), ("kl_all", SPEED)).mean == 2.0
    assert difference(runs, ("tad", ONE), ("kl_all", ONE)).mean == 0.0
    assert difference(runs, ("tad", AT_3), ("kl_all", AT_3)) is None  # which is never so fast


def test_claims_are_of_cells_that_there_are():
    studies = ((CLAIMS, STUDY), (VARIED_CLAIMS, VARIED), (FEW_CLAIMS, FEW))
    for claims, study in studies:
        for claim in claims:
            assert {claim.first, claim.second} <= {*cells(study), *CURVES}
    names = [claim.name for claims, _ in studies for claim in claims]
    assert len({*names}) == len(names)
    assert isinstance(CLAIMS[0], Claim)


def test_a_reason_of_no_claim_is_named():
    with pytest.raises(ValueError, match="names 'nothing'; expected names of claims"):
        pages.page({"paper": rows(tad=1)}, {"nothing": "a reason"})


def test_results_of_varying_steps_have_a_table_of_their_own():
    varied = [replace(result(cell, 0, 0, range(40)), study=VARIED.values()) for cell in ("tad", "delta_22")]
    text = pages.page({"paper": rows(tad=70), "paper-varied": varied}, {})
    section = text.split("## Where confidence falls with distance")[1].split("## How each number")[0]
    assert "| delta 22, near the paper's rule | 40.0 ± " in section
    assert "| delta 2 | - |" in section
    assert "Not measured yet." in pages.page({"paper": rows(tad=70)}, {}).split("## Where confidence falls")[1]


def test_a_report_of_nothing_is_one_line(tmp_path, capsys):
    assert script.main(["report", "--results", str(tmp_path), "--page", str(tmp_path / "page.md")]) == 2
    assert "results: there are none yet" in capsys.readouterr().err


def test_the_committed_page_is_that_of_the_committed_results(tmp_path):
    assert script.main(["report", "--page", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").read_text() == script.PAGE.read_text()
