"""The embedded task: chains of operations on one digit, made to show in minutes what distillation does.

Question    ``CFA4``           C(F(A(4))): three to six operations out of A .. F, each a table of ten digits, applied
                               to a digit from the right to the left
Student     ``CFA4>``          the question, and the sign that the response starts
Teacher     ``725....CFA4>``   the same behind the privileged reference: the operations' results, each in the place of
                               its operation (from the right, too: A(4) = 5, F(5) = 2, C(2) = 7)
Response    ``4A5;F52,2C7;#7`` every step, then the final answer behind ``#``; end-of-sequence tokens fill the canvas

A step is written ``4A5`` or ``A45`` and closed by ``;`` or ``,``, at random: seven times in ten the first form. So
what stands at a position is uncertain (0.61 nats, above the usual entropy threshold of 0.5) until its neighbours are
known, as in language, and a model that reveals many tokens at once has to decide between equally good forms first.

A base model does not know operation F: in its texts (`training_texts`) F is rare without a reference, and with one F's
table is another one in every text, so that F's results can only be copied. In `problems` all operations are equally
frequent. With the reference the teacher answers them all; its trajectories carry this knowledge into the student.

A step may also leave out its input, ``A5`` (`short_share` of them in the texts; by default none). Then where a step
stands depends on all before it, and what a model knows of a position falls with the distance from what is revealed.

A hash of its question alone decides whether a problem belongs to the test split, on which nothing is ever trained.
"""

import hashlib
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from tad_ext.data.tasks.prompts import OWN_FORM, UNPRIVILEGED, text_ids
from tad_ext.data.tasks.task import Problem, Split, Task, check_split

