"""The kernel compiled for aarch64 and run by an emulator finds the very orders it finds here."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.packaging.build_kernel import compile_kernel, compiler
from tests.needs import needs
from tests.shells.resequence_cases import GOLDEN, golden_route, spelled

MAIN = Path(__file__).with_name("resequence_main.c")


@pytest.fixture(scope="module")
def aarch64_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs(importlib.util.find_spec("ziglang"), "ziglang: pip install ziglang")
    program = tmp_path_factory.mktemp("aarch64") / "resequence"
    command = [*compiler("aarch64-linux-musl"), "-O2", "-static", "-D_GNU_SOURCE", "-o", str(program), str(MAIN)]
    subprocess.run(command, check=True, capture_output=True)
    return program


def test_the_golden_orders_are_found_on_aarch64_too(aarch64_program: Path) -> None:
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    needs(emulator, "qemu-aarch64: apt install qemu-user")
    asked = []
    for case in sorted(GOLDEN):
        problem, looks = golden_route(case)
        asked.append(f"{spelled(problem)} {looks} {case}")
    command = [str(emulator), str(aarch64_program)]
    done = subprocess.run(command, input="\n".join(asked), capture_output=True, text=True, check=True)
    answered = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert answered == [GOLDEN[case] for case in sorted(GOLDEN)]


def test_the_library_for_aarch64_is_at_most_60_kb(tmp_path: Path) -> None:
    needs(importlib.util.find_spec("ziglang"), "ziglang: pip install ziglang")
    library = compile_kernel(tmp_path, "aarch64-linux-gnu")
    assert library.read_bytes()[:4] == b"\x7fELF"
    assert library.read_bytes()[18] == 183  # EM_AARCH64
    assert library.stat().st_size <= 60 * 1024
