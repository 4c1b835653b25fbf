"""The child process of `math_equivalence`: a pair of answers comes in, whether they are equal goes out.

Its argument is how many seconds of CPU time it may take for a pair. Lines of JSON on the standard streams: first
``null``, or why nothing can be compared; then a boolean for each pair.
It is a script of its own, which imports neither torch nor the rest of tad_ext, so that it starts in a second.

Sympy may take for ever, or all memory, for a line of text. So the process bounds itself, in a way that also holds
where its parent has been killed: it ends when it has computed for too long, when it asks for too much memory, and when
nobody is left to ask it.
"""

import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

WALL_SECONDS = 60  # for one pair, and for the start
MEMORY_BYTES = 2**30

_PRECISION = 15  # digits to which decimals count: 1.414214 is not the square root of 2


def main() -> None:
    """Answers until there is nobody to answer."""
    replies, sys.stdout = sys.stdout, sys.stderr  # the parser's runtime prints
    cpu_seconds = float(sys.argv[1])
    signal.alarm(WALL_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        equivalent, problem = _load(), None
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
    signal.alarm(0)
    print(json.dumps(problem), file=replies, flush=True)
    for line in sys.stdin if problem is None else ():
        signal.alarm(WALL_SECONDS)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)  # what it sends ends the process, also within C code
        try:
            equal = bool(equivalent(*json.loads(line)))
        except MemoryError:
            os._exit(1)  # what is left cannot be trusted
        except Exception:  # not mathematics, or too deep
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        print(json.dumps(equal), file=replies, flush=True)


def _load() -> Callable[[str, str], bool]:
    """Imports the libraries, which takes a second, and returns the comparison."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, NormalizationConfig, latex2sympy
    from math_verify import verify
    from sympy import Basic, I
    from sympy.parsing import sympy_parser

    read = sympy_parser.parse_expr

    def read_harmless(text: str, *options: Any, **more: Any) -> Any:
        """In the place of sympy's reader of text, which is Python's eval: only numbers and names, without calls."""
        if not re.fullmatch(r"[0-9]*[./]?[0-9]+|[A-Za-z]+", text):
            raise ValueError(f"not read: {text!r}")
        return read(text, *options, **more)

    vars(sympy_parser)["parse_expr"] = read_harmless

    # Not math_verify.parse: it takes "4t" for four tons and "3R" for "3r".
    spelling = NormalizationConfig(basic_latex=True, malformed_operators=True, units=False, nits=False, boxed="none")
    meaning = ConversionConfig(lowercase_symbols=False)

    def parse(text: str) -> Any:
        parsed = latex2sympy(
            text, is_real=True, convert_degrees=True, normalization_config=spelling, conversion_config=meaning
        )
        return parsed.xreplace({symbol: I for symbol in parsed.free_symbols if symbol.name == "i"})

    def equivalent(gold: str, given: str) -> bool:
        one, other = parse(gold), parse(given)
        if not verify(one, other, float_rounding=_PRECISION, numeric_precision=_PRECISION, timeout_seconds=None):
            return False
        # The library compares absolute differences: all that is small would be equal to 0.
        constants = all(isinstance(side, Basic) and side.is_number for side in (one, other))
        return not constants or _relative_difference(one, other) < 10**-_PRECISION

    return equivalent


def _relative_difference(one: Any, other: Any) -> Any:
    size, difference = (abs(side).evalf(2 * _PRECISION) for side in (one, one - other))
    return difference / size if size else abs(other).evalf()


if __name__ == "__main__":
    main()
