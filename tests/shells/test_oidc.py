"""People and machines sign in by a real OpenID Connect provider in a process of its own."""

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from cloud_hub.access import oidc
from cloud_hub.access.identity import COOKIE
from cloud_hub.access.setting import AccessSetting, OidcSetting
from deploy.stack import Stack, free_ports
from tests.shells.access_house import House, TestClient, a_house
from tests.shells.test_access import is_problem

PEOPLE: list[dict[str, Any]] = [
    {"sub": "anna", "name": "Anna", "groups": ["staff", "ww-ops"], "depots": "north"},
    {"sub": "boss", "name": "Boss", "groups": ["ww-ops", "ww-admin"], "depots": ["*"]},
    {"sub": "guest", "name": "Guest", "groups": ["staff"], "depots": "*"},
    {"sub": "shop", "name": "Shop", "groups": "ww-shop", "partner": "red"},
    {"sub": "lost", "name": "Lost", "groups": "ww-ops"},
]


os.environ["HUB_CLIENT_SECRET"] = "the provider takes any"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a provider that knows these people."""
    (port,) = free_ports(1)
    said = [word for person in PEOPLE for word in ("--user-claims", json.dumps(person))]
    with Stack(tmp_path_factory.mktemp("provider"), {}) as stack:
        stack.start("provider", "oidc_provider_mock", "--port", str(port), "--require-nonce", "true", *said)
        stack.wait_for_port("provider", port)
        yield f"http://127.0.0.1:{port}"


def setting_of(issuer: str, **changes: Any) -> AccessSetting:
    roles: Any = {"ww-ops": "operator", "ww-admin": "admin", "ww-shop": "partner"}
    said = {
        "issuer": issuer, "client_id": "hub", "role_claim": "groups", "roles": roles, "depot_claim": "depots",
        "partner_claim": "partner", "client_secret_env": "HUB_CLIENT_SECRET",
    }  # fmt: skip
    return AccessSetting(failures_per_min=1000, oidc=OidcSetting(**said | changes))


@pytest.fixture(scope="module")
def house(issuer: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with a_house(tmp_path_factory.mktemp("house"), setting_of(issuer)) as house:
        yield house


def sign_in(browser: TestClient, who: str, where: str = "/depots/north") -> Any:
    """Through the provider's page and back, as a browser goes."""
    begun = browser.get("/sign-in/provider", params={"next": where})
    assert begun.status_code == 303, begun.text
    agreed = httpx.post(begun.headers["location"], data={"sub": who})
    assert agreed.status_code == 302, agreed.text
    return browser.get(agreed.headers["location"])


def id_token(issuer: str, who: str, client_id: str = "hub") -> str:
    """A token of the provider for a machine, got by the provider's own flow."""
    asked = {
        "client_id": client_id, "redirect_uri": "http://machine.local/", "response_type": "code",
        "scope": "openid profile", "nonce": os.urandom(8).hex(), "state": "s",
    }  # fmt: skip
    agreed = httpx.post(f"{issuer}/oauth2/authorize", params=asked, data={"sub": who})
    code = parse_qs(urlsplit(agreed.headers["location"]).query)["code"][0]
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": "http://machine.local/"}
    told = httpx.post(f"{issuer}/oauth2/token", data=form, auth=(client_id, "anything"))
    token: str = told.json()["id_token"]
    return token


def test_a_person_signs_in_and_is_who_the_provider_says(house: House) -> None:
    browser = house.client()
    answer = sign_in(browser, "anna")
    assert (answer.status_code, answer.headers["location"]) == (303, "/depots/north")
    me = browser.get("/api/me").json()
    assert {name: me[name] for name in ("subject", "name", "kind", "role", "depots")} == {
        "subject": "person:anna", "name": "Anna", "kind": "session", "role": "operator", "depots": ["north"],
    }  # fmt: skip


def test_the_highest_role_counts_and_a_star_is_every_depot(house: House) -> None:
    browser = house.client()
    sign_in(browser, "boss")
    me = browser.get("/api/me").json()
    assert (me["role"], me["depots"], me["may_approve"]) == ("admin", None, True)


def test_a_partner_speaks_for_the_one_its_claim_names(house: House) -> None:
    browser = house.client()
    sign_in(browser, "shop")
    me = browser.get("/api/me").json()
    assert (me["role"], me["partner"]) == ("partner", "red")


def test_who_has_no_depot_in_a_hub_of_depots_sees_none(house: House) -> None:
    browser = house.client()
    sign_in(browser, "lost")
    assert browser.get("/api/me").json()["depots"] == []
    assert browser.get("/api/vehicles").json() == []


def test_who_has_no_role_is_not_let_in(house: House) -> None:
    browser = house.client()
    answer = sign_in(browser, "guest")
    assert answer.status_code == 403
    assert "groups of nobody we know a role for" in answer.text
    assert COOKIE not in browser.cookies


