"""The arithmetic task: its form, its verifier, and test problems that nobody can have been trained on."""

import random
import re
from itertools import islice
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tad_ext.data.tasks import arithmetic
from tad_ext.data.tasks.arithmetic import (
    CHARACTERS,
    OPERATIONS,
    TABLES,
    ArithmeticTask,
    arithmetic_tokenizer,
    encode,
    make_problem,
    response_text,
    results,
    split_of,
    training_texts,
)
from tad_ext.data.tasks.task import Problem, TaskName, get_task

questions = st.builds(
    lambda operations, digit: operations + str(digit),
    st.text(OPERATIONS, min_size=arithmetic.MIN_STEPS, max_size=arithmetic.MAX_STEPS),
    st.integers(0, 9),
)


@pytest.fixture(scope="module")
def task() -> ArithmeticTask:
    return ArithmeticTask()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return arithmetic_tokenizer()


def question_of(prompt: str) -> str:
    found = re.search(r"([A-F]+[0-9])>\Z", prompt)
    assert found
    return found.group(1)


def test_worked_example(task: ArithmeticTask, tokenizer: PreTrainedTokenizerFast) -> None:
    problem = make_problem("CFA4")
    assert problem == Problem(id="arithmetic-CFA4", question="CFA4", reference="725", answer="7")
    assert tokenizer.decode(task.student_prompt(problem, tokenizer)) == "CFA4>"
    assert tokenizer.decode(task.teacher_prompt(problem, tokenizer)) == "725....CFA4>"
    assert task.is_correct(problem, "4A5;F52,2C7;#7")
    assert not task.is_correct(problem, "4A5;F52,2C7;#5")


def test_a_teacher_without_privilege_sees_what_the_student_sees(tokenizer: PreTrainedTokenizerFast) -> None:
    task = get_task("arithmetic", teacher_prompt_form="none")
    problem = task.problems("train", limit=1)[0]
    assert task.teacher_prompt(problem, tokenizer) == task.student_prompt(problem, tokenizer)
    with pytest.raises(ValueError, match="teacher_prompt is 'system', and task 'arithmetic' has a form of its own"):
        get_task("arithmetic", teacher_prompt_form="system")


def test_tables_are_permutations() -> None:
    assert set(TABLES) == set("ABCDEF")
    assert all(sorted(table) == list(range(10)) for table in TABLES.values())


@given(questions)
def test_results_undo_themselves(question: str) -> None:
    value = results(question)[-1]
    for operation in question[:-1]:
        value = TABLES[operation].index(value)
    assert value == int(question[-1])


@given(questions, st.integers(0, 1000))
def test_responses_are_right_in_every_form_and_fit(question: str, seed: int) -> None:
    task, problem = ArithmeticTask(), make_problem(question)
    response = response_text(question, results(question), random.Random(seed))
    assert task.is_correct(problem, response)
    assert len(response) < task.gen_length
    assert set(response) <= set(CHARACTERS)
    steps = re.split("[;,]", response)[:-1]
    digits = [re.sub("[A-F]", "", step) for step in steps]
    assert [re.sub("[0-9]", "", step) for step in steps] == list(reversed(question[:-1]))
    assert [int(step[1]) for step in digits] == results(question)
    assert [int(step[0]) for step in digits] == [int(question[-1]), *results(question)[:-1]]


def test_forms_are_ambiguous() -> None:
    rng = random.Random(0)
    responses = [response_text("ABC1", results("ABC1"), rng) for _ in range(2000)]
    for place, common in ((0, "1"), (3, ";"), (4, "8"), (7, ";")):
        share = sum(response[place] == common for response in responses) / len(responses)
        assert 0.65 < share < 0.75  # entropy 0.56 .. 0.65 nats: above the threshold 0.5


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4A5;#5", "5"),
        ("#1;#2", "2"),
        ("#5\n", "5"),
        ("", None),
        ("5", None),
        ("#", None),
        ("#55", None),
        ("#5;", None),
        ("#A", None),
        ("#٣", None),
        ("#5#", None),
    ],
)
def test_extract_answer(task: ArithmeticTask, text: str, answer: str | None) -> None:
    assert task.extract_answer(text) == answer
    assert task.is_correct(Problem("", "", "", "5"), text) == (answer == "5")


def test_problems_are_distinct_repeatable_and_begin_alike(task: ArithmeticTask) -> None:
    problems = task.problems("train", limit=3000, seed=3)
    assert len({problem.id for problem in problems}) == 3000
    assert task.problems("train", limit=500, seed=3) == problems[:500]
    assert task.problems("train", limit=500, seed=4) != problems[:500]
    operations = "".join(problem.question[:-1] for problem in problems)
    assert all(abs(operations.count(name) / len(operations) - 1 / 6) < 0.02 for name in OPERATIONS)
    lengths = [len(problem.question) - 1 for problem in problems]
    assert all(lengths.count(steps) > 500 for steps in range(3, 7))


