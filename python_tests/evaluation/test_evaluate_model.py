import dataclasses

import pytest

from tad_ext.decoding import DecodeConfig
from tad_ext.evaluation import Evaluation, Point, accuracy_under_parallelism, evaluate_model
from tad_ext.evaluation.results import method_of

DECODING = DecodeConfig(gen_length=4, block_length=4)


def run(words, policies, **options):
    return evaluate_model(words.model, words.tokenizer, words.task, words.problems, policies, DECODING, **options)


def test_one_token_per_step_counted_by_hand(words):
    evaluation = run(words, ["topk:1"])
    (point,) = evaluation.points
    assert (point.problems, point.correct, point.accuracy) == (2, 1, 50.0)
    # "one one two <end>" takes a forward per token; "one <end>" is finished after two, most confident first.
    assert (point.response_tokens, point.forwards) == (4 + 2, 4 + 2)
    assert point.text_tokens == 3 + 1
    assert point.tokens_per_forward == 1.0
    assert point.published_tokens_per_forward == pytest.approx(4 / 6)
    assert point.standard_error == pytest.approx(100 * (0.25 / 2) ** 0.5)


def test_a_threshold_reveals_more_per_forward(words):
    evaluation = run(words, ["topk:1", "entropy:0.3"])
    point = evaluation.point("entropy:0.3")
    assert (point.response_tokens, point.forwards) == (6, 1 + 2)
    assert point.tokens_per_forward == 2.0


def test_the_teachers_prompt(words):
    assert run(words, ["topk:1"]).points[0].accuracy == 50.0
    assert run(words, ["topk:1"], prompt="teacher").points[0].accuracy == 100.0


def test_responses_are_kept_per_problem_and_policy(words):
    responses = run(words, ["topk:1", "entropy:0.3"]).responses
    assert [(one["id"], one["policy"]) for one in responses] == [
        ("a", "topk:1"), ("b", "topk:1"), ("a", "entropy:0.3"), ("b", "entropy:0.3")
    ]  # fmt: skip
    timed = {name: responses[3].pop(name) for name in ("latency", "seconds")}
    assert all(value > 0 for value in timed.values())
    assert responses[3] == {
        "id": "b", "policy": "entropy:0.3", "correct": False, "tokens": 2, "text_tokens": 1, "forwards": 2,
        "response": "one",
    }  # fmt: skip


def test_a_response_ends_before_a_stop_string_and_so_do_its_counts(words):
    decoding = dataclasses.replace(DECODING, stop_strings=["two", "zero"])
    evaluation = evaluate_model(words.model, words.tokenizer, words.task, words.problems, ["topk:1"], decoding)
    first = evaluation.responses[0]
    assert (first["response"], first["correct"]) == ("one one ", False)  # "two", the right answer, is cut
    assert (first["tokens"], first["forwards"]) == (3, 3)  # up to the text's last token; the fourth is not decoded
    assert evaluation.points[0].text_tokens == 2 + 1


def test_the_order_of_policies_and_the_other_decoding_settings_are_kept(words):
    decoding = dataclasses.replace(DECODING, block_length=2, stop_at_eos=False)
    policies = ["entropy:1.2", "topk:1", "entropy:0.3"]
    evaluation = evaluate_model(words.model, words.tokenizer, words.task, words.problems, policies, decoding)
    assert [point.policy for point in evaluation.points] == policies
    assert evaluation.point("topk:1").forwards == 2 * 4  # nothing stops at the end token


def test_one_token_per_step_is_one_token_also_with_several_blocks(words):
    # The second block is the more confident one: a step that may reach it would reveal a token there and one before.
    words.model.confidences[0] = [0.5, 0.5, 0.99, 0.99]
    decoding = dataclasses.replace(DECODING, block_length=2, block_add_threshold=0.0, stop_at_eos=False)
    evaluation = evaluate_model(
        words.model, words.tokenizer, words.task, words.problems, ["topk:1", "topk:2"], decoding
    )
    assert evaluation.point("topk:1").forwards == 4 + 4
    assert evaluation.point("topk:2").forwards < 4 + 4


@pytest.mark.parametrize(
    ("policies", "options", "message"),
    [
        ([], {}, "policies is"),
        (["topk:1", "topk:1"], {}, "none twice"),
        (["entropy:x"], {}, "entropy:x"),
        (["topk:1"], {"prompt": "tutor"}, "prompt is 'tutor'; expected one of student, teacher"),
    ],
)
def test_bad_input_is_refused_before_any_decoding(words, policies, options, message):
    with pytest.raises(ValueError, match=message):
        run(words, policies, **options)
    assert words.model.inputs == []


def test_no_problems(words):
    words.problems = []
    with pytest.raises(ValueError, match="problems is empty"):
        run(words, ["topk:1"])


def point(policy, correct, tokens, forwards):
    return Point(policy, 100, correct, tokens, text_tokens=tokens, forwards=forwards, seconds=2.0)


def test_the_one_per_step_run_enters_the_curve_at_one():
    evaluation = Evaluation("m", "t", [point("entropy:0.5", 60, 300, 100), point("topk:1", 62, 90, 100)])
    assert evaluation.curve() == [(1.0, 62.0), (3.0, 60.0)]
    assert evaluation.best_accuracy() == 62.0
    assert evaluation.aup() == accuracy_under_parallelism([(1.0, 62.0), (3.0, 60.0)], 62.0)
    assert evaluation.aup(80.0) == accuracy_under_parallelism([(1.0, 62.0), (3.0, 60.0)], 80.0) < evaluation.aup()


