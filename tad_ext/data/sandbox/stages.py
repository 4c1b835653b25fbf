"""Inside the child: runs a program stage by stage, and proves of each that it reached its end.

Behind the source of a stage the server puts a nonce into the control pipe. It is read when the stage has ended, and
sent back: a program that exits, is killed or only claims to have passed does not send it. Each stage has a copy of
Python's builtins, and those of this module are put back behind it, so that no stage exchanges them for the next.
"""

import ast
import builtins
import contextlib
import sys
import traceback
import types
from collections.abc import Iterator
from os import write
from typing import Any

from tad_ext.data.sandbox import frames
from tad_ext.data.sandbox.protection import give_last_memory

NONCE_BYTES = 16
MAX_REASON = 2000
CONTROL, REPORT = 3, 4  # descriptors

# What answers could be read from the tests with, or lines of them skipped. The standard library copes without.
_REFUSED_EVENTS = {
    "sys._getframe", "sys._current_frames", "sys._current_exceptions", "sys.settrace", "sys.setprofile",
    "sys.monitoring.register_callback", "gc.get_objects", "gc.get_referrers", "gc.get_referents",
}  # fmt: skip
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def run_stages() -> None:
    """Runs the stages that the server sends, until one fails; after the last one the server kills this process.

    A stage has a `name` for messages, its `source`, and the name of the `module` that it is run as; if it `checks`, it
    has to assert or call something, and its functions named test... are called. It sees the names of the one before,
    but for those of Python's builtins that are not among that one's `builtins`.
    """
    output = sys.stdout
    pristine, put_back = dict(vars(builtins)), vars(builtins).update
    names: dict[str, Any] = {}
    sys.modules["__main__"] = types.ModuleType("__main__")  # the server's is none of a program's business
    sys.addaudithook(_refuse)
    while True:
        stage = frames.receive(CONTROL)
        module = sys.modules[stage["module"]] = types.ModuleType(stage["module"])
        vars(module).update(names | {"__name__": stage["module"], "__builtins__": dict(pristine)})
        try:
            if stage["checks"]:
                _run_tests(stage["source"], vars(module))
            else:
                exec(compile(stage["source"], f"<{stage['name']}>", "exec", dont_inherit=True), vars(module))
            put_back(pristine)
            _flush(output)
        except BaseException as error:
            put_back(pristine)
            memory = give_last_memory()
            _tell(error)
            _flush(output)
            write(REPORT, frames.framed(_reason(error, memory).encode("utf-8", "backslashreplace")))
            return
        write(REPORT, frames.framed(frames.exactly(CONTROL, NONCE_BYTES)))
        hidden = set(pristine) - set(stage["builtins"])
        names = {name: value for name, value in vars(module).items() if name not in hidden}


def _run_tests(source: str, namespace: dict[str, Any]) -> None:
    tree = ast.parse(source, "<tests>")
    definitions = [node for node in tree.body if isinstance(node, _DEFINITIONS)]
    tests = [node for node in definitions if isinstance(node, ast.FunctionDef) and _is_test(node)]
    runs = [node for node in tree.body if node not in definitions or node in tests]
    if not any(isinstance(inner, ast.Assert | ast.Call) for node in runs for inner in ast.walk(node)):
        raise ValueError("the tests assert nothing and call nothing")
    exec(compile(tree, "<tests>", "exec", dont_inherit=True), namespace)
    for test in tests:
        namespace[test.name]()


def _is_test(node: ast.FunctionDef) -> bool:
    arguments = node.args
    return node.name.startswith("test") and not (arguments.posonlyargs or arguments.args or arguments.kwonlyargs)


def _refuse(event: str, _: Any) -> None:
    if event in _REFUSED_EVENTS:
        raise ValueError(f"{event} is not available to this program")


def _frames(error: BaseException) -> Iterator[types.TracebackType]:
    """Where it passed through the program, outermost first; nothing of this module."""
    place = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_filename in ("<program>", "<solution>", "<tests>"):
            yield place
        place = place.tb_next


def _tell(error: BaseException) -> None:
    """The traceback, behind what the program has printed."""
    with contextlib.suppress(BaseException):
        traceback.print_exception(error.with_traceback(next(_frames(error), None)))


def _flush(output: Any) -> None:
    with contextlib.suppress(BaseException):  # the program may have closed it
        output.flush()


def _reason(error: BaseException, memory: int) -> str:
    """One line; `memory`: the bytes that there were. The program may have made an error that cannot be asked."""
    name = "an exception that cannot be described"
    with contextlib.suppress(BaseException):
        name = type(error).__name__
        places = [(place.tb_frame.f_code.co_filename, place.tb_lineno) for place in _frames(error)]
        if isinstance(error, SyntaxError):
            places.append((str(error.filename), error.lineno or 0))
        file, line = places[-1] if places else ("", 0)
        message = (error.msg if isinstance(error, SyntaxError) else str(error))[:MAX_REASON]
        where = f" (line {line} of the {file.strip('<>')})" if file else ""
        name = f"{name}: {message}{where}" if message else name + where
        if isinstance(error, MemoryError):
            name = f"memory: more than {memory // 2**20} MiB{where}"
        if isinstance(error, SystemExit):
            name = f"exited before its end: {name}"
    return name
