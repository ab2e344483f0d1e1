"""Hold the files of the driver's page, named by their content, so that a phone keeps them until they change."""

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

LANGUAGES = ("en", "fi", "sv")
"""In the order of the page's switch; the first is what a phone of any other language gets."""

CORE_SCRIPTS = ("base.js", "outbox.js", "at_door.js", "page.js")
"""Served in one piece as `core.js`, after the words: a small processor paints sooner when it is asked less often."""
OPTIONAL_SCRIPTS = ("wedge.js", "feel.js", "signature.js", "picture.js", "camera.js", "offline.js")
"""Loaded once the day is painted, each on its own: the page works when any of these is missing or throws."""

_KINDS = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
_WITH_VERSION = {"sw.js", "manifest.webmanifest"}


class Asset(msgspec.Struct, frozen=True):
    """One file as it is served."""

    content_type: str
    content: bytes


@cache
def assets() -> dict[str, Asset]:
    """Every file of the page by its name, without the page itself."""
    found = {"core.js": Asset(_KINDS["js"], _core_script())}
    names = ["page.css", *OPTIONAL_SCRIPTS, "sw.js", "manifest.webmanifest", "icon.svg"]
    names += ["icon-192.png", "icon-512.png", "icon-maskable-512.png"]
    for name in names:
        found[name] = Asset(_KINDS[name.rpartition(".")[2]], _folder().joinpath(name).read_bytes())
    version = _version_of(found)
    return {
        name: Asset(asset.content_type, asset.content.replace(b"{{version}}", version.encode()))
        if name in _WITH_VERSION
        else asset
        for name, asset in found.items()
    }


@cache
def version() -> str:
    """Names the content of all files together: another release of the page has another version."""
    return _version_of(assets())


def words_of(language: str) -> dict[str, str]:
    """The strings of one language by their keys."""
    found: dict[str, str] = msgspec.json.decode(_folder().joinpath("words", f"{language}.json").read_bytes())
    return found


@cache
def page_html() -> bytes:
    """The page, without a day."""
    html = _folder().joinpath("index.html").read_bytes().replace(b"{{version}}", version().encode())
    return html.replace(b"{{parts}}", " ".join(f"/{name}?v={version()}" for name in OPTIONAL_SCRIPTS).encode())


def _core_script() -> bytes:
    tables = {language: words_of(language) for language in LANGUAGES}
    words = b"window.WAYWARDEN_WORDS = " + msgspec.json.encode(tables) + b";\n"
    return words + b"\n".join(_folder().joinpath(name).read_bytes() for name in CORE_SCRIPTS)


def _version_of(found: dict[str, Asset]) -> str:
    content = b"".join(asset.content for name, asset in sorted(found.items()) if name not in _WITH_VERSION)
    content += _folder().joinpath("index.html").read_bytes() + _folder().joinpath("sw.js").read_bytes()
    return hashlib.sha256(content).hexdigest()[:12]


def _folder() -> Traversable:
    return files("edge_agent.page")
