"""The description of the interface: which role each door needs, how to sign in, and the errors it may answer with."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from cloud_hub.access.asked import Access
from cloud_hub.access.gate import path_of
from cloud_hub.access.identity import COOKIE
from cloud_hub.access.roles import Rule, rule_of
from cloud_hub.contacts import Customer
from cloud_hub.events import Notice, Receipt
from cloud_hub.fleet import Chain, Gap, Vehicle
from cloud_hub.web.letters import ShownLetter
from cloud_hub.web.problems import MEDIA_TYPE
from shared.reckoning import DayFigures

PROBLEM = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was found, what was expected, what to do"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}

ME = {
    "type": "object",
    "required": ["subject", "name", "kind", "role", "depots", "partner", "may_approve", "expires_ms", "may"],
    "properties": {
        "subject": {"type": "string"},
        "name": {"type": "string"},
        "kind": {"enum": ["key", "session", "token", "machine"]},
        "role": {"enum": ["partner", "viewer", "operator", "approver", "admin"]},
        "depots": {"type": ["array", "null"], "items": {"type": "string"}},
        "partner": {"type": "string"},
        "may_approve": {"type": "boolean"},
        "expires_ms": {"type": ["integer", "null"]},
        "may": {"type": "array", "items": {"type": "string"}},
    },
}

ANSWERS: Mapping[str, Any] = {
    "GET /api/vehicles": list[Vehicle],
    "PUT /api/vehicles/{agent}": Vehicle,
    "GET /api/customers/{ref}": Customer,
    "PUT /api/customers/{ref}": Customer,
    "GET /api/notices": list[Notice],
    "GET /api/notices/{notice_id:path}/receipts": list[Receipt],
    "GET /api/chains": list[Chain],
    "GET /api/dead-letters": list[ShownLetter],
    "GET /api/gaps": list[Gap],
    "GET /api/day/figures": DayFigures,
    "GET /api/accesses": list[Access],
}
"""Answers that are values of ours, whose schemas msgspec writes."""

WORDS: Mapping[int, str] = {
    401: "Nobody says who asks, or what was shown opens nothing",
    403: "The caller's role or depots do not allow it, or a page of another site asks",
    404: "It is unknown, or not the caller's to see",
    409: "It cannot be done as things stand",
    410: "It is over, or its customer was forgotten",
    413: "The body is too large",
    415: "The content type is none that is taken",
    421: "The request names another host than this one",
    422: "The request is not understood",
    429: "Too many requests, or too many tries in vain: see Retry-After",
    503: "The hub cannot answer now",
}

MORE: Mapping[str, tuple[int, ...]] = {
    "POST /api/orders": (413, 415),
    "POST /api/orders/{order_id}/correction": (409,),
    "POST /api/orders/{order_id}/link": (410,),
    "GET /api/objects/{digest}": (415,),
    "POST /api/day/plan": (409,),
    "PUT /api/vehicles/{agent}": (409,),
    "POST /api/promises/{order_id}/window": (409,),
    "POST /api/customers/{customer_ref:path}/forget": (409,),
    "POST /api/dead-letters/{key:path}/retry": (409,),
    "POST /api/dead-letters/{key:path}/settle": (409,),
    "PUT /api/customers/{ref}": (404,),
    "GET /depots/{depot_id}": (404,),
    "POST /api/enrolments": (409,),
    "POST /api/roads/closures": (404,),
    "DELETE /api/roads/closures": (404,),
    "GET /api/roads/ways": (404,),
    "POST /api/keys": (409,),
    "GET /t/{token}/stop": (404, 410),
    "POST /t/{token}/stop": (404, 410),
    "GET /t/{token}": (404, 410),
}
"""Errors a door has beside those every door has."""

PAGES = frozenset({"GET /t/{token}/stop"})
"""Doors a customer's browser opens, which is shown a page whatever happens."""


def document(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Have the application describe itself so."""
    declared = {_as_described(path_of(route)): path_of(route) for route in routes}

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes,
                tags=app.openapi_tags,
            )  # fmt: skip
            app.openapi_schema = _completed(schema, declared)
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to extend it.


def _completed(schema: dict[str, Any], declared: Mapping[str, str]) -> dict[str, Any]:
    components = schema.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    shapes, written = msgspec.json.schema_components(ANSWERS.values(), ref_template="#/components/schemas/{name}")
    schemas.update(written)
    schemas["Problem"] = PROBLEM
    schemas["Me"] = ME
    answers = dict(zip(ANSWERS, shapes, strict=True)) | {"GET /api/me": {"$ref": "#/components/schemas/Me"}}
    components["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key (ww_...) or a token of the identity provider",
        },
        "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "A sign-in at /sign-in"},
    }
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            route = f"{method.upper()} {declared.get(path, path)}"
            _complete(operation, route, rule_of(route), answers.get(route))
    return schema


def _complete(operation: dict[str, Any], route: str, rule: Rule, answer: Any) -> None:
    is_public = rule.need == "nobody"
    operation["security"] = [] if is_public else [{"key": []}, {"session": []}]
    needs = "Needs no sign-in." if is_public else f"Needs: {_needs(rule)}."
    operation["description"] = f"{operation.get('description', '').strip()}\n\n{needs}".strip()
    responses = operation["responses"]
    # FastAPI's own 422 is another body than ours.
    own = [422] if "422" in responses or "requestBody" in operation else []
    everywhere = [421, 429, 503] if is_public else [401, 403, 421, 429, 503]
    if route.startswith(("POST", "PUT", "DELETE")):
        everywhere.append(403)
    if "requestBody" in operation:
        everywhere.append(413)
    if "requestBody" in operation or route.startswith("POST"):
        own = [422]
    for status in sorted({*own, *everywhere, *MORE.get(route, ())}):
        kept = responses.get(str(status), {})
        described = kept.get("description", WORDS[status])
        responses[str(status)] = {
            "description": WORDS[status] if described == "Validation Error" else described,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    if route in PAGES:
        for gone in ("404", "410"):
            responses[gone]["content"] = {"text/html": {}}
    elif "404" in responses:
        responses["404"]["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for code, response in responses.items():
        shape = response.get("content", {}).get("application/json", {})
        if code.startswith("2") and shape.get("schema") == {"type": "string"}:
            # What FastAPI takes every answer for that is written by no Pydantic model.
            shape["schema"] = {}
    if answer is not None:
        responses["200"].setdefault("content", {})["application/json"] = {"schema": answer}


def _needs(rule: Rule) -> str:
    who = "any key or sign-in" if rule.need == "known" else rule.need
    partners = "; a partner for its own orders" if rule.for_partners and rule.need != "known" else ""
    return f"{who}{partners}{'; not bound to depots' if rule.everywhere else ''}"


def _as_described(path: str) -> str:
    """A path as OpenAPI writes it: without the converters of its parameters."""
    return path.replace(":path}", "}")
