"""Compile the re-sequencing kernel, for this machine or for another one.

Hatchling calls `KernelHook` whenever the project is installed or a wheel is made; by hand it is

    python deploy/packaging/build_kernel.py [--target aarch64-linux-gnu] [--out DIRECTORY]

A compiler on PATH (`cc`) is used when there is one and no other target is asked for; else the `ziglang` package from
PyPI compiles and cross-compiles. WAYWARDEN_KERNEL_TARGET names the target for wheels, so one machine makes the wheels
of every architecture. The library knows nothing of Python's ABI: one wheel per architecture serves every Python 3.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # By hand, outside a build, there is no hatchling and no need of it.
    BuildHookInterface = object  # type: ignore[assignment, misc]  # Only ever subclassed.

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "shared" / "_resequence.c"
LIBRARY_NAME = "_resequence.so"
TARGET_SETTING = "WAYWARDEN_KERNEL_TARGET"

# No -march=native: the library runs on every machine of its architecture. No floating point is used, so no flag can
# change a result.
FLAGS = [
    "-std=c11",
    "-O2",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",
    "-fno-strict-overflow",
    "-D_GNU_SOURCE",
    "-s",
    "-Wall",
    "-Wextra",
]


class NoCompiler(RuntimeError):
    """Neither `cc` nor the `ziglang` package is there: install one of them (`pip install ziglang`)."""


class CompilerFailed(RuntimeError):
    """The compiler refused the kernel's source."""


def compiler(target: str | None) -> list[str]:
    """The command that compiles C for `target` (a triple such as aarch64-linux-gnu; None: this machine). Raises
    `NoCompiler`.
    """
    if target is None and shutil.which("cc"):
        return ["cc"]
    if importlib.util.find_spec("ziglang") is None:
        raise NoCompiler(NoCompiler.__doc__)
    return [sys.executable, "-m", "ziglang", "cc", *([] if target is None else ["-target", target])]


def compile_kernel(directory: Path, target: str | None = None) -> Path:
    """Compile the kernel into `directory`; returns the library. Raises `NoCompiler` or `CompilerFailed`, which quotes
    the compiler.
    """
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / LIBRARY_NAME
    fresh = directory / f"{LIBRARY_NAME}.new"
    command = [*compiler(target), *FLAGS, "-o", str(fresh), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CompilerFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    # A running agent may have the old library mapped: it keeps its file, the name goes to the new one.
    fresh.replace(library)
    return library


def wheel_tag(target: str | None) -> str:
    """The tag of a wheel that holds the library for `target`: any Python 3, no ABI, one platform."""
    if target is None:
        platform = sysconfig.get_platform()
    else:
        architecture, system = target.split("-")[:2]
        platform = f"{system}-{architecture}"
    return f"py3-none-{platform.replace('-', '_').replace('.', '_')}"


class KernelHook(BuildHookInterface):  # type: ignore[type-arg]  # Generic only in hatchling's own stubs.
    """Puts the compiled kernel beside `shared/resequence.py` before files are collected."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """What the build needs beyond hatchling: a compiler from PyPI when the machine has none, or the target is
        another one.
        """
        return [] if shutil.which("cc") and not os.environ.get(TARGET_SETTING) else ["ziglang"]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; a wheel gets the library and a tag of its own, an editable install finds it in the tree."""
        if self.target_name != "wheel":
            return
        target = os.environ.get(TARGET_SETTING) or None
        if version == "editable":
            compile_kernel(SOURCE.parent)
        else:
            library = compile_kernel(Path(self.directory) / f"kernel-{target or 'native'}", target)
            build_data["force_include"][str(library)] = f"shared/{LIBRARY_NAME}"
        build_data["pure_python"] = False
        build_data["tag"] = wheel_tag(target)


def main() -> None:
    """Compile by hand and say where the library is."""
    parser = argparse.ArgumentParser(description="Compile the re-sequencing kernel.")
    parser.add_argument("--target", help="triple to compile for, e.g. aarch64-linux-gnu; default: this machine")
    parser.add_argument("--out", type=Path, default=SOURCE.parent, help="directory for the library; default: shared/")
    asked = parser.parse_args()
    if asked.target and asked.out == SOURCE.parent:
        parser.error("a library for another machine does not belong in shared/: name a directory with --out")
    try:
        library = compile_kernel(asked.out, asked.target)
    except (NoCompiler, CompilerFailed) as error:
        sys.exit(str(error))
    print(f"{library}  {library.stat().st_size / 1024:.1f} KB")  # noqa: T201  This is a command.


if __name__ == "__main__":
    main()
