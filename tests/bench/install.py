"""How much an agent's installation takes on disk, on x86-64 and on aarch64.

    python -m tests.bench.install [--json]

Installs the `edge` extra from the registries into empty folders: for this machine, and for a 64-bit Raspberry Pi by
asking for its wheels. Counts every byte but pip's own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
MOST_MB = 190
MACHINES = {
    "x86_64": ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "aarch64": ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
}


def main() -> None:
    """Print the table, and with --json one flat object as the last line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    wants_json = parser.parse_args().json
    sizes = {machine: installed_mb(machine) for machine in MACHINES}
    table = Table("machine", "installed MB", "largest parts")
    for machine, (total, parts) in sizes.items():
        largest = ", ".join(f"{name} {mb:.0f}" for name, mb in parts[:6])
        table.add_row(machine, f"{total:.0f} (<= {MOST_MB})", largest)
    Console().print(table)
    if wants_json:
        print(json.dumps({f"edge_mb_{machine}": round(total, 1) for machine, (total, _) in sizes.items()}))


def installed_mb(machine: str) -> tuple[float, list[tuple[str, float]]]:
    """Megabytes of the whole installation, and of its parts, largest first."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = built_wheel(machine, Path(folder) / "wheel")
        target = Path(folder) / "site"
        platforms = [word for tag in (*MACHINES[machine], f"linux_{machine}") for word in ("--platform", tag)]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(target),
             "--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp", "--compile",
             *platforms, f"{wheel}[edge]"],
            check=True,
        )  # fmt: skip
        parts = sorted(((part.name, megabytes(part)) for part in target.iterdir()), key=lambda pair: -pair[1])
        return sum(mb for _, mb in parts), parts


def built_wheel(machine: str, folder: Path) -> Path:
    """Our own wheel for a machine; the kernel is cross-compiled when it is not this one."""
    environment = dict(os.environ)
    if machine != os.uname().machine:
        environment["WAYWARDEN_KERNEL_TARGET"] = f"{machine}-linux-gnu"
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--wheel-dir", str(folder), str(ROOT)],
        check=True,
        env=environment,
    )  # fmt: skip
    (wheel,) = folder.glob("waywarden-*.whl")
    return wheel


def megabytes(path: Path) -> float:
    """Size of a file or of everything in a folder, in 10^6 bytes."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


if __name__ == "__main__":
    main()
