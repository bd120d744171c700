"""What schemathesis does not know by itself: headers in both directions, and what no schema can say of a request."""

import atexit
import collections
import json
import os
import re
from pathlib import Path

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

# Headers that say something of the message, its caching or its display, and nothing of the operation.
GENERAL = {
    "allow",
    "cache-control",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "date",
    "referrer-policy",
    "transfer-encoding",
    "x-content-type-options",
}
# Headers that come only where the request asked for it, or repeats another.
CONDITIONAL = {"preference-applied", "idempotent-replayed"}

# Why a request that is valid by its schema may be refused, by the problem's code.
BEYOND_SCHEMA = {
    "idempotency_key_reused",  # the key came with another body before
}
# The same by code and field, where the code is `validation`.
FIELDS_BEYOND_SCHEMA = [
    ("mismatch", r"(items|ticket_types)\[\d+\]\.(seats|quantity)"),  # as many seats as tickets
    ("duplicate", r"(items|ticket_types)\[.*"),  # each type, name and seat once
    ("mixed_currencies", r"ticket_types\[\d+\]\.price\.currency"),  # all of one currency
    ("unknown", r"ticket_types\[\d+\]\.id"),  # a type of this event
    ("unknown", r"timezone"),  # one of the IANA's
    ("too_long", r"ticket_types"),  # the labels of all seats together
    ("in_the_past", r"(starts|ends)_at"),
    ("out_of_order", r"ends_at"),  # after `starts_at`
    ("required", r"title|category|name|reason|venue\.(name|city)|ticket_types\[\d+\]\.(name|seats\[\d+\])"),  # only spaces
    ("invalid", r"reason"),  # only spaces
    ("invalid", r"cursor"),  # of an earlier page
    ("required", r"filter|step"),  # of a bulk action, by `all` and by `action`
    ("invalid", r"output|step|force"),  # of a bulk action, by `action`
]

answered: collections.Counter[int] = collections.Counter()


def is_beyond_schema(problem: dict) -> bool:
    """Whether no schema can say what is wrong; each field at fault has to be of that kind."""
    if problem["code"] != "validation":
        return problem["code"] in BEYOND_SCHEMA
    known = lambda error: any(
        error["code"] == code and re.fullmatch(field, error["field"]) for code, field in FIELDS_BEYOND_SCHEMA
    )
    return bool(problem.get("errors")) and all(known(error) for error in problem["errors"])


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops the one kind of failure that a document cannot help."""
    refused = isinstance(failure, RejectedPositiveData) and response.status_code == 422
    return not (refused and is_beyond_schema(response.json()))


@schemathesis.hook
def map_body(context, body):
    """Writes whole numbers as such: JSON Schema takes 1.0 for an integer, and the API wants 1. What no integer of 64 bits
    holds stays as it is: its hundreds of digits are no number for serde_json."""
    if isinstance(body, dict):
        return {name: map_body(context, value) for name, value in body.items()}
    if isinstance(body, list):
        return [map_body(context, value) for value in body]
    whole = isinstance(body, float) and body.is_integer() and abs(body) < 2**63
    return int(body) if whole else body


@schemathesis.hook
def after_call(context, case, response):
    """Counts answers by the class of their status."""
    answered[response.status_code // 100] += 1


@atexit.register
def tell() -> None:
    """For the summary of the run."""
    Path(os.environ["EVENTICKET_API_STATUSES"]).write_text(json.dumps(answered))


@schemathesis.check
def headers_are_the_documented_ones(ctx, response, case):
    """Each header that tells something is documented for this status, and each one that is documented comes."""
    documented = case.operation.responses.find_by_status_code(response.status_code)
    if documented is None:
        return  # another check tells
    known = {name.lower() for name, _ in documented.headers.items()}
    sent = {name.lower() for name in response.headers}
    more, less = sent - known - GENERAL, known - sent - CONDITIONAL
    assert not more, f"undocumented headers of {response.status_code}: {sorted(more)}"
    assert not less, f"documented headers that {response.status_code} lacks: {sorted(less)}"
