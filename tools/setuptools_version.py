"""Whether the setuptools that is here can build tad_ext: without build isolation it is the environment's own."""

import re
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def check_setuptools() -> None:
    """Ends the build with one line if setuptools is missing or too old for pyproject.toml, which it does not say."""
    needed = re.findall(r'"setuptools>=(\d+)"', PYPROJECT.read_text(encoding="utf-8"))[0]
    try:
        from setuptools import __version__ as found
    except ImportError:
        found = "none"
    if found == "none" or int(found.split(".")[0]) < int(needed):
        raise SystemExit(
            f"tad_ext is built with setuptools {needed} or newer, found {found}: first `pip install "
            f"'setuptools>={needed}'` (with --no-build-isolation the installed one is used)"
        )
