"""Code tasks of the harness: the metric runs programs in the sandbox, and no task runs them elsewhere."""

import contextlib
import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

import evaluate
import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from tad_ext.evaluation.harness import SandboxedCodeEval, check_code_tasks, code_eval_in_sandbox

HARNESS_TASKS = Path(lm_eval.__file__).parent / "tasks"
HUMANEVAL = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f"def f{number}(x):\n",
        "entry_point": f"f{number}",
        "test": f"def check(candidate):\n    assert candidate(2) == {number + 2}\n",
    }
    for number in range(3)
]
MBPP = [
    {
        "text": "Write a function to add.",
        "code": "",
        "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(0, 0) == 0"],
    }
] * 2


class Scripted(LM):
    """Gives texts in their order."""

    def __init__(self, texts):
        super().__init__()
        self.texts = iter(texts)

    def generate_until(self, requests):
        return [next(self.texts) for _ in requests]

    def loglikelihood(self, requests):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


@pytest.fixture
def load(tmp_path, monkeypatch, write_task):
    """load(task of the harness, records): it, over these records, in a process that has loaded none before."""

    def of(name, file, records, more=""):
        for module in [module for module in sys.modules if module.startswith("lm_eval.tasks.")]:
            if hasattr(sys.modules[module], "__mtime__"):
                monkeypatch.delitem(sys.modules, module)
        path = write_task(tmp_path, name, f"include: {HARNESS_TASKS / file}\n{more}", records)
        return TaskManager(include_defaults=False).load([str(path)])

    return of


def run(loaded, texts):
    results = lm_eval.evaluate(
        Scripted(texts), loaded, confirm_run_unsafe_code=True, bootstrap_iters=0, log_samples=False
    )
    return next(iter(results["results"].values()))


def test_humaneval(load, tmp_path):
    with code_eval_in_sandbox():
        loaded = load("humaneval", "humaneval/humaneval.yaml", HUMANEVAL)
    check_code_tasks(loaded["tasks"])
    assert evaluate.load.__module__.startswith("evaluate.")
    target = tmp_path / "escaped"
    escaping = f"    open({str(target)!r}, 'w').write('out')\n    return x + 1"
    assert run(loaded, ["    return x", escaping, "    return 4"])["pass@1,create_test"] == pytest.approx(2 / 3)
    assert not target.exists()


def test_mbpp(load):
    with code_eval_in_sandbox():
        loaded = load("mbpp", "mbpp/mbpp.yaml", MBPP)
    check_code_tasks(loaded["tasks"])
    texts = ["def add(a, b):\n    return a + b", "def add(a, b):\n    return 3"]
    assert run(loaded, texts)["pass_at_1,none"] == 0.5


def test_pass_at_k_by_hand():
    """Of four programs of the first problem one is right: 1 - (3 over 2) / (4 over 2) = 1/2; of the second all are."""
    metric = SandboxedCodeEval()
    wrong = ["def f(): return 1", "raise SystemExit(0)", "while True: pass"]
    rates, results = metric.compute(
        predictions=[["def f(): return 2", *wrong], ["def f(): return 2"] * 4],
        references=["assert f() == 2"] * 2,
        k=[1, 2, 4, 5],
        timeout=1.0,
    )
    assert rates == {"pass@1": (1 / 4 + 1) / 2, "pass@2": (1 / 2 + 1) / 2, "pass@4": 1.0}
    assert [one["passed"] for _, one in results[0]] == [True, False, False, False]
    assert "AssertionError" in results[0][1][1]["result"]
    assert [place for place, _ in results[1]] == [0, 1, 2, 3]


def test_programs_know_nothing_of_this_process(monkeypatch):
    monkeypatch.setenv("A_SECRET", "told")
    assert os.environ["A_SECRET"] == "told"
    asked = ["import os; secret = os.environ.get('A_SECRET')"]
    rates, _ = SandboxedCodeEval().compute(predictions=[asked], references=["assert secret is None"], k=[1])
    assert rates == {"pass@1": 1.0}


def test_other_metrics_are_loaded_as_ever(monkeypatch):
    asked = []
    monkeypatch.setattr(evaluate, "load", lambda *arguments, **options: asked.append((arguments, options)))
    with code_eval_in_sandbox():
        evaluate.load("bleu", module_type="metric")
        assert isinstance(evaluate.load("code_eval"), SandboxedCodeEval)
    assert asked == [(("bleu",), {"module_type": "metric"})]


