"""Several block lengths answer, most of them decide, and a tie is the likelihood's."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model

from python_tests.evaluation.conftest import END, MASK, WORDS
from tad_ext.data.tasks.task import Problem
from tad_ext.decoding import DecodeConfig, decode
from tad_ext.evaluation import vote
from tad_ext.evaluation.voting import most_frequent

DECODING = DecodeConfig(8, 8, policy="llada:steps=8", batch_size=4)
LENGTHS = [8, 4, 2, 1]


@pytest.fixture
def election(words):
    """A model that answers differently in other blocks, to be asked about every prompt of two words."""

    def last_word(text):
        return text.split()[-1] if text and text.split()[-1] != "zero" else None

    words.task.extract_answer = last_word
    words.task.student_prompt = lambda problem, _: list(map(int, problem.question.split()))
    words.task.is_correct = lambda problem, text: last_word(text) == problem.answer
    words.problems = [Problem(f"{a}{b}", f"{a} {b}", "", WORDS[1 + b % 3]) for a in range(4) for b in range(4)]
    sizes = {"vocab_size": len(WORDS), "mask_token_id": MASK, "eos_token_ids": [END], "initializer_range": 0.6}
    words.model = tiny_model(2, **sizes)
    return words


def run(words, lengths=LENGTHS, decoding=DECODING):
    return vote(words.model, words.tokenizer, words.task, words.problems, lengths, decoding)


def test_what_each_block_length_answers_and_what_is_elected(election):
    result = run(election)
    prompts = [election.task.student_prompt(problem, None) for problem in election.problems]
    decoded = {length: decode(election.model, prompts, replace(DECODING, block_length=length)) for length in LENGTHS}
    assert [one.id for one in result.ballots] == [problem.id for problem in election.problems]
    assert result.forwards == sum(one.total_forwards() for one in decoded.values())
    right = 0
    for number, (ballot, problem) in enumerate(zip(result.ballots, election.problems, strict=True)):
        texts = {length: election.tokenizer.decode(one.responses()[number]) for length, one in decoded.items()}
        assert ballot.answers == {length: election.task.extract_answer(text) for length, text in texts.items()}
        assert ballot.correct == {length: answer == problem.answer for length, answer in ballot.answers.items()}
        votes = Counter(answer for answer in ballot.answers.values() if answer).most_common()
        if not votes:
            assert ballot.answer is None
        elif len(votes) == 1 or votes[0][1] > votes[1][1]:
            assert ballot.answer == votes[0][0]
            assert not ballot.nll
        else:
            with torch.no_grad():
                logits = election.model(torch.tensor([[*prompts[number], *[MASK] * 8]])).logits[0, 2:].double()
            said = {
                length: -logits.log_softmax(-1).gather(1, torch.tensor(one.canvases()[number])[:, None]).mean().item()
                for length, one in decoded.items()
                if (ballot.answers[length], votes[0][1]) in votes
            }
            assert ballot.nll == pytest.approx(said, abs=1e-5)
            assert ballot.elected == min(said, key=said.__getitem__)
        right += ballot.answer == problem.answer
    assert result.accuracy == 100 * right / 16
    assert result.accuracy_of(4) == 100 * sum(one.correct[4] for one in result.ballots) / 16
    elected = {one.elected for one in result.ballots}
    assert result.ties > 1, "there was something to decide"
    assert len(elected) > 2


@given(st.dictionaries(st.integers(1, 9), st.sampled_from(["a", "b", "c", None]), max_size=7))
def test_the_most_frequent(answers):
    counts = Counter(answer for answer in answers.values() if answer)
    frequent = most_frequent(answers)
    assert frequent == [key for key in answers if key in frequent], "in their order"
    assert {answers[key] for key in frequent} == {one for one in counts if counts[one] == max(counts.values())}
    assert len(frequent) == sum(count for count in counts.values() if count == max(counts.values()))


def test_nobody_answers(election):
    election.task.extract_answer = lambda text: None
    result = run(election, [8, 4])
    assert result.accuracy == 0.0
    assert all(one.answer is None and not one.nll for one in result.ballots)


@pytest.mark.parametrize(
    ("lengths", "problems", "policy", "message"),
    [
        ([], None, "topk:1", "block_lengths is .*expected at least one"),
        ([4, 2, 4], None, "topk:1", "block_lengths is .4, 2, 4.; expected at least one, and none twice"),
        ([4, 3], None, "topk:1", "gen_length must be a multiple of block_length"),
        ([4, 2], [], "topk:1", "problems is empty"),
        ([4, 2], None, "daedal", "policy daedal:0.9 changes the canvas's length: expected another one"),
    ],
)
def test_refusals(words, lengths, problems, policy, message):
    words.problems = words.problems if problems is None else problems
    with pytest.raises(ValueError, match=message):
        run(words, lengths, replace(DECODING, gen_length=4, block_length=4, policy=policy))
    assert not words.model.inputs