def test_a_change_is_on_record_under_the_name_of_who_signed_in(house: House) -> None:
    browser = house.client(**{"Origin": "http://hub.local"})
    sign_in(browser, "boss")
    browser.post("/api/roads/closures", json={"street": "Yrjönkatu", "by": "somebody else"})
    assert b'"name":"Boss"' in b"".join(document for _, document in house.store.documents("hands"))


def test_the_way_back_is_for_the_browser_that_went(house: House) -> None:
    begun = house.client().get("/sign-in/provider")
    agreed = httpx.post(begun.headers["location"], data={"sub": "boss"})
    stranger = house.client().get(agreed.headers["location"])
    assert stranger.status_code == 400
    assert "no sign-in was begun in this browser" in stranger.text


def test_a_sign_in_goes_by_pkce_state_and_nonce(house: House) -> None:
    asked = parse_qs(urlsplit(house.client().get("/sign-in/provider").headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == ["http://hub.local/sign-in/back"]
    assert all(len(asked[name][0]) >= 30 for name in ("code_challenge", "state", "nonce"))


def test_another_state_a_made_up_code_and_a_refusal_let_nobody_in(house: House) -> None:
    for said, status in (
        ({"state": "other", "code": "c"}, 400),
        ({"code": "made-up"}, 403),
        ({"error": "denied"}, 403),
    ):
        browser = house.client()
        state = parse_qs(urlsplit(browser.get("/sign-in/provider").headers["location"]).query)["state"][0]
        answer = browser.get("/sign-in/back", params={"state": state, **said})
        assert answer.status_code == status, said
        assert COOKIE not in browser.cookies


def test_an_answer_to_another_sign_in_is_refused(house: House) -> None:
    provider = house.access.identity.provider
    assert provider is not None
    begun = provider.begin("http://hub.local/sign-in/back")
    agreed = httpx.post(begun.url, data={"sub": "boss"})
    code = parse_qs(urlsplit(agreed.headers["location"]).query)["code"][0]
    with pytest.raises(oidc.NotBelieved, match="not the one that was begun here"):
        provider.finish("http://hub.local/sign-in/back", code, begun._replace(nonce="another"))


def test_a_machine_comes_with_a_token_of_the_provider(house: House, issuer: str) -> None:
    me = house.client(id_token(issuer, "anna")).get("/api/me").json()
    assert (me["kind"], me["role"], me["depots"]) == ("token", "operator", ["north"])


def test_a_token_for_somebody_else_is_refused(house: House, issuer: str) -> None:
    answer = house.client(id_token(issuer, "anna", "another-app")).get("/api/me")
    assert is_problem(answer, 401)
    assert "expected one of http" in answer.json()["detail"]


def test_an_expired_token_is_refused(house: House, issuer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    token, later = id_token(issuer, "anna"), time.time() + 3600 + oidc.LEEWAY_S + 1
    monkeypatch.setattr(oidc.time, "time", lambda: later)
    assert is_problem(house.client(token).get("/api/me"), 401)


def test_only_the_providers_own_signature_counts(house: House, issuer: str) -> None:
    claims = {"iss": issuer, "aud": "hub", "sub": "boss", "exp": int(time.time()) + 600, "groups": ["ww-admin"],
              "depots": "*"}  # fmt: skip
    own = RSAKey.generate_key(2048)
    keys = KeySet.import_key_set(httpx.get(f"{issuer}/jwks").json())
    public = keys.keys[0].as_pem(private=False)  # type: ignore[attr-defined]  # an RSA key has it.
    forged = [
        jwt.encode({"alg": "RS256", "kid": keys.keys[0].kid}, claims, own),
        # The public key as the secret of an HMAC: what a careless check takes (RFC 8725, 2.1).
        _by_hmac(claims, public),
        _unsigned(claims),
        "eyJ.eyJ.sig",
        "nonsense",
    ]
    for token in forged:
        assert is_problem(house.client(token).get("/api/me"), 401), token


def _by_hmac(claims: dict[str, Any], secret: bytes) -> str:
    signed = _unsigned(claims, "HS256").rstrip(".")
    digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _unsigned(claims: dict[str, Any], algorithm: str = "none") -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=")
        for each in ({"alg": algorithm}, claims)
    ]
    return f"{parts[0]}.{parts[1]}."


def test_a_provider_that_is_away_locks_no_key_out(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with a_house(tmp_path, setting_of(f"http://127.0.0.1:{port}")) as house:
        assert house.as_role("viewer").get("/api/me").status_code == 200
        assert is_problem(house.client("eyJ.a.b").get("/api/me"), 503)
        assert is_problem(house.client().get("/sign-in/provider"), 503)
        assert "Sign in with" in house.client().get("/sign-in").text
