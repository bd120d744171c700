"""What exists before schemathesis comes, so that its requests are about something: bookings, events, a dead letter."""

import json
import re
import socket
import time
import uuid
from dataclasses import dataclass
from urllib.parse import urlsplit

from platform_process import Platform

# Bookings of a role by how they are paid; many of those that wait, since they are what can be acted on.
BOOKINGS = {None: 8, "pm_card_visa": 2, "pm_card_declined": 2}
# Drafts of an organizer, and events that are on sale.
DRAFTS, ON_SALE = 4, 4
# Services that have a breaker.
SERVICES = ["payments", "bookings", "notifications", "events"]
METHODS = ["pm_card_visa", "pm_card_declined", "pm_card_action_required", "pm_card_lost_answer"]
# Entity tags of any version, of the first and of a later one.
VERSIONS = ["*", '"1"', '"3"']
# Longer than any run.
HOLD_SECONDS = 7_200
# Seconds within which a dead letter is listed, and between two looks at the list.
PATIENCE, LOOK = 10, 0.05


@dataclass
class Seen:
    """The API as one role sees it."""

    role: str
    url: str
    # Empty where nobody is signed in.
    token: str
    # Known things by the name of their list: the role's own, and others'.
    things: dict[str, list[str | int]]


class Scene:
    """Makes what each role sees, on one platform."""

    def __init__(self, platform: Platform):
        self.platform = platform
        self.organizers = {role: platform.login(role) for role in ("organizer", "admin")}
        self.event = self.published(self.organizers["organizer"])
        self.stranger = platform.customer()

    def seen_by(self, role: str) -> Seen:
        """New things of this role and of others, all breakers as they are at the start."""
        self.let_breakers_count()
        token = "" if role == "anonymous" else self.platform.login(role)
        owners = [self.stranger, *([token] if token else [])]
        events = [event for organizer in self.organizers.values() for event in self.events(organizer)]
        things = {
            "bookings": [booking for owner in owners for booking in self.bookings(owner)],
            "events": events,
            "letters": [self.dead_letter()],
            "on_sale": [self.event["id"]],
            "ticket_types": [kind["id"] for kind in self.event["ticket_types"]],
            "services": SERVICES,
            "methods": METHODS,
            "versions": VERSIONS,
        }
        return Seen(role, self.platform.url, token, things)

    def let_breakers_count(self) -> None:
        """Undoes what an operator before has set."""
        operator = self.platform.login("operator")
        for service in SERVICES:
            self.platform.ask("POST", f"/v1/breakers/{service}/auto", operator, {"reason": "another role begins"})

    def bookings(self, owner: str) -> list[str]:
        made = []
        for method, number in BOOKINGS.items():
            item = {"ticket_type_id": self.event["ticket_types"][0]["id"], "quantity": 1}
            body = {"event_id": self.event["id"], "items": [item]} | ({"payment_method": method} if method else {})
            for _ in range(number):
                key = str(uuid.uuid4())
                answer = self.platform.ask("POST", "/v1/bookings", owner, body, Idempotency_Key=key, Prefer="wait=10")
                made.append(answer.json()["id"])
        return made

    def events(self, organizer: str) -> list[str]:
        return [self.draft(organizer)["id"] for _ in range(DRAFTS)] + [
            self.published(organizer)["id"] for _ in range(ON_SALE)
        ]

    def draft(self, organizer: str) -> dict:
        price = {"amount": 1_000, "currency": "EUR"}
        seats = [f"A-{number}" for number in range(1, 101)]
        event = {
            "title": "Test",
            "category": "concert",
            "timezone": "Europe/Vienna",
            "starts_at": "2099-06-12T18:00:00Z",
            "ends_at": "2099-06-12T21:00:00Z",
            "venue": {"name": "Arena", "city": "Vienna", "country": "AT"},
            "ticket_types": [
                {"name": "Standing", "price": price, "quantity": 1_000_000},
                {"name": "Box", "price": price, "quantity": len(seats), "seats": seats},
            ],
            "hold_seconds": HOLD_SECONDS,
        }
        return self.platform.ask("POST", "/v1/events", organizer, event).json()

    def published(self, organizer: str) -> dict:
        event = self.draft(organizer)
        return self.platform.ask("POST", f"/v1/events/{event['id']}/publish", organizer, Prefer="wait=30").json()

    def dead_letter(self) -> int:
        """The number of a message that no service can handle; NATS' protocol is lines of text."""
        about = json.loads((self.platform.home / "platform.json").read_text())
        nats, (subject, payload) = urlsplit(about["nats_url"]), ("cmd.bookings.upgrade.0", b"no envelope")
        login = {"verbose": False, "pedantic": False, "user": nats.username, "pass": nats.password}
        with socket.create_connection((nats.hostname, nats.port), timeout=10) as broker:
            lines = [f"CONNECT {json.dumps(login)}", f"PUB {subject} {len(payload)}", payload.decode(), "PING", ""]
            broker.sendall("\r\n".join(lines).encode())
            said = b""
            while not re.search(rb"^PONG", said, re.MULTILINE):
                said += broker.recv(4_096)
            assert b"-ERR" not in said, said
        operator = self.platform.login("operator")
        until = time.monotonic() + PATIENCE
        while not (letters := self.platform.get("/v1/dead-letters?limit=100", operator).json()["items"]):
            assert time.monotonic() < until, "the dead letter is not listed"
            time.sleep(LOOK)
        return letters[-1]["id"]
