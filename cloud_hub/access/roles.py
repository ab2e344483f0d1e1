"""Say who may ask what: the roles, and one table of the role every route needs.

The four roles of the operator's own people contain each other: an approver may do all an operator may, an admin all.
A partner (a shop, a carrier) stands beside them: it hands its own orders in and sees nothing but what became of them.
A caller may be bound to depots, and then sees and changes what belongs to those alone (`cloud_hub.access.sight`); what
concerns every depot at once is not for a caller who is bound.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

Role = Literal["partner", "viewer", "operator", "approver", "admin"]
Need = Literal["nobody", "known", "viewer", "operator", "approver", "admin"]
"""What a route needs: nobody at all (public), anybody we know, or at least a role."""

ROLES: tuple[Role, ...] = ("partner", "viewer", "operator", "approver", "admin")
_HEIGHT: Mapping[str, int] = {"viewer": 1, "operator": 2, "approver": 3, "admin": 4}

Kind = Literal["key", "session", "token", "machine"]


class Caller(msgspec.Struct, frozen=True):
    """Whoever asks.

    `subject` names them in records of access: `key:ID`, `person:SUBJECT` or `this machine`. `name` is for people.
    `depots` are those they are bound to, None for all. `partner` is whose orders they speak for, "" for nobody's.
    `key_id` is the key or session they came with, "" when they came with neither.
    """

    subject: str
    name: str
    kind: Kind
    role: Role
    depots: tuple[str, ...] | None = None
    partner: str = ""
    key_id: str = ""
    expires_s: int | None = None

    @property
    def is_bound(self) -> bool:
        """Whether only a part of what the hub knows is theirs to see."""
        return self.role == "partner" or self.depots is not None


class Rule(msgspec.Struct, frozen=True):
    """What one route asks of its caller.

    `for_partners` when a partner may too, for its own orders. `everywhere` when it concerns every depot at once.
    `about` says whose personal data it shows or changes; such a request is recorded. It is the name of the path's
    parameter that says of whom, or "*" for many at once, or "" for nothing personal. `is_guarded` when what is tried
    in vain counts as an attempt to get in (a link, a token, a key).
    """

    need: Need
    for_partners: bool = False
    everywhere: bool = False
    about: str = ""
    is_guarded: bool = False


PUBLIC = Rule("nobody")
LINKED = Rule("nobody", is_guarded=True)
KNOWN = Rule("known", for_partners=True)
VIEW = Rule("viewer")
OPERATE = Rule("operator")
ADMINISTER = Rule("admin", everywhere=True)
UNRULED = Rule("admin", everywhere=True)
"""For a route nobody ruled on: a test finds it before it is shipped."""

APPROVE = Rule("approver", everywhere=True, about="customer_ref")
"""What cannot be taken back needs a person who may approve. Today that is forgetting somebody."""

RULES: Mapping[str, Rule] = {
    # The documents, and a way in.
    "GET /": VIEW,
    "GET /openapi.json": Rule("known", for_partners=True),
    "HEAD /openapi.json": Rule("known", for_partners=True),
    "GET /docs": KNOWN,
    "GET /docs/oauth2-redirect": KNOWN,
    "GET /static-offline-docs": PUBLIC,
    "GET /sign-in": PUBLIC,
    "POST /sign-in": LINKED,
    "POST /sign-out": PUBLIC,
    "GET /sign-in/provider": PUBLIC,
    "GET /sign-in/back": LINKED,
    "GET /api/me": KNOWN,
    "GET /api/keys": ADMINISTER,
    "POST /api/keys": ADMINISTER,
    "DELETE /api/keys/{key_id}": ADMINISTER,
    "GET /api/accesses": ADMINISTER,
    # Orders.
    "POST /api/orders": Rule("operator", for_partners=True, about="*"),
    "GET /api/orders": Rule("viewer", for_partners=True, about="*"),
    "GET /api/orders/doubtful": Rule("viewer", for_partners=True, about="*"),
    "GET /api/needs-you": VIEW,
    "GET /api/orders/{order_id}": Rule("viewer", for_partners=True, about="order_id"),
    "GET /api/orders/{order_id}/why": Rule("viewer", about="order_id"),
    "POST /api/orders/{order_id}/correction": Rule("operator", for_partners=True, about="order_id"),
    "POST /api/orders/{order_id}/link": Rule("operator", for_partners=True, about="order_id"),
    "GET /api/orders/{order_id}/proof": Rule("viewer", for_partners=True, about="order_id"),
    "GET /api/objects/{digest}": Rule("viewer", for_partners=True, about="digest"),
    # The day.
    "POST /api/day/plan": Rule("operator", everywhere=True),
    "GET /api/day": VIEW,
    "GET /api/day/figures": VIEW,
    "GET /api/day/first-plan": Rule("viewer", about="*"),
    "GET /api/vehicles": VIEW,
    "PUT /api/vehicles/{agent}": OPERATE,
    "GET /api/depots/{depot_id}/board": Rule("viewer", about="depot_id"),
    "GET /depots/{depot_id}": Rule("viewer", about="depot_id"),
    # The picture.
    "GET /api/fleet": Rule("viewer", about="*"),
    "GET /api/routes": Rule("viewer", about="*"),
    "GET /api/routes/{agent}": Rule("viewer", about="agent"),
    "GET /api/promises": Rule("viewer", for_partners=True),
    "POST /api/promises/{order_id}/window": OPERATE,
    "GET /api/decisions": Rule("viewer", about="*"),
    "GET /api/decisions/{decision_id:path}": Rule("viewer", about="decision_id"),
    "GET /api/chains": VIEW,
    "GET /api/dead-letters": Rule("viewer", about="*"),
    "POST /api/dead-letters/{key:path}/retry": OPERATE,
    "POST /api/dead-letters/{key:path}/settle": OPERATE,
    "GET /api/gaps": VIEW,
    "GET /api/notices": Rule("viewer", for_partners=True),
    "GET /api/notices/{notice_id:path}/receipts": Rule("viewer", for_partners=True),
    "GET /api/wishes": Rule("viewer", about="*"),
    "GET /api/telemetry/{agent}": Rule("viewer", about="agent"),
    "GET /api/feed": Rule("viewer", about="*"),
    # Customers and privacy.
    "GET /api/customers/{ref}": Rule("viewer", about="ref"),
    "PUT /api/customers/{ref}": Rule("operator", about="ref"),
    "POST /api/customers/{customer_ref:path}/forget": APPROVE,
    "GET /api/ledger/verify": Rule("viewer", everywhere=True),
    # A customer's own link is the key to its page.
    "GET /t/{token}": LINKED,
    "GET /t/{token}/state": LINKED,
    "GET /t/{token}/stop": LINKED,
    "POST /t/{token}": LINKED,
    "POST /t/{token}/stop": LINKED,
    # Roads.
    "GET /api/roads/closures": VIEW,
    "POST /api/roads/closures": Rule("operator", everywhere=True),
    "DELETE /api/roads/closures": Rule("operator", everywhere=True),
    "GET /api/roads/ways": VIEW,
    # For those who run it.
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /metrics": VIEW,
    # A machine's first certificate and its next ones: a token of its own, or the certificate it has.
    "GET /api/authority": PUBLIC,
    "GET /api/enrolments": ADMINISTER,
    "POST /api/enrolments": ADMINISTER,
    "POST /api/enrol": LINKED,
    "POST /api/renew": LINKED,
}


def rule_of(route: str) -> Rule:
    """The rule of a route, "METHOD /path/{as}/declared"."""
    return RULES.get(route, UNRULED)


def objection(caller: Caller, rule: Rule) -> str:
    """Why this caller may not ask this: what was found, what is expected, what to do. "" when they may."""
    if rule.need == "nobody":
        return ""
    if caller.role == "partner":
        if rule.for_partners:
            return ""
        return f"{caller.name} is a partner and sees its own orders only; ask the hub's operator for a key with a role"
    if rule.need != "known" and _HEIGHT[caller.role] < _HEIGHT[rule.need]:
        return f"{caller.name} has the role {caller.role}, expected {rule.need}; ask an admin for a key that has it"
    if rule.everywhere and caller.depots is not None:
        return (
            f"{caller.name} is bound to {', '.join(caller.depots) or 'no depot'}, and this concerns every depot; "
            "ask somebody who is not bound to any"
        )
    return ""


def is_at_least(caller: Caller, role: Role) -> bool:
    """Whether a caller has this role or one that contains it."""
    return _HEIGHT.get(caller.role, 0) >= _HEIGHT.get(role, 9)


def routes_of(caller: Caller) -> list[str]:
    """Every route this caller may ask, as the table names it."""
    return sorted(route for route, rule in RULES.items() if not objection(caller, rule))
