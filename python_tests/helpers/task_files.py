"""Small problem files of this project's own writing, one for each task that reads one, in the original formats."""

import json
from pathlib import Path
from typing import Any

_DOUBLE = "def twice(x):\n    return 2 * x\n"


def _code(number: int) -> tuple[str, str, str]:
    """A function's beginning, its body and its name."""
    name = f"add_{number}"
    return f'def {name}(x):\n    """Add {number} to x."""\n', f"    total = x + {number}\n    return total\n", name


def _humaneval(number: int) -> dict[str, Any]:
    beginning, body, name = _code(number)
    check = f"def check(candidate):\n    assert candidate(1) == {number + 1}\n"
    return {
        "task_id": f"HumanEval/{number}", "prompt": beginning, "canonical_solution": body, "entry_point": name,
        "test": check,
    }  # fmt: skip


def _mbpp(number: int) -> dict[str, Any]:
    beginning, body, name = _code(number)
    return {
        "task_id": number, "text": f"Write a function that adds {number}.",
        "code": (beginning + body).replace("\n", "\r\n"), "test_setup_code": "",
        "test_list": [f"assert {name}(1) == {number + 1}"], "challenge_test_list": [],
    }  # fmt: skip


def _kodcode(number: int) -> dict[str, Any]:
    beginning, body, name = _code(number)
    test = f"from solution import {name}\n\ndef test_one():\n    assert {name}(1) == {number + 1}\n"
    return {
        "question_id": f"Own_{number}_I", "question": f"Add {number}.", "solution": beginning + body, "test": test,
        "test_info": [{"function_name": name, "function_declaration": f"def {name}(x):"}],
    }  # fmt: skip


RECORDS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [
        {"question": f"Ben has {n} pens and buys 6. How many?",
         "answer": f"He has {n}+6=<<{n}+6={n + 6}>>{n + 6}.\n#### {n + 6}"}
        for n in range(20, 26)
    ],
    "math": [
        {"problem": f"What is ${n}/7$ doubled?", "solution": f"Twice as much is $\\boxed{{\\frac{{{2 * n}}}{{7}}}}$."}
        for n in range(20, 26)
    ],
    "humaneval": [_humaneval(number) for number in range(6)],
    "mbpp": [_mbpp(number) for number in (1, 2, 3, 11, 12, 511, 601, 602)],
    "kodcode": [_kodcode(number) for number in range(6)],
    "jsonl": [
        {"prompt": "Name a river in Europe.", "response": "The Danube is one.", "answer": "Danube"},
        {"prompt": "What is 6 times 7?", "response": "It is 6 * 7 = 42.", "answer": 42},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And 6 times 8?"}],
         "response": "6 * 8 is \\boxed{48}."},
        {"id": "code-1", "prompt": "Write twice(x).", "response": f"```python\n{_DOUBLE}```",
         "tests": "assert twice(4) == 8"},
        {"prompt": "Say yes.", "response": "yes, of course", "check": "exact"},
    ],
}  # fmt: skip
TASKS = tuple(RECORDS)


def write_records(path: Path, records: list[dict[str, Any]]) -> str:
    """A file of one JSON object a line."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return str(path)


def right_response(task: str, record: dict[str, Any]) -> str:
    """A response that the task has to accept."""
    if task == "humaneval":
        return f"Here it is:\n```python\n{record['prompt']}{record['canonical_solution']}```\nIt adds."
    if task in ("mbpp", "kodcode"):
        return f"```python\n{record.get('code') or record['solution']}\n```"
    return record.get("answer_text") or record.get("response") or record.get("solution") or record["answer"]
