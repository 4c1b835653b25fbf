"""What the long checks have in common: a check whose sources are those that it last passed with passes at once.

Compiling every CUDA kernel, or planting sixty bugs in them, takes minutes and gives what it gave before as long as the
sources are the same. So the digest of the sources stands beside the result, in a file that is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def digest(*patterns: str, extra: Iterable[str] = ()) -> str:
    """16 hex digits of the names and contents of the files that these patterns, from the root, stand for."""
    files = sorted({path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()})
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(ROOT).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    whole.update("\0".join(extra).encode())
    return whole.hexdigest()[:16]
