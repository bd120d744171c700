"""A client that is generated from the document books a ticket."""

import importlib
import subprocess
import sys
import time
import uuid
from pathlib import Path

from platform_process import PASSWORD, Platform

PACKAGE = "eventicket_client"
TICKETS = 2
# Seconds within which a booking is confirmed, and between two looks at it.
PATIENCE = 30
LOOK = 0.05


def generate(document: Path, folder: Path) -> None:
    """Writes the client; the generator's least doubt about the document is an error."""
    command = ["openapi-python-client", "generate", "--path", document, "--output-path", folder / PACKAGE]
    made = subprocess.run([*command, "--meta", "none", "--fail-on-warning"], capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr


def walk(platform: Platform, document: Path, folder: Path) -> str:
    """Signs in, looks what is on sale, books and pays, waits for the end, and reads the tickets."""
    generate(document, folder)
    sys.path.insert(0, str(folder))
    client = importlib.import_module(PACKAGE)
    models = importlib.import_module(f"{PACKAGE}.models")

    def call(operation: str, as_whom, expected: int, **arguments):
        """Calls an operation, and returns what it answered, as the client reads it."""
        answer = importlib.import_module(f"{PACKAGE}.api.{operation}").sync_detailed(client=as_whom, **arguments)
        assert answer.status_code == expected, f"{operation}: {answer.status_code} {answer.content!r}"
        return answer.parsed

    strict = {"base_url": platform.url, "raise_on_unexpected_status": True}
    nobody = client.Client(**strict)
    credentials = models.Credentials(email="customer@demo.test", password=PASSWORD)
    tokens = call("auth.login", nobody, 200, body=credentials)
    customer = client.AuthenticatedClient(**strict, token=tokens.access_token)

    events = call("events.list_events", nobody, 200, limit=100).items
    event = next(event for event in events if event.ticket_types[0].price.amount > 0)
    kind = event.ticket_types[0]
    order = models.NewBooking(event_id=event.id, items=[models.NewItem(ticket_type_id=kind.id, quantity=TICKETS)])
    booking = call("bookings.create_booking", customer, 202, body=order, idempotency_key=str(uuid.uuid4()), prefer="wait=10")
    assert booking.status == models.BookingStatus.AWAITING_PAYMENT, booking
    assert booking.total.amount == TICKETS * kind.price.amount, booking
    payment = models.NewPayment(payment_method="pm_card_visa")
    call("bookings.pay_booking", customer, 202, id=booking.id, body=payment, idempotency_key=str(uuid.uuid4()))

    until = time.monotonic() + PATIENCE
    while booking.status != models.BookingStatus.CONFIRMED:
        assert time.monotonic() < until, f"not confirmed: {booking}"
        time.sleep(LOOK)
        booking = call("bookings.show_booking", customer, 200, id=booking.id)
    tickets = call("bookings.list_tickets", customer, 200, id=booking.id).items
    assert len({ticket.code for ticket in tickets}) == TICKETS, tickets
    assert all(ticket.event_id == event.id and ticket.ticket_type_id == kind.id for ticket in tickets), tickets
    mine = call("me.list_my_bookings", customer, 200).items
    assert booking.id in [own.id for own in mine], mine
    missing = call("bookings.show_booking", customer, 404, id=uuid.uuid4())
    assert missing.code == "not_found", missing
    return f"a generated client booked, paid and got {TICKETS} tickets"
