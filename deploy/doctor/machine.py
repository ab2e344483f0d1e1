"""Look at the machine itself: what is installed, whether it loads, the clock, the disk, how many files may be open."""

import importlib.metadata
import os
import resource
import shutil
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.doctor.findings import Finding, Look, unseen, worth_a_look

LEAST_FREE_MB = 500
TIGHT_MB = 2_000
LEAST_FILES = 1_024
EDGE = "pip install 'waywarden[edge]', should an agent run here"
LIBRARIES = ("waywarden", "numpy", "msgspec", "paho-mqtt", "PyNaCl")
CLOCK_MEND = "timedatectl set-ntp true, or install chrony"

Attempt = tuple[str, Callable[[], str], str]


def looks(folder: Path, broker_port: int | None = None) -> list[Look]:
    """Everything that runs on one machine, as for the demo: kernel, models, city, solver, disk; and a broker when a
    port is given.
    """
    wanted = [
        *system_looks(folder),
        *agent_looks(),
        attempt("city bundle", _city, "waywarden map import FILE.osm.pbf"),
        *(
            [attempt("fleet solver", solver, "pip install 'waywarden[hub]'")]
            if _is_installed("pyvrp") or not _is_installed("onnxruntime")
            else []
        ),
    ]
    if broker_port is not None:
        wanted.append(Look("broker", lambda: [_broker(broker_port)]))
    return wanted


def system_looks(folder: Path) -> list[Look]:
    """What every part of Waywarden stands on."""
    return [
        Look("Python", lambda: [_python(), _word_size()]),
        Look("versions", lambda: versions(LIBRARIES)),
        attempt("re-sequencing kernel", _kernel, "make install"),
        Look("free disk", lambda: [disk("free disk", folder)]),
        Look("open files", lambda: [_open_files()]),
    ]


def agent_looks() -> list[Look]:
    """What an agent's machine must have beside that."""
    if not _is_installed("onnxruntime") and _is_installed("pyvrp"):
        why = "not installed: this machine can be a hub's, and no agent's"
        return [Look("ONNX runtime", lambda: [worth_a_look("ONNX runtime", False, why, EDGE)])]
    return [
        attempt("ONNX runtime", _onnxruntime, "pip install 'waywarden[edge]'"),
        attempt("van models", _models, "python -m cloud_hub.models train --help"),
    ]


def look_as_owner_of(path: Path) -> None:
    """As root, become the owner of a file for good: the database lets in whom the hub runs as, and what root can read
    may be closed to them.
    """
    try:
        owner = path.stat()
    except OSError:
        return
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([owner.st_gid])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)


def attempt(what: str, see: Callable[[], str], mend: str) -> Look:
    """A look that is well when `see` returns what it found."""

    def tried() -> Iterator[Finding]:
        try:
            yield Finding(what, True, see())
        except (ImportError, OSError, ValueError, RuntimeError) as wrong:
            yield Finding(what, False, f"{type(wrong).__name__}: {wrong}", mend)

    return Look(what, tried)


def disk(what: str, folder: Path, least_mb: int = LEAST_FREE_MB, tight_mb: int = TIGHT_MB) -> Finding:
    """How much room there is where a folder is, or will be."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free_mb = shutil.disk_usage(there).free // 1_000_000
    except OSError as wrong:
        return unseen(what, f"{there}: {wrong.strerror}", f"look whether the disk of {there} is there")
    found = f"{free_mb:,} MB for {folder.absolute()}"
    if free_mb < least_mb:
        return Finding(what, False, found, f"free {least_mb} MB in {there}")
    return worth_a_look(what, free_mb >= tight_mb, found, f"make room in {there}: below {least_mb} MB it is wrong")


def clock(now_s: float | None = None, is_synchronised: bool | None = None) -> Finding:
    """Whether this machine knows the time."""
    from edge_agent.clockwork import WRITTEN_MS, kernel_is_synchronised

    shown_s = time.time() if now_s is None else now_s
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(shown_s))
    if shown_s * 1000 < WRITTEN_MS:
        return Finding("clock", False, f"{shown} lies before this release was written", CLOCK_MEND)
    if is_synchronised is None:
        is_synchronised = kernel_is_synchronised()
    said = "synchronised" if is_synchronised else "the kernel was told the time by nobody"
    return worth_a_look("clock", is_synchronised, f"{shown}, {said}", CLOCK_MEND)


def versions(libraries: tuple[str, ...]) -> list[Finding]:
    """What is installed; a library that is missing is wrong."""
    found, missing = [], []
    for library in libraries:
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(library)
    told = ", ".join(found) + (f"; not installed: {', '.join(missing)}" if missing else "")
    return [Finding("versions", not missing, told, "pip install --upgrade 'waywarden[hub]', or [edge] on a van")]


def _is_installed(library: str) -> bool:
    try:
        importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def solver() -> str:
    """The solver of the day's plan, and its version."""
    return f"PyVRP {importlib.metadata.version('pyvrp')}"


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _word_size() -> Finding:
    bits = struct.calcsize("P") * 8
    return Finding(
        "64-bit system", bits == 64, f"{bits} bits", "install a 64-bit OS: onnxruntime has no 32-bit ARM wheel"
    )


def _kernel() -> str:
    from shared import resequence

    return f"loads from {Path(resequence.__file__).parent.name}/"


def _onnxruntime() -> str:
    return importlib.metadata.version("onnxruntime")


def _models() -> str:
    from edge_agent.inference import shipped_models

    return shipped_models().name


def _city() -> str:
    from shared.citymap import CityMap, shipped_city

    city = CityMap.load(shipped_city())
    return f"{city.name}: {len(city.edge_from)} directed street edges, {len(city.addresses)} addresses"


def _open_files() -> Finding:
    """Of this shell: a unit of systemd has its own."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_enough = soft == resource.RLIM_INFINITY or soft >= LEAST_FILES
    used = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    mend = f"ulimit -n {LEAST_FILES}, or LimitNOFILE={LEAST_FILES} in the unit"
    return worth_a_look("open files", is_enough, f"{soft:,} allowed, {used} used", mend)


def _broker(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(2)
        answers = probe.connect_ex(("127.0.0.1", port)) == 0
    found = f"port {port} {'answers' if answers else 'does not answer'}"
    return Finding("broker", answers, found, f"waywarden broker --port {port}")