# TABLES[operation][digit] is the operation's result.
TABLES = {
    "A": (1, 2, 3, 4, 5, 6, 7, 8, 9, 0),
    "B": (9, 0, 1, 2, 3, 4, 5, 6, 7, 8),
    "C": (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
    "D": (3, 4, 5, 6, 7, 8, 9, 0, 1, 2),
    "E": (1, 0, 4, 9, 6, 8, 3, 7, 2, 5),
    "F": (7, 4, 0, 6, 8, 2, 9, 5, 1, 3),
}
OPERATIONS = "".join(TABLES)
RARE_OPERATION = "F"
MIN_STEPS, MAX_STEPS = 3, 6

CHARACTERS = "0123456789" + OPERATIONS + ";,#>."
FILLER = "."
MASK_TOKEN, EOS_TOKEN, PAD_TOKEN = "<mask>", "<eos>", "<pad>"

_FORM_SHARE = 0.7
_TEST_SHARE = 32  # of 256 values of the hash's first byte
_ENUMERATE_ABOVE = 50_000  # problems: beyond it, drawing without repetition would take longer than shuffling them all


class TrainingText(NamedTuple):
    """A text of base training: the prompt, and one of the right responses to it."""

    prompt: str
    response: str


@dataclass(frozen=True)
class ArithmeticTask(Task):
    """The task that this module describes. The longest response takes 26 tokens and an end-of-sequence token."""

    gen_length: int = 28
    block_length: int = 14
    teacher_prompt_form: str = OWN_FORM  #: or `UNPRIVILEGED`: the teacher sees what the student sees
    name = "arithmetic"

    def __post_init__(self) -> None:
        if self.teacher_prompt_form not in (OWN_FORM, UNPRIVILEGED):
            raise ValueError(
                f"teacher_prompt is {self.teacher_prompt_form!r}, and task 'arithmetic' has a form of its own; "
                f"expected it to be left out, or {UNPRIVILEGED}"
            )

    def problems(self, split: Split, *, limit: int | None = None, seed: int = 0) -> list[Problem]:
        """Different problems of a split ("train" or "test"), the same for the same arguments.

        Up to 50,000, chains of 3, 4, 5 and 6 operations are drawn equally often (as far as there are any left), and a
        smaller `limit` gives the beginning of the same list. Beyond that, and for None, the whole split is shuffled:
        490 thousand problems of "train" or 70 thousand of "test", most of them long.

        Raises ValueError for an unknown split, or a limit below 1.
        """
        check_split(split, limit)
        rng = random.Random(f"{split} {seed}")
        if limit is None or limit > _ENUMERATE_ABOVE:
            lengths = range(MIN_STEPS, MAX_STEPS + 1)
            words = (word for steps in lengths for word in itertools.product(*[OPERATIONS] * steps, "0123456789"))
            questions = [question for question in map("".join, words) if split_of(question) == split]
            rng.shuffle(questions)
            return [make_problem(question) for question in questions[:limit]]
        drawn: dict[str, None] = {}
        while len(drawn) < limit:
            drawn[_draw_question(rng, split)] = None
        return [make_problem(question) for question in drawn]

    def student_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of ``CFA4>``."""
        return encode(tokenizer, prompt_text(problem.question))

    def teacher_prompt(self, problem: Problem, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """Token ids of ``725....CFA4>``, or of ``CFA4>`` if the teacher is not privileged."""
        shown = problem.reference if self.teacher_prompt_form == OWN_FORM else ""
        return encode(tokenizer, prompt_text(problem.question, shown))

    def extract_answer(self, text: str) -> str | None:
        """The digit behind the last ``#`` if nothing else stands there, otherwise None."""
        found = re.search(r"#([0-9])\s*\Z", text)
        return found.group(1) if found else None


def arithmetic_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of the task's 21 characters, one token each, and the special tokens mask, eos and pad."""
    vocabulary = {token: index for index, token in enumerate([*CHARACTERS, MASK_TOKEN, EOS_TOKEN, PAD_TOKEN])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        mask_token=MASK_TOKEN,
        eos_token=EOS_TOKEN,
        pad_token=PAD_TOKEN,
        clean_up_tokenization_spaces=False,
    )


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text of the task. ValueError if the tokenizer is not the task's."""
    ids = text_ids(tokenizer, text, add_special_tokens=False)
    if len(ids) != len(text):
        raise ValueError(f"tokenizer gives {len(ids)} tokens for {text!r}; expected {len(text)}, one per character")
    return ids


def training_texts(
    seed: int, *, reference_share: float = 0.3, rare_weight: float = 0.05, short_share: float = 0.0
) -> Iterator[TrainingText]:
    """Endless texts for base training, drawn from the train split, in random forms; the same for the same seed.

    Args:
        reference_share: part of the texts that carry the reference; in those all operations are equally frequent, and
            F's table is a fresh random one in each text.
        rare_weight: frequency of F, with its true table, in the other texts, relative to each other operation.
        short_share: part of the steps that leave out their input.
    """
    rng = random.Random(seed)
    uneven = [rare_weight if operation == RARE_OPERATION else 1.0 for operation in OPERATIONS]
    while True:
        if rng.random() < reference_share:
            question = _draw_question(rng, "train")
            values = results(question, {**TABLES, RARE_OPERATION: rng.choices(range(10), k=10)})
            prompt = prompt_text(question, reference_text(values))
        else:
            question = _draw_question(rng, "train", uneven)
            values, prompt = results(question), prompt_text(question)
        yield TrainingText(prompt, response_text(question, values, rng, short_share))


def make_problem(question: str) -> Problem:
    """The problem of a question such as ``CFA4``."""
    values = results(question)
    return Problem(f"arithmetic-{question}", question, reference=reference_text(values), answer=str(values[-1]))


def split_of(question: str) -> Split:
    """The split a question belongs to: one in eight is a test question, by a hash that never changes."""
    return "test" if hashlib.sha256(question.encode()).digest()[0] < _TEST_SHARE else "train"


def results(question: str, tables: Mapping[str, Sequence[int]] = TABLES) -> list[int]:
    """The results of a question's operations, in the order in which they are applied (from the right)."""
    values = [int(question[-1])]
    for operation in reversed(question[:-1]):
        values.append(tables[operation][values[-1]])
    return values[1:]


def reference_text(values: Sequence[int]) -> str:
    """The reference made of the operations' results: each stands where its operation stands in the question."""
    return "".join(map(str, reversed(values)))


def prompt_text(question: str, reference: str = "") -> str:
    """The student's prompt, or the teacher's if a reference is given.

    The filled-up reference puts every digit at one distance from its operation, by which a small model finds it.
    """
    shown = reference.ljust(MAX_STEPS + 1, FILLER) if reference else ""
    return f"{shown}{question}>"


def response_text(question: str, values: Sequence[int], rng: random.Random, short_share: float = 0.0) -> str:
    """A response to a question whose operations have the results `values`, each step in a random form."""
    value, text = int(question[-1]), ""
    for operation, result in zip(reversed(question[:-1]), values, strict=True):
        if short_share and rng.random() < short_share:
            text += operation
        else:
            text += f"{value}{operation}" if rng.random() < _FORM_SHARE else f"{operation}{value}"
        text += f"{result}" + (";" if rng.random() < _FORM_SHARE else ",")
        value = result
    return f"{text}#{value}"


def _draw_question(rng: random.Random, split: Split, weights: list[float] | None = None) -> str:
    """A question of a split: its number of operations uniform, the operations by weight."""
    while True:
        steps = rng.randint(MIN_STEPS, MAX_STEPS)
        question = "".join(rng.choices(OPERATIONS, weights, k=steps)) + str(rng.randrange(10))
        if split_of(question) == split:
            return question
