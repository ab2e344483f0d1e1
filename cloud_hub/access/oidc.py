"""Sign people in by an OpenID Connect provider, and believe the tokens it gives to machines.

Authorization code flow with PKCE (RFC 6749, RFC 7636, OpenID Connect Core 1.0); what must survive the way to the
provider and back travels in the browser's own signed cookie. A token is believed when its signature is by a key of the
provider, by an algorithm of the settings, and issuer, audience and times are as they should be.
"""

import importlib
import os
import secrets
import threading
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from cloud_hub.access.roles import ROLES, Caller, Role
from cloud_hub.access.setting import OidcSetting
from shared.settings import SettingsWrong

PATIENCE_S = 10.0
METADATA_S = 3600.0
KEYS_S = 600.0
KEYS_AGAIN_S = 30.0
"""An unknown key id may be a new key: the provider is asked for its keys again, at most so often."""

LEEWAY_S = 30
EVERY_DEPOT = "*"


class NotBelieved(ValueError):
    """What was shown opens nothing: what was found, what was expected, what to do. `what` names it for counters."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


class ProviderAway(RuntimeError):
    """The provider gives no answer, or none that can be understood."""


class Begun(NamedTuple):
    """A sign-in on its way to the provider: where to send the browser, and what must come back with it."""

    url: str
    state: str
    nonce: str
    verifier: str


class Provider:
    """One provider of the settings. Any thread asks; its documents and keys are kept for a while."""

    def __init__(self, setting: OidcSetting) -> None:
        """Raises SettingsWrong when the client's secret is named and not there."""
        self.setting = setting
        self._secret = _client_secret(setting)
        self._lock = threading.Lock()
        self._metadata: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def begin(self, redirect: str) -> Begun:
        """Begin a sign-in that comes back to this address. Raises ProviderAway."""
        nonce, verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        with self._client(redirect) as client:
            url, state = client.create_authorization_url(
                self._endpoint("authorization_endpoint"), nonce=nonce, code_verifier=verifier
            )
        return Begun(url, state, nonce, verifier)

    def finish(self, redirect: str, code: str, begun: Begun) -> Caller:
        """Who has signed in, by the code that came back. Raises NotBelieved or ProviderAway."""
        try:
            with self._client(redirect) as client:
                token = client.fetch_token(
                    self._endpoint("token_endpoint"), code=code, code_verifier=begun.verifier,
                    grant_type="authorization_code",
                )  # fmt: skip
        except httpx.HTTPError as away:
            raise ProviderAway(f"{self.setting.issuer} does not answer: {type(away).__name__}") from None
        except Exception as refused:  # noqa: BLE001 - authlib raises what the provider said, in many classes.
            why = str(getattr(refused, "error", "") or type(refused).__name__)[:60]
            found = f"the provider did not take the code ({why})"
            raise NotBelieved("code", f"{found}: sign in again") from None
        id_token = token.get("id_token") if isinstance(token, dict) else None
        if not isinstance(id_token, str):
            raise NotBelieved("id_token", "the provider gave no id_token, expected one: have openid among the scopes")
        claims = self._claims(id_token, self.setting.client_id)
        if claims.get("nonce") != begun.nonce:
            raise NotBelieved("nonce", "the sign-in is not the one that was begun here: sign in again")
        return self._caller(claims, "session")

    def caller_of(self, token: str) -> Caller:
        """Who comes with this bearer token. Raises NotBelieved or ProviderAway."""
        return self._caller(self._claims(token, self.setting.audience or self.setting.client_id), "token")

    def _claims(self, token: str, audience: str) -> Mapping[str, Any]:
        try:
            read = self._decoded(token)
            times = jwt.JWTClaimsRegistry(
                now=lambda: int(time.time()),
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self.setting.issuer},
                aud={"essential": True, "value": audience},
                sub={"essential": True},
                exp={"essential": True},
            )
            times.validate(read.claims)
        except JoseError as wrong:
            raise NotBelieved(
                "token", f"the token is not to be believed ({wrong.error}), expected one of {self.setting.issuer} "
                f"for {audience}, signed by {' or '.join(self.setting.algorithms)}: get a new one"
            ) from None  # fmt: skip
        except (ValueError, TypeError, KeyError):
            raise NotBelieved("token", "the token cannot be read, expected a signed JWT: get a new one") from None
        return read.claims

    def _decoded(self, token: str) -> jwt.Token:
        algorithms = list(self.setting.algorithms)
        try:
            return jwt.decode(token, self._key_set(KEYS_S), algorithms=algorithms)
        except (JoseError, ValueError):
            # The provider may have new keys. Whoever sends nonsense cannot have it asked more often than this.
            return jwt.decode(token, self._key_set(KEYS_AGAIN_S), algorithms=algorithms)

    def _caller(self, claims: Mapping[str, Any], kind: str) -> Caller:
        setting = self.setting
        role = _highest(setting.roles[value] for value in _words(claims, setting.role_claim) if value in setting.roles)
        subject = str(claims["sub"])[:120]
        if role is None:
            raise NotBelieved(
                "no_role", f"the provider says {setting.role_claim} of nobody we know a role for: have an admin add it"
            )
        depots: tuple[str, ...] | None = None
        if setting.depot_claim and role != "partner":
            said = _words(claims, setting.depot_claim)
            depots = None if EVERY_DEPOT in said else tuple(dict.fromkeys(said))
        partner = next(iter(_words(claims, setting.partner_claim)), "") if role == "partner" else ""
        if role == "partner" and not partner:
            raise NotBelieved("no_partner", f"the claim {setting.partner_claim} names no partner: have it added")
        name = next(
            (str(claims[claim]) for claim in ("name", "preferred_username", "email") if claims.get(claim)), subject
        )
        expires_s = int(claims["exp"])
        return Caller(
            f"person:{subject}", name[:80], "session" if kind == "session" else "token", role, depots, partner, "",
            expires_s,
        )  # fmt: skip

    def _client(self, redirect: str) -> Any:
        with warnings.catch_warnings():
            # authlib would rather have another HTTP library than the one the hub has.
            importlib.import_module("authlib.deprecate")  # It sets filters of its own when it is first loaded.

            warnings.simplefilter("ignore")
            from authlib.integrations.httpx_client import (  # type: ignore[import-untyped]  # it brings no types.
                OAuth2Client,
            )
        return OAuth2Client(
            self.setting.client_id,
            self._secret or None,
            scope=self.setting.scopes,
            redirect_uri=redirect,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
            timeout=PATIENCE_S,
        )

    def _endpoint(self, name: str) -> str:
        found = self._document().get(name)
        if not isinstance(found, str):
            raise ProviderAway(f"{self.setting.issuer} names no {name} in its configuration")
        return found

    def _document(self) -> dict[str, Any]:
        with self._lock:
            if self._metadata is None or time.monotonic() - self._metadata[0] > METADATA_S:
                url = f"{self.setting.issuer.rstrip('/')}/.well-known/openid-configuration"
                found = self._get(url)
                if found.get("issuer") != self.setting.issuer:
                    raise ProviderAway(f"{url} says it is '{found.get('issuer')}', expected {self.setting.issuer}")
                self._metadata = (time.monotonic(), found)
            return self._metadata[1]

    def _key_set(self, most_age_s: float) -> KeySet:
        url = self._endpoint("jwks_uri")
        with self._lock:
            if self._keys is None or time.monotonic() - self._keys[0] > most_age_s:
                found: Any = self._get(url)
                self._keys = (time.monotonic(), KeySet.import_key_set(found))
            return self._keys[1]

    def _get(self, url: str) -> dict[str, Any]:
        try:
            found = httpx.get(url, timeout=PATIENCE_S).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as away:
            raise ProviderAway(f"{url} does not answer as it should: {type(away).__name__}") from None
        if not isinstance(found, dict):
            raise ProviderAway(f"{url} answers with something else than an object")
        return found


def _client_secret(setting: OidcSetting) -> str:
    if setting.client_secret_env:
        if setting.client_secret_env not in os.environ:
            raise SettingsWrong(
                f"access.oidc.client_secret_env names {setting.client_secret_env}, which is not in the environment"
            )
        return os.environ[setting.client_secret_env]
    if setting.client_secret_file:
        try:
            return Path(setting.client_secret_file).read_text().strip()
        except OSError as away:
            raise SettingsWrong(f"access.oidc.client_secret_file cannot be read: {away.strerror}") from None
    return ""


def _words(claims: Mapping[str, Any], name: str) -> list[str]:
    """The values of a claim, which may be one text, several with spaces between, or a list; dots lead into objects."""
    found: Any = claims
    for step in name.split(".") if name else ():
        found = found.get(step) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return found.split()
    return [str(value) for value in found] if isinstance(found, list) else []


def _highest(found: Iterable[Role]) -> Role | None:
    return max(found, key=ROLES.index, default=None)
