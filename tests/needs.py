"""What a test needs and a user's machine may lack: there it skips and says why, in CI its absence is a failure."""

import os

import pytest


def needs(found: object, what: str) -> None:
    """Skip, or in CI fail, unless `found` is something; `what` says what is missing and how to get it."""
    if found:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {what}")
    pytest.skip(f"no {what}")
