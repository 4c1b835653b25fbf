"""PEP 517 backend that builds against the torch already installed in the target environment.

The compiled operators only load into the torch they were built with. Under build isolation pip would fetch another,
the newest CUDA build of several gigabytes; so the environment that pip runs in is looked at first, and torch is
requested from the registry only where there is none.
"""

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools_version import check_setuptools

check_setuptools()
from setuptools.build_meta import (  # noqa: E402, F401
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)


def _installed_torch() -> bool:
    """Makes the target environment's packages importable behind the isolated ones; True if torch is among them."""
    if importlib.util.find_spec("torch"):
        return True
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [Path(sysconfig.get_path(name)) for name in ("platlib", "purelib")]
    folders += [Path(prefix) / "lib" / version / "site-packages" for prefix in (sys.prefix, sys.base_prefix)]
    for folder in folders:
        if (folder / "torch").is_dir():
            sys.path.append(str(folder))
            os.environ["PATH"] = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
            return importlib.util.find_spec("torch") is not None
    return False


_TORCH_IS_HERE = _installed_torch()  # for whichever of these functions pip calls


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Nothing beyond pyproject.toml where torch is installed."""
    return [] if _TORCH_IS_HERE else ["torch>=2.11", "numpy"]


get_requires_for_build_editable = get_requires_for_build_wheel
