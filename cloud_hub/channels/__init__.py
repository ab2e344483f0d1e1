"""The ways out of the house: one module per channel, each with its settings and one attempt to send.

Every channel is off until its settings say `is_on = true`. A channel answers; it raises nothing for a world that is
away, and what it answers holds neither an address nor a text.
"""

import os
from pathlib import Path


class SecretMissing(ValueError):
    """A channel that is on has a secret that cannot be read."""


def secret_of(env: str, file: str, what: str) -> str:
    """The secret an environment variable or a file holds; "" when neither is named. Raises SecretMissing."""
    if env:
        if env not in os.environ:
            raise SecretMissing(f"{what}: the environment has no {env}: set it, or name another variable or a file")
        return os.environ[env]
    if not file:
        return ""
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as wrong:
        raise SecretMissing(f"{what}: the file {file} cannot be read: {type(wrong).__name__}") from None
