"""The hub's parts stand on one another in one direction, and each keeps its own word."""

import ast
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import cloud_hub.hub
from cloud_hub.attempts import FIRST_PATIENCE_MS, LONGEST_PATIENCE_MS, Attempts

FOLDER = Path(cloud_hub.hub.__file__).parent
PARTS = (
    "hub",
    *(line.split()[0] for line in (cloud_hub.hub.__doc__ or "").splitlines() if line.startswith("    ")),
)
"""As the core's own docstring lists them, from top to bottom."""


def known_to(part: str) -> set[str]:
    tree = ast.parse(next(FOLDER.rglob(f"{part}.py")).read_text())
    modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {module.removeprefix("cloud_hub.") for module in modules if module.startswith("cloud_hub.")}


def test_a_part_of_the_hub_knows_only_parts_below_it() -> None:
    backwards = [(part, known) for n, part in enumerate(PARTS) for known in known_to(part) & set(PARTS[: n + 1])]
    assert backwards == []


def test_the_hubs_docstring_lists_every_part_once() -> None:
    work_on_the_books = {path.stem for path in FOLDER.glob("*.py") if "memory" in known_to(path.stem)}
    assert work_on_the_books - set(PARTS) == set()
    assert len(set(PARTS)) == len(PARTS)


def test_a_need_somebody_works_on_is_not_begun_twice() -> None:
    attempts = Attempts()
    attempts.begin("plan")
    assert not attempts.may_begin("plan", 1 << 40)
    attempts.settle("plan")
    assert attempts.may_begin("plan", 0)


@given(st.text(max_size=20), st.integers(1, 30))
def test_each_failure_is_waited_out_longer_and_never_much_more_than_two_minutes(need: str, failures: int) -> None:
    attempts = Attempts()
    waits = []
    for _ in range(failures):
        attempts.begin(need)
        attempts.fail(need, 1000)
        waits.append((attempts.next_at_ms(1000) or 0) - 1000)
    doubled = [min(FIRST_PATIENCE_MS << n, LONGEST_PATIENCE_MS) for n in range(failures)]
    assert all(least <= wait <= 1.5 * least for least, wait in zip(doubled, waits, strict=True))
    assert not attempts.may_begin(need, 1000 + waits[-1] - 1)
    assert attempts.may_begin(need, 1000 + waits[-1])


def test_a_need_under_way_asks_for_no_wake() -> None:
    attempts = Attempts()
    attempts.fail("legs", 0)
    attempts.begin("legs")
    assert attempts.next_at_ms(0) is None


def test_a_need_nobody_has_any_more_wakes_nobody() -> None:
    # Simulation seed 35: leg times failed, the streets changed, and the hub took 900,000 steps for a need that had
    # another name by then.
    attempts = Attempts()
    attempts.fail("legs/van-1/1.0/2", 0)
    assert attempts.next_at_ms(0) is not None
    assert attempts.next_at_ms(1_000) is None