def test_a_model_that_is_never_right_has_no_area():
    assert Evaluation("m", "t", [point("topk:1", 0, 90, 100)]).aup() == 0.0


def test_the_report_defines_its_counts_and_says_where_the_best_accuracy_is_from():
    evaluation = Evaluation("m", "t", [point("topk:1", 62, 90, 100)])
    report = evaluation.to_json()
    assert "end-of-sequence" in report["definitions"]["tokens_per_forward"]
    assert report["points"][0]["tokens_per_forward"] == 0.9
    assert report["points"][0]["tokens_per_second"] == 45.0
    assert (report["best_accuracy"], report["best_accuracy_from"]) == (62.0, "this run's own points")
    report = evaluation.to_json(80.0)
    assert (report["best_accuracy"], report["best_accuracy_from"]) == (80.0, "given")


def test_an_unknown_policy_is_named():
    with pytest.raises(KeyError, match=r"entropy:0.5; there are topk:1"):
        Evaluation("m", "t", [point("topk:1", 1, 1, 1)]).point("entropy:0.5")


def test_the_curve_by_the_published_count():
    run = Point("entropy:0.5", problems=10, correct=5, response_tokens=40, text_tokens=30, forwards=10, seconds=1.0)
    evaluation = Evaluation("m", "t", [run])
    assert evaluation.curve() == [(4.0, 50.0)]
    evaluation.count = "published"
    assert evaluation.curve() == [(3.0, 50.0)]
    assert evaluation.aup() == 3.0 * 50.0
    assert evaluation.to_json()["count"] == "published"


@pytest.mark.parametrize(
    ("run", "method"),
    [
        ("topk:1", "topk"),
        ("entropy:0.5", "entropy"),
        ("entropy:1e-07", "entropy"),
        ("confidence:threshold=0.9,accept=above", "confidence,accept=above"),
        ("preset:tad", "preset:tad"),
        ("dream:origin", "dream:origin"),
    ],
)
def test_the_curve_that_a_run_belongs_to(run, method):
    assert method_of(run) == method


def test_each_policy_and_each_preset_has_a_curve_that_begins_with_one_per_step():
    runs = ["topk:1", "entropy:0.3", "confidence:0.9", "entropy:0.5", "preset:tad"]
    evaluation = Evaluation("m", "t", [point(run, 60 - place, 100 + place, 100) for place, run in enumerate(runs)])
    methods = evaluation.methods()
    assert {name: [one.policy for one in points] for name, points in methods.items()} == {
        "entropy": ["topk:1", "entropy:0.3", "entropy:0.5"],
        "confidence": ["topk:1", "confidence:0.9"],
        "preset:tad": ["topk:1", "preset:tad"],
    }
    assert evaluation.curve("confidence") == [(1.0, 60.0), (1.02, 58.0)]
    assert evaluation.aup(method="confidence") == accuracy_under_parallelism([(1.0, 60.0), (1.02, 58.0)], 60.0)


def test_a_run_without_a_word_of_text_has_no_place_on_the_published_curve():
    silent = Point("entropy:0.5", 10, correct=0, response_tokens=40, text_tokens=0, forwards=10, seconds=1.0)
    evaluation = Evaluation("m", "t", [silent], count="published")
    assert (evaluation.curve(), evaluation.aup()) == ([], 0.0)
    both = Evaluation("m", "t", [silent, point("topk:1", 50, 90, 100)], count="published")
    assert both.curve() == [(1.0, 50.0)]


def test_latencies_are_those_of_the_responses(words):
    evaluation = run(words, ["topk:1", "entropy:0.3"])
    seconds = sorted(one["latency"] for one in evaluation.responses_of("topk:1"))
    assert evaluation.latency("topk:1") == {"p50": seconds[0], "p90": seconds[1], "p99": seconds[1]}
    assert Evaluation("m", "t", [point("topk:1", 1, 1, 1)]).latency("topk:1") is None
    # Both begin in one batch, and "one" is finished after two of the other's four forwards.
    assert seconds[0] < seconds[1] <= evaluation.points[0].seconds


def test_a_latency_is_not_the_time_that_a_response_waits_for_its_place(words):
    decoding = dataclasses.replace(DECODING, batch_size=1)
    evaluation = evaluate_model(words.model, words.tokenizer, words.task, words.problems, ["topk:1"], decoding)
    assert sum(one["latency"] for one in evaluation.responses) <= evaluation.points[0].seconds


def test_outcomes_are_counted_by_problem_and_run(words):
    evaluation = run(words, ["topk:1", "entropy:0.3"])
    found = evaluation.outcomes("entropy")
    assert found.correct.tolist() == [[True, True], [False, False]]
    assert found.tokens.tolist() == [[4, 4], [2, 2]]
    assert found.forwards.tolist() == [[4, 1], [2, 2]]
    assert found.at_one.tolist() == [True, False]
    evaluation.count = "published"
    assert evaluation.outcomes("entropy").tokens.tolist() == [[3, 3], [1, 1]]
    del evaluation.responses[-1]
    with pytest.raises(ValueError, match="no response of every run to every problem"):
        evaluation.outcomes("entropy")