UNSAFE = """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
"""
CRUXEVAL = [{"code": "def f(x): return x", "input": "1", "output": "1", "id": "1"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "marked",
            "unsafe_code: true\nmetric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}",
            "it is marked unsafe_code, and code_eval is not its metric",
        ),
        (
            "hidden",
            "metric_list:\n  - {metric: !function judge.runs, aggregation: mean, higher_is_better: true}",
            r"judge\.py uses exec",
        ),
        (
            "results",
            "process_results: !function judge.process_results\n"
            "metric_list:\n  - {metric: right, aggregation: mean, higher_is_better: true}",
            r"judge\.py uses exec",
        ),
        (
            "filtered",
            "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n"
            "filter_list: [{name: f, filter: [{function: custom, filter_fn: !function judge.filtered}]}]",
            r"judge\.py uses exec",
        ),
    ],
)
def test_tasks_that_run_code_elsewhere_are_refused(name, text, message, tmp_path, write_task):
    (tmp_path / "judge.py").write_text(
        "def runs(references, predictions):\n    exec(predictions[0])\n    return 1.0\n"
        "def process_results(doc, results):\n    return {'right': 1.0}\n"
        "def filtered(resps, docs):\n    return resps\n"
    )
    path = write_task(tmp_path, name, UNSAFE + text, [{"question": "q", "answer": "a"}])
    with code_eval_in_sandbox():
        tasks = TaskManager(include_defaults=False).load([str(path)])["tasks"]
    with pytest.raises(ValueError, match=f"task '{name}' would run what the model has written outside .*{message}"):
        check_code_tasks(tasks)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (
            "import builtins\ndef runs(references, predictions):\n    builtins.exec(predictions[0])\n",
            "judge.py uses exec",
        ),
        ("def runs(references, predictions):\n    (run := eval)(predictions[0])\n", "judge.py uses eval"),
        ("def runs(*_):\n    from subprocess import Popen\n", "judge.py uses subprocess"),
        ("import os\ndef runs(*_):\n    os.system('')\n", "judge.py uses os.system"),
        ("def runs(*_):\n    from helper import go\n", "helper.py uses exec"),
        ("def runs(*_):\n    import outer\n", "helper.py uses exec"),
        ("def runs(*_):\n    import lm_eval.tasks.score.math.math_grader\n", "math_grader.py uses parse_expr"),
        (
            "import re, os, ast\ndef runs(model, *_):\n    model.eval()\n    re.compile(''), ast.literal_eval('1')\n",
            None,
        ),
    ],
)
def test_running_code_is_found_wherever_it_is_hidden(judge, message, tmp_path, write_task):
    (tmp_path / "judge.py").write_text(judge)
    (tmp_path / "helper.py").write_text("def go(text):\n    exec(text)\n")
    (tmp_path / "outer.py").write_text("from helper import go\n")
    text = UNSAFE + "metric_list:\n  - {metric: !function judge.runs, aggregation: mean, higher_is_better: true}"
    path = write_task(tmp_path, "hidden", text, [{"question": "q", "answer": "a"}])
    tasks = TaskManager(include_defaults=False).load([str(path)])["tasks"]
    with contextlib.nullcontext() if message is None else pytest.raises(ValueError, match=message):
        check_code_tasks(tasks)


def test_a_task_of_the_harness_with_a_runner_of_its_own_is_refused(load):
    with code_eval_in_sandbox():
        tasks = load("cruxeval", "cruxeval/cruxeval_output.yaml", CRUXEVAL)["tasks"]
    with pytest.raises(ValueError, match=r"task 'cruxeval' would run .*cruxeval/utils\.py uses os\.system"):
        check_code_tasks(tasks)


def test_tests_that_the_sandbox_cannot_run_are_refused(load):
    records = [HUMANEVAL[0], HUMANEVAL[1] | {"test": "import numpy as np\ndef check(candidate): pass\n"}]
    with code_eval_in_sandbox():
        tasks = load("humaneval", "humaneval/humaneval.yaml", records)["tasks"]
    with pytest.raises(ValueError, match=r"the tests of task 'humaneval' import numpy; expected the standard library"):
        check_code_tasks(tasks)