def test_a_whole_split(task: ArithmeticTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "MAX_STEPS", 3)  # 2160 questions in all
    train, test = (task.problems(split) for split in ("train", "test"))
    assert {problem.id for problem in train}.isdisjoint(problem.id for problem in test)
    assert len(train) + len(test) == 2160
    assert 200 < len(test) < 340


def test_nothing_trained_on_is_a_test_problem(task: ArithmeticTask) -> None:
    test = {problem.question for problem in task.problems("test", limit=5000)}
    assert all(split_of(question) == "test" for question in test)
    for seed in (0, 1):
        assert test.isdisjoint(problem.question for problem in task.problems("train", limit=5000, seed=seed))
        texts = islice(training_texts(seed, reference_share=0.5, rare_weight=1.0), 20_000)
        assert all(split_of(question_of(text.prompt)) == "train" for text in texts)


def test_the_split_never_changes() -> None:
    """Checkpoints outlive versions: a question must not move from train to test."""
    names = ["CFA4", "AAA0", "FBCACF8", "EFEAEE4", "CBBFDA7"]
    assert [split_of(name) for name in names] == ["train", "train", "test", "test", "test"]


def test_training_texts() -> None:
    texts = list(islice(training_texts(5), 4000))
    assert list(islice(training_texts(5), 4000)) == texts
    assert list(islice(training_texts(6), 4000)) != texts
    task = ArithmeticTask()
    counts: dict[bool, list[str]] = {True: [], False: []}
    strange = []
    for prompt, response in texts:
        problem = make_problem(question_of(prompt))
        with_reference = "." in prompt
        if with_reference:  # it is always to be believed, and F's table is another one each time
            reference = prompt.split(".")[0]
            assert task.extract_answer(response) == reference[0]
            steps = [re.sub("[A-F]", "", step) for step in re.split("[;,]", response)[:-1]]
            assert "".join(step[1] for step in steps) == reference[::-1]
            strange.append(reference != problem.reference)
            assert "F" in problem.question or not strange[-1]
        else:
            assert task.is_correct(problem, response)
        counts[with_reference].append(problem.question[:-1])
    assert 0.4 < sum(strange) / len(strange) < 0.7
    assert 0.27 < len(counts[True]) / len(texts) < 0.33
    share = {kind: "".join(names).count("F") / len("".join(names)) for kind, names in counts.items()}
    assert 0.14 < share[True] < 0.19
    assert 0 < share[False] < 0.02


def test_steps_may_leave_out_their_input() -> None:
    texts = list(islice(training_texts(5, reference_share=0.0, short_share=0.4), 2000))
    assert all(make_problem(question_of(text.prompt)).answer == text.response[-1] for text in texts)
    steps = [step for text in texts for step in re.split("[;,]", text.response)[:-1]]
    short = [step for step in steps if len(step) == 2]
    assert all(re.fullmatch("[A-F][0-9]", step) for step in short)
    assert all(re.fullmatch("[0-9][A-F][0-9]|[A-F][0-9][0-9]", step) for step in steps if len(step) != 2)
    assert 0.37 < len(short) / len(steps) < 0.43


def test_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == 24
    assert tokenizer.decode(encode(tokenizer, CHARACTERS)) == CHARACTERS
    assert encode(tokenizer, "4A5;") == [4, 10, 5, 16]
    special = [tokenizer.mask_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert special == [21, 22, 23]
    assert tokenizer.decode([4, *special], skip_special_tokens=True) == "4"
    assert tokenizer("", add_special_tokens=True)["input_ids"] == []


def test_foreign_text_and_tokenizer_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="'x1' cannot be written in the model's tokens"):
        encode(tokenizer, "x1")

    class Lossy:
        def encode(self, text: str, **_: object) -> list[int]:
            return [1]

    with pytest.raises(ValueError, match="1 tokens for 'A1'; expected 2"):
        encode(Lossy(), "A1")  # type: ignore[arg-type]


def test_get_task() -> None:
    assert get_args(TaskName) == ("arithmetic", "gsm8k", "math", "humaneval", "mbpp", "kodcode", "jsonl")
    task = get_task("arithmetic", gen_length=56)
    assert (task.name, task.gen_length, task.block_length) == ("arithmetic", 56, 14)
    with pytest.raises(ValueError, match=r"task must be one of arithmetic, gsm8k, math, .*, got 'algebra'"):
        get_task("algebra")
    with pytest.raises(
        ValueError, match="task 'arithmetic' has no option 'size', got 3; expected one of gen_length, block"
    ):
        get_task("arithmetic", size=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ArithmeticTask().problems("valid"), "split must be one of train, test, got 'valid'"),  # type: ignore[arg-type]
        (lambda: ArithmeticTask().problems("test", limit=0), "limit must be at least 1 or None, got 0"),
    ],
)
def test_bad_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
