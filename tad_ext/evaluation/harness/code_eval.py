"""Code tasks of the harness: their metric, the package evaluate's `code_eval`, with the sandbox to run programs in.

The original is downloaded and runs model-written programs in processes of its own, unprotected. The tasks ask for it by
name when they are loaded, so it is replaced while they are; tasks that run code in another way are refused.
"""

import ast
import contextlib
import functools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

import evaluate
import lm_eval

from tad_ext.data.sandbox.run import Limits, run_program

_NAME = "code_eval"
# Python's own names for running a text, and sympy's: both of its parsers call eval.
_RUNNERS = {"exec", "eval", "parse_expr", "sympify"}


class SandboxedCodeEval:
    """`evaluate.load("code_eval")` in the sandbox: pass@k (Chen et al., arXiv 2107.03374) of programs."""

    def __init__(self, *, unprotected: bool = False) -> None:
        self._unprotected = unprotected

    def compute(
        self,
        *,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int | None = None,
        timeout: float = 3.0,
    ) -> tuple[dict[str, float], dict[int, list[tuple[int, dict[str, Any]]]]]:
        """The mean over problems of pass@k, for each k of which no problem has fewer programs; and what came of each.

        A program passes if it, and behind it the tests, run to their end without an exception.

        Args:
            predictions: programs of each problem.
            references: tests of each problem, which are code.
            k: numbers of programs of which one has to pass.
            num_workers: programs at a time; default: as many as there are cores.
            timeout: seconds that a program with its tests may take.

        Raises:
            SandboxError: programs are not run on this machine.
        """
        run = functools.partial(run_program, limits=Limits(wall_seconds=timeout), unprotected=self._unprotected)
        asked = [
            (number, f"{program}\n{tests}")
            for number, (programs, tests) in enumerate(zip(predictions, references, strict=True))
            for program in programs
        ]
        with ThreadPoolExecutor(num_workers) as pool:
            runs = list(pool.map(lambda one: run(one[1]), asked))
        results: dict[int, list[tuple[int, dict[str, Any]]]] = {number: [] for number in range(len(references))}
        for (number, _), result in zip(asked, runs, strict=True):
            place = len(results[number])
            told = "passed" if result.passed else f"failed: {result.reason}"
            results[number].append(
                (place, {"task_id": number, "passed": result.passed, "result": told, "completion_id": place})
            )
        counts = [(len(found), sum(one["passed"] for _, one in found)) for found in results.values()]
        rates = {
            f"pass@{size}": fmean(
                1 - math.comb(total - passed, size) / math.comb(total, size) for total, passed in counts
            )
            for size in k
            if counts and all(total >= size for total, _ in counts)
        }
        return rates, results


@contextlib.contextmanager
def code_eval_in_sandbox(*, unprotected: bool = False) -> Iterator[None]:
    """Within the block `evaluate.load("code_eval")` gives a `SandboxedCodeEval`; tasks that were loaded keep theirs."""
    original, metric = evaluate.load, SandboxedCodeEval(unprotected=unprotected)

    def load(path: str, *arguments: Any, **options: Any) -> Any:
        return metric if path == _NAME else original(path, *arguments, **options)

    evaluate.load = load
    try:
        yield
    finally:
        evaluate.load = original


def check_code_tasks(tasks: Mapping[str, Any]) -> None:
    """ValueError for a task that would run model-written code outside the sandbox, or tests that cannot be run there.

    The first are those that are marked `unsafe_code` and have another metric, and those whose Python, or what it
    imports from beside it or from other tasks, names exec, eval, sympy's parsers, subprocess or os.system.
    """
    for name, task in tasks.items():
        functions = _functions(task)
        is_ours = any(isinstance(value, SandboxedCodeEval) for one in functions for value in _reach(one))
        files = {file for one in functions if (path := _file(one)) is not None for file in _with_imported(path)}
        runs = next(((file, found) for file in sorted(files) if (found := _runs(file))), None)
        if runs is not None or (getattr(task, "UNSAFE_CODE", False) and not is_ours):
            how = f"{runs[0]} uses {runs[1]}" if runs else f"it is marked unsafe_code, and {_NAME} is not its metric"
            raise ValueError(
                f"task {name!r} would run what the model has written outside the sandbox: {how}; expected a task whose "
                f"metric is {_NAME}, such as humaneval and mbpp"
            )
        if is_ours and (missing := _imported_by_tests(task) - sys.stdlib_module_names):
            raise ValueError(
                f"the tests of task {name!r} import {', '.join(sorted(missing))}; expected the standard library alone, "
                f"which is all that the sandbox has"
            )


def _functions(task: Any) -> list[Any]:
    """The Python functions that judge a task's responses."""
    filters = [one for ensemble in getattr(task, "_filters", []) for one in ensemble.filters]
    found = [
        *getattr(task, "_metric_fn_list", {}).values(),
        getattr(task.config, "process_results", None),
        type(task).process_results,
        *(one.keywords.get("filter_fn") for one in filters if isinstance(one, functools.partial)),
    ]
    return [getattr(one, "__self__", one) for one in found if one is not None]  # function.__call__ stands for function


def _reach(function: Any) -> list[Any]:
    return [function, *getattr(function, "__globals__", {}).values()]


def _file(function: Any) -> str | None:
    """Where a function of a task is written; None for the harness's own."""
    code = getattr(function, "__code__", None)
    inside = "" if code is None else str(getattr(function, "__module__", ""))
    return None if code is None or inside.startswith(("lm_eval.api.", "lm_eval.filters.")) else str(code.co_filename)


@functools.cache
def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text("utf-8"))


@functools.cache
def _runs(file: str) -> str | None:
    """What a file can run a text with."""
    for node in ast.walk(_tree(file)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) | ast.alias(name=name) if name in {*_RUNNERS, "subprocess"}:
                return name
            case ast.ImportFrom(module="subprocess"):
                return "subprocess"
            case ast.Attribute(value=ast.Name(id="builtins"), attr="exec" | "eval" as name):
                return name
            case ast.Attribute(attr="parse_expr" | "sympify" as name):
                return name
            case ast.Attribute(value=ast.Name(id="os"), attr="system" | "popen" as name):
                return f"os.{name}"
    return None


@functools.cache
def _with_imported(file: str) -> frozenset[str]:
    """A file, and those that it imports, and these, and so on: files beside it, and of the harness's tasks."""
    found, new = {file}, [file]
    while new:
        one = new.pop()
        more = {str(path) for path in _imports(one) if path.is_file()} - found
        found |= more
        new += more
    return frozenset(found)


def _imports(file: str) -> Iterator[Path]:
    """Where the modules would be that a file imports."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module or ''}.{alias.name}" for alias in node.names)]
        else:
            continue
        up = max(getattr(node, "level", 0) - 1, 0)
        for name in names:
            of_harness = name.startswith("lm_eval.tasks.")
            folder = Path(lm_eval.__file__).parents[1] if of_harness else Path(file).parents[up]
            path = folder.joinpath(*filter(None, name.split(".")))
            yield from (path.with_suffix(".py"), path / "__init__.py")


def _imported_by_tests(task: Any) -> set[str]:
    """The packages that a task's tests import."""
    found: set[str] = set()
    for document in task.eval_docs:
        with contextlib.suppress(SyntaxError):  # which the tests' run will find, too
            for node in ast.walk(ast.parse(str(task.doc_to_target(document)))):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found.add(node.module.partition(".")[0])
    return found
