"""A model whose prediction at every position is written down, and a task of one word per problem."""

from types import SimpleNamespace

import pytest
import torch

from tad_ext.data.tasks.task import Problem

torch.set_num_threads(1)

WORDS = ["zero", "one", "two", "three", "end", "mask"]
END, MASK = 4, 5


class ScriptedModel:
    """Behind a prompt of one token, canvas column i holds `tokens[prompt][i]` with probability
    `confidences[prompt][i]`.
    """

    device = torch.device("cpu")

    def __init__(self, tokens, confidences):
        self.tokens, self.confidences = tokens, confidences
        self.config = SimpleNamespace(
            vocab_size=len(WORDS),
            mask_token_id=MASK,
            eos_token_ids=[END],
            suppress_token_ids=[],
            max_position_embeddings=16,
        )
        self.inputs = []

    def __call__(self, input_ids, *, lengths=None, positions=None):
        self.inputs.append(input_ids.clone())
        rows, columns = input_ids.shape
        probability = torch.full((rows, columns, len(WORDS)), 1 / len(WORDS))
        for row, prompt in enumerate(input_ids[:, 0].tolist()):
            for column, (token, confidence) in enumerate(
                zip(self.tokens[prompt], self.confidences[prompt], strict=True), 1
            ):
                probability[row, column] = (1 - confidence) / (len(WORDS) - 1)
                probability[row, column, token] = confidence
        return SimpleNamespace(logits=probability.log().flatten(0, 1)[positions.clamp(min=0)])


class WordTokenizer:
    """Token i is the word WORDS[i]; the last two are special."""

    def decode(self, tokens, skip_special_tokens=True):
        return " ".join(WORDS[token] for token in tokens if not (skip_special_tokens and token >= END))

    def encode(self, text, add_special_tokens=True):
        return [WORDS.index(word) for word in text.split()]


class WordTask:
    """The question is a number; the right answer ends with the word `answer`."""

    name, gen_length, block_length = "words", 4, 2

    def student_prompt(self, problem, tokenizer):
        return [int(problem.question)]

    def teacher_prompt(self, problem, tokenizer):
        return [int(problem.question) + 2]

    def is_correct(self, problem, text):
        return text.endswith(problem.answer)


@pytest.fixture
def scripted_model():
    return ScriptedModel


@pytest.fixture
def words():
    """Two problems, of which the model gets the first right from the student's prompt and both from the teacher's."""
    responses = {0: [1, 1, 2, END], 1: [1, END, END, END], 2: [2, 2, 2, 2], 3: [1, 3, END, END]}
    confidences = {0: [0.99, 0.99, 0.99, 0.99], 1: [0.99, 0.9, 0.4, 0.4], 2: [0.9] * 4, 3: [0.9] * 4}
    return SimpleNamespace(
        model=ScriptedModel(responses, confidences),
        tokenizer=WordTokenizer(),
        task=WordTask(),
        problems=[Problem("a", "0", "reference", "two"), Problem("b", "1", "reference", "three")],
    )
