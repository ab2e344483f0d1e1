"""The settings of who may come in: `[access]` and `[access.oidc]`, checked before anything listens."""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from cloud_hub.access.roles import ROLES, Role

Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

SAFE_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
"""Signatures made with a key only the provider has. With HS256 whoever can check a token can make one."""


class OidcSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """People sign in by this OpenID Connect provider; "" for none.

    `client_id` is this hub's at the provider, its secret lies in an environment variable or a file, neither for a
    public client. `roles` says which value of the claim `role_claim` gives which role; the highest counts. With a
    `depot_claim` a person is bound to the depots it names ("*" for all), with a `partner_claim` a partner speaks for
    the one it names. `audience` is what tokens of machines must be for, the `client_id` when empty.
    """

    issuer: str = ""
    client_id: str = ""
    client_secret_env: str = ""
    client_secret_file: str = ""
    scopes: str = "openid profile email"
    name: str = "your organisation"
    role_claim: str = "roles"
    roles: dict[str, Role] = {}
    depot_claim: str = ""
    partner_claim: str = ""
    audience: str = ""
    algorithms: tuple[str, ...] = ("RS256",)


class AccessSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may come in over HTTP, and how often.

    With `open_on_loopback` whoever asks from this very machine is an admin: for a demo and for tests, refused unless
    the hub listens on the loopback alone. `session_hours` is how long a sign-in lasts, `screen_days` that of a screen
    on the wall. `record_days` is how long it is kept who read personal data, 0 for ever. `url` is where people reach
    the hub, "" for the address they asked. `trusted_proxies` are the addresses whose X-Forwarded-For is believed.
    """

    open_on_loopback: bool = False
    session_hours: Annotated[int, msgspec.Meta(ge=1, le=168)] = 12
    screen_days: Annotated[int, msgspec.Meta(ge=1, le=400)] = 90
    record_days: Annotated[int, msgspec.Meta(ge=0, le=3650)] = 180
    requests_per_min: Count = 1200
    failures_per_min: Count = 20
    wishes_per_min: Count = 30
    url: str = ""
    trusted_proxies: tuple[str, ...] = ("127.0.0.1", "::1")
    oidc: OidcSetting = OidcSetting()


def access_objections(setting: AccessSetting, http_host: str) -> Iterator[str]:
    """What is wrong with these settings, in words."""
    if setting.open_on_loopback and not is_loopback(http_host):
        yield (
            f"access.open_on_loopback is true and http_host is '{http_host}', expected a loopback address such as "
            "127.0.0.1: everybody on this machine would be an admin of a hub others can reach"
        )
    if setting.url and urlsplit(setting.url).scheme not in ("http", "https"):
        yield f"access.url is '{setting.url}', expected https://HOST"
    for proxy in setting.trusted_proxies:
        if not _is_address(proxy):
            yield f"access.trusted_proxies names '{proxy}', expected IP addresses"
    yield from _oidc_objections(setting.oidc)


def _oidc_objections(oidc: OidcSetting) -> Iterator[str]:
    if not oidc.issuer:
        return
    issuer = urlsplit(oidc.issuer)
    if issuer.scheme != "https" and not (issuer.scheme == "http" and is_loopback(issuer.hostname or "")):
        yield f"access.oidc.issuer is '{oidc.issuer}', expected https://HOST (http on the loopback alone)"
    if not oidc.client_id:
        yield "access.oidc.client_id is empty, expected this hub's id at the provider"
    if not oidc.roles:
        yield f"access.oidc.roles is empty, expected a role for each value of the claim: {', '.join(ROLES)}"
    if "partner" in oidc.roles.values() and not oidc.partner_claim:
        yield "access.oidc.roles gives the role partner, expected a partner_claim that says which one"
    if "openid" not in oidc.scopes.split():
        yield f"access.oidc.scopes is '{oidc.scopes}', expected openid among them"
    for algorithm in oidc.algorithms or ("",):
        if algorithm not in SAFE_ALGORITHMS:
            yield f"access.oidc.algorithms names '{algorithm}', expected some of {', '.join(SAFE_ALGORITHMS)}"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine and no other: an address of the loopback, or `localhost`."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
