"""The kernel is built where there is no compiler, and one source serves every architecture."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import needs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_compiler(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH holds Python and nothing else."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    assert shutil.which("cc", path=str(programs)) is None
    return {**os.environ, "PATH": str(programs)}


def built(folder: Path, environment: dict[str, str], *options: str) -> Path:
    needs(importlib.util.find_spec("ziglang"), "ziglang: pip install ziglang")
    builder = ROOT / "deploy" / "packaging" / "build_kernel.py"
    command = [sys.executable, str(builder), *options, "--out", str(folder)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    (library,) = folder.glob("*.so")
    return library


def machine_of(library: Path) -> int:
    """The e_machine field of an ELF file: 62 is x86-64, 183 is aarch64."""
    return int.from_bytes(library.read_bytes()[18:20], "little")


def test_without_a_compiler_the_kernel_is_built_by_zig(no_compiler: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    library = built(tmp_path / "out", no_compiler)
    assert machine_of(library) in (62, 183)


def test_the_kernel_for_a_pi_is_built_here(no_compiler: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    library = built(tmp_path / "out", no_compiler, "--target", "aarch64-linux-gnu")
    assert machine_of(library) == 183
    assert library.stat().st_size <= 60_000
