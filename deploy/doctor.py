"""Say whether this machine can run Waywarden, and for each thing that is wrong the line that mends it."""

import importlib.metadata
import shutil
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

LEAST_FREE_MB = 500


class Finding(NamedTuple):
    """One thing that was looked at. `mend` is the command or step that puts it right; empty when all is well."""

    what: str
    is_well: bool
    found: str
    mend: str = ""


def examine(folder: Path, broker_port: int | None = None) -> Iterator[Finding]:
    """Look at Python, the kernel, the models, the city and the disk; at a broker too when a port is given."""
    yield _python()
    yield _word_size()
    yield _attempt("re-sequencing kernel", _kernel, "make install")
    yield _attempt("ONNX runtime", _onnxruntime, "pip install 'waywarden[edge]'")
    yield _attempt("van models", _models, "python -m cloud_hub.models train --help")
    yield _attempt("city bundle", _city, "waywarden map import FILE.osm.pbf")
    yield _attempt("fleet solver", _solver, "pip install 'waywarden[hub]'")
    yield _disk(folder)
    if broker_port is not None:
        yield _broker(broker_port)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    return Finding("Python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _word_size() -> Finding:
    bits = struct.calcsize("P") * 8
    return Finding(
        "64-bit system", bits == 64, f"{bits} bits", "install a 64-bit OS: onnxruntime has no 32-bit ARM wheel"
    )


def _attempt(what: str, look: Callable[[], str], mend: str) -> Finding:
    try:
        return Finding(what, True, look())
    except (ImportError, OSError, ValueError, RuntimeError) as wrong:
        return Finding(what, False, f"{type(wrong).__name__}: {wrong}", mend)


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


def _solver() -> str:
    return f"PyVRP {importlib.metadata.version('pyvrp')}"


def _disk(folder: Path) -> Finding:
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    return Finding("free disk", free_mb >= LEAST_FREE_MB, f"{free_mb} MB", f"free {LEAST_FREE_MB} MB in {folder}")


def _broker(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(2)
        answers = probe.connect_ex(("127.0.0.1", port)) == 0
    found = f"port {port} {'answers' if answers else 'does not answer'}"
    return Finding("broker", answers, found, f"waywarden broker --port {port}")
