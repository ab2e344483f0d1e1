"""Settings are read once, from one TOML file, into frozen values; nonsense refuses to start."""

import tomllib
from pathlib import Path
from typing import TypeVar

import msgspec

Settings = TypeVar("Settings", bound=msgspec.Struct)


class SettingsWrong(ValueError):
    """The settings file cannot be read, lacks something, or holds something nobody asked for."""


def read_settings(path: Path, kind: type[Settings]) -> Settings:
    """The settings of a file as the given frozen struct (which should forbid unknown fields).

    Raises SettingsWrong naming the file, the setting, what was found and what was expected.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
    except OSError as away:
        raise SettingsWrong(f"{path} cannot be read: {away.strerror}; write one as docs/settings.md shows") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as wrong:
        raise SettingsWrong(f"{path} is not TOML: {wrong}") from None
    try:
        return msgspec.convert(found, kind)
    except msgspec.ValidationError as wrong:
        raise SettingsWrong(f"{path}: {wrong}; docs/settings.md lists every setting") from None
