"""A build without isolation, by a setuptools that cannot do it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("module", "found"), [('__version__ = "70.3.0"', "70.3.0"), ('raise ImportError("no setuptools")', "none")]
)
@pytest.mark.parametrize("program", ["import build_backend", "import runpy; runpy.run_path('setup.py')"])
def test_an_old_setuptools_is_refused_in_one_line(tmp_path, module, found, program):
    (tmp_path / "setuptools").mkdir()
    (tmp_path / "setuptools" / "__init__.py").write_text(module)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SOURCE / "tools")])}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, cwd=SOURCE
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"tad_ext is built with setuptools 77 or newer, found {found}: first `pip install 'setuptools>=77'` (with "
        f"--no-build-isolation the installed one is used)\n"
    )


@pytest.mark.parametrize("version", ["77.0.1", "100.1", "84.2.1.post0"])
def test_newer_ones_are_not(tmp_path, version):
    (tmp_path / "setuptools").mkdir()
    (tmp_path / "setuptools" / "__init__.py").write_text(f'__version__ = "{version}"')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(SOURCE / "tools")])}
    program = "import setuptools_version as it; it.check_setuptools()"
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=SOURCE)
