r"""Trajectories in the form of TAD's published code (arXiv 2605.09536, ``prepare/*.py``): a line of JSON for each, with
every state of its canvas.

``trajectory``    ``{"step0": [...], "step1": [...], ...}``: the canvas's token ids after so many forwards. LLaDA's
                  scripts begin with the canvas of masks, Dream's with the one after the first forward
math              ``dataset_name``, ``dataset_split`` (only Dream's), ``index``, ``sample_id``; ``question``, the user's
                  message, with the reference in it; ``prompt``, that message in the chat template, which was decoded
                  from; ``prompt_len``, its tokens; ``pred``, the answer found
code              ``row_id``, ``sample_id``; ``question``, without the reference; ``solution_ref``; ``teacher_text``,
                  the message that was decoded from; ``solution_code``, the answer
last line         a ``summary``, with counts

Only right answers are written. What is written here has ``tad_ext`` beside, with whatever else a trajectory file says,
so that reading it gives the same again. It is of use to the published training, which reads ``prompt`` (here the
student's: without the reference), ``trajectory``, and the reference under ``groundtruth``, which no published script
writes.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

import numpy as np

from tad_ext.data.tasks.prompts import chat_ids, student_prompt_ids, text_ids
from tad_ext.data.trajectories.files import Trajectory
from tad_ext.data.trajectories.metadata import TrajectoryMetadata, metadata_from_json

OWN = "tad_ext"
_OWN_FIELDS: dict[str, tuple[type, ...]] = {
    "id": (str,),
    "prompt_ids": (list,),
    "teacher_prompt_ids": (list,),
    "correct": (bool,),
    "answer": (str, NoneType),
    "reference": (str,),
}
_MATH_MESSAGE = re.compile(
    r"Question: (?P<question>.*?)\nReference Answer: (?P<reference>.*)\nAfter understanding the reference answer.*",
    re.DOTALL,
)


def reveal_steps(states: np.ndarray, mask_token_id: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Final tokens, reveal steps and number of steps from all states of a canvas, (S, G) integers, in their order.

    Where the first state is not all masks, it is the one after the first forward. ValueError for a state that changes
    or masks what an earlier one shows, and for a mask in the last one.
    """
    masked = states == mask_token_id
    for step, place in np.argwhere(~masked[:-1] & (states[:-1] != states[1:]))[:1]:
        raise ValueError(
            f"state {step + 1} changes position {place} from {states[step, place]} to {states[step + 1, place]}; "
            f"expected that a step reveals positions and leaves the revealed ones as they are"
        )
    for place in np.flatnonzero(masked[-1])[:1]:
        raise ValueError(f"the last state holds the mask id {mask_token_id} at position {place}, expected no mask")
    first = 0 if masked[0].all() else 1
    return states[-1], masked.sum(axis=0) + first, len(states) - 1 + first


def to_record(item: Trajectory, run: TrajectoryMetadata, tokenizer: Any) -> dict[str, Any]:
    """The line of a trajectory. ValueError if its response holds the mask id, which would be read as a mask."""
    if (item.response_ids == run.mask_token_id).any():
        raise ValueError(f"trajectory {item.id!r} is unfinished: response_ids holds the mask id {run.mask_token_id}")
    canvases = [item.canvas_at(step, run.mask_token_id) for step in range(item.num_steps)]
    states = [*canvases, item.response_ids]
    own = {name: getattr(item, name) for name in _OWN_FIELDS}
    return {
        "dataset_name": item.task,
        "dataset_split": run.split,
        "index": item.id,
        "sample_id": item.sample,
        "prompt": tokenizer.decode(item.prompt_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False),
        "prompt_len": len(item.prompt_ids),
        "groundtruth": item.reference,
        "pred": item.answer,
        "output_text": tokenizer.decode(item.response_ids, skip_special_tokens=True),
        "trajectory": {f"step{step}": state.tolist() for step, state in enumerate(states)},
        OWN: {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in own.items()}
        | {"run": dataclasses.asdict(run)},
    }


def is_summary(record: Mapping[str, Any]) -> bool:
    """Whether a line holds a script's counts, and no trajectory."""
    return "summary" in record and "trajectory" not in record


