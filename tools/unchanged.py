"""Long checks that need not be repeated: one whose sources are those with which it last passed passes at once.

    python tools/unchanged.py NAME PATTERN ... -- COMMAND ...

Testing, compiling or planting bugs in all CUDA kernels takes minutes. What has passed is noted with the digest of its
sources in tools/passed.txt, which is committed. AGAIN=1 in the environment runs the command whatever is noted.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PASSED = Path(__file__).with_name("passed.txt")


def digest(*patterns: str) -> str:
    """16 hex digits of the names and contents of the files that these patterns, from the root, stand for."""
    whole = hashlib.sha256()
    for file in sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}):
        if file.suffix != ".pyc":
            whole.update(f"{file.relative_to(ROOT).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return whole.hexdigest()[:16]


def main(arguments: list[str]) -> int:
    """The command's exit code, or 0 where there is nothing to run."""
    name, *rest = arguments
    patterns, command = rest[: rest.index("--")], rest[rest.index("--") + 1 :]
    noted = dict(line.split() for line in PASSED.read_text().splitlines()) if PASSED.is_file() else {}
    now = digest(*patterns)
    if noted.get(name) == now and not os.environ.get("AGAIN"):
        print(f"{name}: the sources are those with which it passed; AGAIN=1 runs it")
        return 0
    code = subprocess.run(command).returncode
    only_shown = "n" in os.environ.get("MAKEFLAGS", "").split(" ")[0]  # make -n runs what calls make
    if code == 0 and not only_shown:
        PASSED.write_text("".join(f"{key} {value}\n" for key, value in sorted((noted | {name: now}).items())))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
