import dataclasses

import pytest

from tad_ext.decoding import DecodeConfig
from tad_ext.evaluation import Evaluation, Point, accuracy_under_parallelism, evaluate_model

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
    assert responses[3] == {
        "id": "b", "policy": "entropy:0.3", "correct": False, "tokens": 2, "forwards": 2, "response": "one"
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