@dataclass(frozen=True)
class RecordReader:
    """Reads lines of either kind."""

    tokenizer: Any
    mask_token_id: int
    tokenizer_hash: str
    run: TrajectoryMetadata | None  #: of lines that do not say how they were decoded; None: there are to be none
    task: str | None = None  #: of such lines; None: their ``dataset_name``
    split: str | None = None  #: None: their ``dataset_split``, or that of `run`

    def __call__(self, record: Mapping[str, Any]) -> tuple[TrajectoryMetadata, Trajectory]:
        """A line's trajectory and run. ValueError, TypeError naming the key that is missing or not as expected."""
        response_ids, reveal_step, num_steps = reveal_steps(_states(record), self.mask_token_id)
        canvas: dict[str, Any] = {"response_ids": response_ids, "reveal_step": reveal_step, "num_steps": num_steps}
        if OWN in record:
            return self._own(record, canvas)
        if self.run is None:
            raise ValueError("does not say at which temperature it was decoded; expected the setting temperature")
        says = self._code(record) if "teacher_text" in record else self._math(record)
        task = self.task or record.get("dataset_name")
        if not task:
            raise ValueError("does not say which task it is of; expected the setting task")
        split = self.split or record.get("dataset_split") or self.run.split
        run = dataclasses.replace(self.run, task=task, split=split, gen_length=len(response_ids))
        number = _get(record, "row_id" if "row_id" in record else "index", int, str)
        sample = _get(record, "sample_id", int)
        return run, Trajectory(id=f"{task}-{number}", sample=sample, task=task, correct=True, **says, **canvas)

    def _own(self, record: Mapping[str, Any], canvas: dict[str, Any]) -> tuple[TrajectoryMetadata, Trajectory]:
        own = _get(record, OWN, dict)
        run = metadata_from_json(own.get("run"))
        says = {name: _get(own, name, *kinds) for name, kinds in _OWN_FIELDS.items()}
        for name in ("mask_token_id", "tokenizer_hash"):
            noted, mine = getattr(run, name), getattr(self, name)
            if noted != mine:
                raise ValueError(f"was made with {name} {noted!r}, the model's is {mine!r}")
        return run, Trajectory(sample=_get(record, "sample_id", int), task=run.task, **says, **canvas)

    def _math(self, record: Mapping[str, Any]) -> dict[str, Any]:
        message = _MATH_MESSAGE.fullmatch(_get(record, "question", str))
        if message is None:
            raise ValueError("'question' must be of the published form: Question, Reference Answer, a request")
        teacher_prompt_ids = text_ids(self.tokenizer, _get(record, "prompt", str), add_special_tokens=False)
        length = record.get("prompt_len", len(teacher_prompt_ids))
        if length != len(teacher_prompt_ids):
            raise ValueError(
                f"'prompt' has {len(teacher_prompt_ids)} tokens and prompt_len is {length}: it was made with another "
                f"tokenizer than the model's"
            )
        answer = record.get("pred")
        return {
            "prompt_ids": student_prompt_ids(self.tokenizer, message["question"]),
            "teacher_prompt_ids": teacher_prompt_ids,
            "answer": None if answer is None else str(answer),
            "reference": message["reference"],
        }

    def _code(self, record: Mapping[str, Any]) -> dict[str, Any]:
        def asked(key: str) -> list[int]:
            return chat_ids(self.tokenizer, [{"role": "user", "content": _get(record, key, str)}])

        return {
            "prompt_ids": asked("question"),
            "teacher_prompt_ids": asked("teacher_text"),
            "answer": _get(record, "solution_code", str),
            "reference": _get(record, "solution_ref", str),
        }


def _states(record: Mapping[str, Any]) -> np.ndarray:
    """(S, G): the states of a line, at least two."""
    trajectory = _get(record, "trajectory", dict)
    names = [f"step{step}" for step in range(len(trajectory))]
    missing = next((name for name in names or ["step0"] if name not in trajectory), None)
    if missing:
        raise ValueError(f"'trajectory' has {len(names)} states, but no {missing!r}; expected step0, step1, ...")
    states = [trajectory[name] for name in names]
    for name, state in zip(names, states, strict=True):
        if not isinstance(state, list) or len(state) != len(states[0]) or not state:
            raise ValueError(f"{name!r} must be a list of as many token ids as step0 has, at least one")
    array = np.array(states)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError("the states must be lists of integers")
    return array


def _get(record: Mapping[str, Any], key: str, *kinds: type) -> Any:
    if key not in record:
        raise ValueError(f"has no key {key!r}; its keys are {', '.join(sorted(record))}")
    if not isinstance(record[key], kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{key!r} must be {names}, got {str(record[key])[:80]!r}")
    return record[key]
