"""Who may ask what, what a key is, and what the settings of access refuse: by values alone."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_hub.access.keys import KeyRecord, digest_of, opens, parsed, written
from cloud_hub.access.roles import RULES, UNRULED, Caller, Role, Rule, is_at_least, objection, routes_of, rule_of
from cloud_hub.access.setting import AccessSetting, OidcSetting, access_objections

LADDER: tuple[Role, ...] = ("viewer", "operator", "approver", "admin")


def caller(role: Role, **fields: object) -> Caller:
    return Caller("key:1", "somebody", "key", role, **fields)  # type: ignore[arg-type]  # by name in each test.


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(LADDER)))
def test_each_role_may_all_the_one_below_it_may_and_more(lower: Role, higher: Role) -> None:
    assert set(routes_of(caller(lower))) < set(routes_of(caller(higher)))


def test_a_partner_may_only_what_says_it_is_for_partners() -> None:
    allowed = routes_of(caller("partner", partner="shop"))
    assert {rule_of(route).for_partners or rule_of(route).need == "nobody" for route in allowed} == {True}
    assert "GET /api/fleet" not in allowed
    assert "POST /api/orders" in allowed


def test_what_concerns_every_depot_is_not_for_who_is_bound_to_some() -> None:
    bound = caller("admin", depots=("north",))
    assert "bound to north" in objection(bound, rule_of("POST /api/day/plan"))
    assert objection(bound, rule_of("GET /api/fleet")) == ""


def test_a_route_nobody_ruled_on_is_an_admins() -> None:
    assert rule_of("GET /api/new") == UNRULED
    assert "expected admin" in objection(caller("approver"), UNRULED)


def test_what_cannot_be_taken_back_asks_for_an_approver() -> None:
    forget = rule_of("POST /api/customers/{customer_ref:path}/forget")
    assert "expected approver" in objection(caller("operator"), forget)
    assert objection(caller("approver"), forget) == ""
    assert not is_at_least(caller("partner"), "viewer")


def test_a_refusal_says_what_was_found_and_what_to_do() -> None:
    why = objection(caller("viewer"), Rule("operator"))
    assert why == "somebody has the role viewer, expected operator; ask an admin for a key that has it"


def test_only_these_doors_are_open_to_everybody() -> None:
    public = {route.partition(" ")[2] for route, rule in RULES.items() if rule.need == "nobody"}
    assert public == {
        "/healthz", "/readyz", "/static-offline-docs", "/sign-in", "/sign-out", "/sign-in/provider", "/sign-in/back",
        "/t/{token}", "/t/{token}/state", "/t/{token}/stop", "/api/enrol", "/api/renew", "/api/authority",
    }  # fmt: skip


def record(**changes: object) -> KeyRecord:
    fields = {"key_id": "0" * 12, "kind": "key", "name": "n", "digest": digest_of("s" * 43), "role": "viewer"}
    return KeyRecord(**{**fields, "made_ms": 0, **changes})  # type: ignore[arg-type]  # by name in each test.


def test_a_key_is_read_as_it_was_written() -> None:
    assert parsed(written("0123456789ab", "s" * 43)) == ("0123456789ab", "s" * 43)


@given(st.text(max_size=80))
def test_no_other_text_is_a_key(text: str) -> None:
    found = parsed(text)
    assert found is None or written(*found) == text


def test_a_record_opens_by_its_own_secret_alone_and_does_not_hold_it() -> None:
    assert opens(record(), "s" * 43)
    assert not opens(record(), "s" * 42 + "t")
    assert "s" * 10 not in repr(record())


def test_a_key_is_dead_once_revoked_and_from_its_very_last_millisecond() -> None:
    assert record(expires_ms=1000).why_dead(999) == ""
    assert record(expires_ms=1000).why_dead(1000) == "has expired"
    assert record(revoked_ms=1).why_dead(0) == "was revoked"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.9.1"])
def test_a_hub_on_the_loopback_may_be_open_there(host: str) -> None:
    assert list(access_objections(AccessSetting(open_on_loopback=True), host)) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "hub.example"])
def test_a_hub_others_can_reach_is_not_open(host: str) -> None:
    (why,) = access_objections(AccessSetting(open_on_loopback=True), host)
    assert "expected a loopback address" in why


OIDC = OidcSetting(issuer="https://id.example", client_id="hub", roles={"ops": "operator"})


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"issuer": "http://id.example"}, "expected https"),
        ({"client_id": ""}, "client_id is empty"),
        ({"roles": {}}, "roles is empty"),
        ({"roles": {"shop": "partner"}}, "expected a partner_claim"),
        ({"scopes": "profile"}, "expected openid"),
        ({"algorithms": ("HS256",)}, "names 'HS256'"),
        ({"algorithms": ("none",)}, "names 'none'"),
        ({"algorithms": ()}, "names ''"),
    ],
)
def test_a_provider_that_could_be_impersonated_is_refused(change: dict[str, object], found: str) -> None:
    assert list(access_objections(AccessSetting(oidc=OIDC), "127.0.0.1")) == []
    (why,) = access_objections(AccessSetting(oidc=msgspec.structs.replace(OIDC, **change)), "127.0.0.1")
    assert found in why
