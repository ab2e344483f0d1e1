"""Ask a real hub everything its own description allows, and much it does not: `python -m tests.fuzz.openapi`.

schemathesis reads `/openapi.json` and makes requests of it. No answer may be a 500, have a status, a content type or a
shape that is not described, or let somebody in without a key. The feed is left out: its answer has no end.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.stack import Stack
from tests.shells.hub_parts import HubProcess, some_orders, start_broker

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "ignored_auth",
)  # fmt: skip
UNBOUND = "requests_per_min = 1000000\nfailures_per_min = 1000000\nwishes_per_min = 1000000"
"""Bounds nobody reaches: this is about what is asked, not how often."""


def first_key(logs: Path) -> str:
    """The first admin key, as a hub showed it when it started."""
    found = re.findall(r"ww_[0-9a-f]{12}_\S+", "".join(file.read_text() for file in logs.glob("hub*")))
    assert found, "the hub showed no first admin key"
    return str(found[0])


def a_closed_hub(stack: Stack, folder: Path) -> tuple[HubProcess, str]:
    """A hub that asks everybody who they are, with a day of five orders planned and an agent invited, and its admin's
    key.
    """
    authority = f'[authority]\nfolder = "{folder / "authority"}"\nbroker = "mqtts://broker.example:8883"\n'
    hub = HubProcess(stack, start_broker(stack), folder, access=UNBOUND, more=authority)
    key = first_key(folder / "logs")
    hub.http.headers["Authorization"] = f"Bearer {key}"
    hub.plan_day(some_orders(5))
    assert hub.http.post("/api/enrolments", json={"agent": "van-7"}).status_code == 201
    return hub, key


def ask_everything(hub: HubProcess, key: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis against this hub; what it found is in the output, and the exit code says whether anything."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{hub.http.base_url}/openapi.json",
        "--header", f"Authorization: Bearer {key}", "--exclude-path", "/api/feed", "--checks", ",".join(CHECKS),
        "--suppress-health-check", "all", "--no-color", "--warnings", "off", *more,
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask for so long, and print what schemathesis says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=180, help="how long to ask")
    parser.add_argument("--seed", type=int, default=1, help="which requests are made")
    wanted = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, Stack(Path(name) / "logs", {}) as stack:
        folder = Path(name)
        hub, key = a_closed_hub(stack, folder)
        found = ask_everything(hub, key, folder, "--max-time", str(wanted.seconds), "--seed", str(wanted.seed))
        print(found.stdout[-20_000:], found.stderr[-2_000:])
        fallen = stack.fallen()
        log = "".join(file.read_text() for file in (folder / "logs").glob("hub*"))
        print(*(line for line in log.splitlines() if "request_failed" in line), sep="\n")
    print(f"processes that fell: {fallen or 'none'}")
    return 1 if found.returncode or fallen else 0


if __name__ == "__main__":
    sys.exit(main())
