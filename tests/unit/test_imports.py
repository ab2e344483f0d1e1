"""Who may import whom: downward only, the three houses are strangers, and pure modules stay pure."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOUSES = ("edge_agent", "cloud_hub", "firmware_sim")
PURE = {
    "shared": {
        "quantities", "work", "messages", "wire", "topics", "streams", "steps", "routes", "contracts", "ledger",
        "features", "labels", "costs", "reckoning", "packets",
    },
    "edge_agent": {
        "agent", "kinds", "sensing", "lateness", "arrivals", "outlook", "dialogue", "telemetry", "memory", "shown",
        "answers", "assignment", "foresight", "learning", "reasons", "reordering", "round", "turns", "uplink",
        "visiting", "whereabouts", "access", "amending", "chain", "forgetting", "identity", "proofs",
        "dating", "machine", "timekeeping", "commands", "outbox", "lookout", "navigator",
    },
    "cloud_hub": {
        "hub", "fleet", "promises", "planning", "books", "events", "memory", "attempts", "chains", "post", "mailbag",
        "sayings", "wishes", "customers", "dayplan", "closures", "orderbook", "yard", "reports", "contacts",
        "amendments", "redelivery", "nextstep", "undone", "visits", "detours", "lockers", "workdays", "settling",
        "notice_rules", "chances", "addressbook", "board", "forgetting", "traces", "ledgers",
        "access.roles", "access.keys", "access.asked", "access.keyring", "access.sight", "letters", "gaps",
    },
    "firmware_sim": {"vehicle", "person", "wheel", "ride", "ground", "luck", "pictures"},
}  # fmt: skip
IMPURE = {
    "asyncio", "time", "random", "os", "socket", "sqlite3", "uuid", "logging", "threading", "subprocess", "queue",
    "multiprocessing", "requests", "httpx", "urllib",
}  # fmt: skip
ALLOWED_THIRD_PARTIES = {"msgspec", "numpy", "biip"}


def modules() -> Iterator[Path]:
    for house in (*HOUSES, "shared", "deploy"):
        yield from sorted((ROOT / house).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; name the house"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def offences(allowed: dict[str, set[str]]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules()
        for line, name in imports(path)
        if name.split(".")[0] in {*HOUSES, "deploy", "tests"} - allowed[path.relative_to(ROOT).parts[0]]
    ]


def test_the_houses_are_strangers_that_share_only_shared() -> None:
    allowed = {house: {house} for house in HOUSES} | {"shared": set(), "deploy": {*HOUSES, "deploy"}}
    assert offences(allowed) == []


def pure_files() -> list[Path]:
    return [ROOT / house / f"{name.replace('.', '/')}.py" for house, names in PURE.items() for name in sorted(names)]


@pytest.mark.parametrize("path", pure_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_pure_module_reaches_for_nothing_outside(path: Path) -> None:
    own = {*HOUSES, "shared"}
    found = []
    for line, name in imports(path):
        top = name.split(".")[0]
        standard = top in sys.stdlib_module_names
        if top in IMPURE or not (standard or top in own or top in ALLOWED_THIRD_PARTIES):
            found.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
        if top in own and not is_pure(name):
            found.append(f"{path.relative_to(ROOT)}:{line} imports the shell {name}")
    assert found == []


def is_pure(name: str) -> bool:
    house, _, rest = name.partition(".")
    return not rest or any(rest == pure or rest.startswith(f"{pure}.") for pure in PURE[house])


CORES = {"edge_agent.agent.AgentCore", "cloud_hub.hub.HubCore"}


def test_only_the_entry_points_introduce_a_core_to_its_shell() -> None:
    introductions = {str(path.relative_to(ROOT)) for path in modules() for _, name in imports(path) if name in CORES}
    assert introductions == {"edge_agent/__main__.py", "cloud_hub/__main__.py"}


def test_every_module_says_its_one_job_first() -> None:
    silent = [str(path.relative_to(ROOT)) for path in modules() if path.stat().st_size and not first_words(path)]
    assert silent == []


def first_words(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text()))
