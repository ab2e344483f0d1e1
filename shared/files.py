"""Write a file whole or not at all, so that a reader finds the old one or the new one, also after a pulled plug."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, content: bytes, mode: int, finish: Callable[[Path], None] | None = None) -> None:
    """Write a file under another name, force it to disk and give it its name; folders are made as needed.

    `mode` are its permissions from its first byte on; `finish` may do to it what must be done before it is seen. Raises
    OSError when the disk or the folder does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if finish is not None:
        finish(new)
    new.replace(path)
