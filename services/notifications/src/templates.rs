//! The texts. Each is rendered as plain text and as HTML that says the same.

use std::fmt::Write as _;

use eventicket_contracts::bookings::Ticket;
use eventicket_contracts::codes;
use eventicket_contracts::notifications::{BOOKING_CONFIRMED, BOOKING_REFUNDED, BookingMail, RefundMail};

/// A template with its data.
pub(crate) enum Template {
    BookingConfirmed(BookingMail),
    BookingRefunded(RefundMail),
}

/// A message without its addresses.
#[derive(Debug, PartialEq)]
pub(crate) struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Data that a template cannot be filled with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadData {
    #[error("there is no template of this name")]
    Template,
    #[error("the data is not what the template wants")]
    Data(#[from] serde_json::Error),
}

/// Reads the data of the template of this name.
pub(crate) fn parse(template: &str, data: &str) -> Result<Template, BadData> {
    match template {
        BOOKING_CONFIRMED => Ok(Template::BookingConfirmed(serde_json::from_str(data)?)),
        BOOKING_REFUNDED => Ok(Template::BookingRefunded(serde_json::from_str(data)?)),
        _ => Err(BadData::Template),
    }
}

/// Fills in a confirmation. `name` is the customer's.
pub(crate) fn booking_confirmed(name: &str, mail: &BookingMail, tickets: &[Ticket]) -> Rendered {
    let mut text = format!("Hello {},\n\nyour booking is confirmed.\n\n{}\n\n", plain(name), plain(&mail.title));
    let mut lines = String::new();
    for line in &mail.lines {
        let seats = line.seats.join(", ");
        let (before, between) = match line.seats.len() {
            0 => ("", ""),
            1 => (": seat ", "seat "),
            _ => (": seats ", "seats "),
        };
        let _ = writeln!(
            text,
            "  {} x {} at {}{before}{}",
            line.quantity,
            plain(&line.name),
            line.unit_price,
            plain(&seats)
        );
        let _ = write!(
            lines,
            "<tr><td>{}</td><td>{}</td><td>{between}{}</td><td>{}</td></tr>",
            line.quantity,
            html(&line.name),
            html(&seats),
            line.unit_price
        );
    }
    let _ = writeln!(text, "  Total: {}\n\nYour tickets:\n", mail.total);
    let mut codes = String::new();
    for ticket in tickets {
        let seat = ticket.seat.as_ref().map(|seat| format!(", seat {seat}")).unwrap_or_default();
        let _ = writeln!(text, "  {}  {}{}", ticket.code, plain(&ticket.name), plain(&seat));
        let _ = write!(codes, "<li><code>{}</code> {}{}</li>", html(&ticket.code), html(&ticket.name), html(&seat));
    }
    let _ = write!(
        text,
        "\nShow a ticket's code at the door. Who has the code has the ticket.\n\nBooking {}\n",
        mail.booking
    );
    let html = format!(
        "<!doctype html><html lang=\"en\"><body><p>Hello {name},</p><p>your booking is confirmed.</p><h1>{title}</h1>\
         <table><tr><th>Number</th><th>Ticket</th><th>Seats</th><th>Price</th></tr>{lines}</table>\
         <p>Total: <b>{total}</b></p><h2>Your tickets</h2><ul>{codes}</ul>\
         <p>Show a ticket's code at the door. Who has the code has the ticket.</p><p>Booking {booking}</p></body></html>",
        name = html(name),
        title = html(&mail.title),
        total = mail.total,
        booking = mail.booking,
    );
    Rendered { subject: format!("Your tickets for {}", plain(&mail.title)), text, html }
}

/// Fills in what happens to the money of a booking that was charged and has ended without tickets.
pub(crate) fn booking_refunded(name: &str, mail: &RefundMail) -> Rendered {
    let why = without_tickets(&mail.reason);
    let back = "is given back to your card in full. You do not have to do anything. It can take your bank a few days to \
                show it.";
    let text = format!(
        "Hello {},\n\nno tickets were issued for your booking: {why}.\n\n{}\n\nThe charged amount of {} {back}\n\n\
         Booking {}\n",
        plain(name),
        plain(&mail.title),
        mail.amount,
        mail.booking
    );
    let html = format!(
        "<!doctype html><html lang=\"en\"><body><p>Hello {name},</p><p>no tickets were issued for your booking: {why}.</p>\
         <h1>{title}</h1><p>The charged amount of <b>{amount}</b> {back}</p><p>Booking {booking}</p></body></html>",
        name = html(name),
        title = html(&mail.title),
        amount = mail.amount,
        booking = mail.booking,
    );
    Rendered { subject: format!("No tickets for {}: your payment is given back", plain(&mail.title)), text, html }
}

/// Why a booking has no tickets, in words.
fn without_tickets(reason: &str) -> &'static str {
    match reason {
        codes::HOLD_EXPIRED | codes::HOLD_GONE | codes::DEADLINE => {
            "they were reserved for a while only, and the payment was not completed within that time"
        }
        codes::CANCELLED => "it was cancelled",
        codes::EVENT_CANCELLED => "the event was cancelled",
        codes::EVENT_OVER => "the event is over",
        codes::PAYMENT_DECLINED | codes::PAYMENT_METHOD_INVALID | codes::PAYMENT_INVALID => {
            "there was a problem with the payment"
        }
        _ => "it could not be completed",
    }
}

/// One line without control characters, so that a title cannot begin a header or a paragraph of its own.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The same for HTML.
fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use eventicket_contracts::bookings::Line;
    use eventicket_contracts::{Currency, EventId, Money, SagaId, TicketTypeId, Timestamp};

    const CODE: &str = "7ZK3Q9M2T5V8X1B4C6D0E7F9GH";

    fn price(amount: i64) -> Money {
        Money { amount, currency: Currency::EUR }
    }

    fn line(name: &str, seats: &[&str]) -> Line {
        let seats = seats.iter().map(|&seat| seat.to_owned()).collect();
        Line { ticket_type_id: TicketTypeId::fresh(), name: name.into(), quantity: 2, unit_price: price(4205), seats }
    }

    fn ticket(name: &str, seat: Option<&str>) -> Ticket {
        Ticket {
            code: CODE.into(),
            event_id: EventId::fresh(),
            ticket_type_id: TicketTypeId::fresh(),
            name: name.into(),
            seat: seat.map(str::to_owned),
            issued_at: Timestamp(0),
        }
    }

    fn says(rendered: &Rendered, parts: &[&str]) {
        for part in parts {
            assert!(rendered.text.contains(part), "{part} in {}", rendered.text);
            assert!(rendered.html.contains(part), "{part} in {}", rendered.html);
        }
    }

    #[test]
    fn both_forms_say_everything_and_nothing_breaks_out() {
        let lines = vec![line("Front & centre", &[])];
        let title = "Gala <b>\r\nBcc: x@y.zz".to_owned();
        let mail = BookingMail { booking: SagaId::fresh(), title, lines, total: price(8410) };
        let rendered = booking_confirmed("Ada", &mail, &[ticket("Front & centre", None)]);
        says(&rendered, &["Ada", "42.05 EUR", "84.10 EUR", CODE, &mail.booking.to_string()]);
        assert!(rendered.text.contains("2 x Front & centre at 42.05 EUR\n"));
        assert!(rendered.html.contains("Front &amp; centre") && rendered.html.contains("Gala &lt;b&gt;"));
        assert_eq!(rendered.subject, "Your tickets for Gala <b>  Bcc: x@y.zz");
    }

    #[test]
    fn a_confirmation_names_the_seats() {
        let lines = vec![line("Category A", &["B-12", "B-<13"]), line("Box", &["L1"]), line("Standing", &[])];
        let mail = BookingMail { booking: SagaId::fresh(), title: "Gala".into(), lines, total: price(8410) };
        let tickets =
            [ticket("Category A", Some("B-12")), ticket("Category A", Some("B-<13")), ticket("Standing", None)];
        let rendered = booking_confirmed("Ada", &mail, &tickets);
        says(&rendered, &["seats B-12, B-", "seat L1", "Category A, seat B-12", "Category A, seat B-"]);
        assert!(rendered.text.contains("2 x Category A at 42.05 EUR: seats B-12, B-<13\n"));
        assert!(rendered.text.contains("2 x Standing at 42.05 EUR\n") && rendered.text.contains("Standing\n\nShow"));
        assert!(!rendered.html.contains("B-<13") && rendered.html.contains("B-&lt;13"));
    }

    #[test]
    fn a_booking_without_tickets_says_why_and_what_happens_to_the_money() {
        let reasons = [
            (codes::HOLD_EXPIRED, "the payment was not completed within that time"),
            (codes::CANCELLED, "it was cancelled"),
            (codes::PAYMENT_DECLINED, "a problem with the payment"),
            (codes::EVENT_CANCELLED, "the event was cancelled"),
            (codes::OPERATOR, "it could not be completed"),
            ("a_code_of_tomorrow", "it could not be completed"),
        ];
        for (reason, why) in reasons {
            let mail = RefundMail {
                booking: SagaId::fresh(),
                title: "Gala".into(),
                reason: reason.into(),
                amount: price(8410),
            };
            let rendered = booking_refunded("Ada", &mail);
            says(&rendered, &["Ada", "no tickets were issued", why, "84.10 EUR", "given back to your card", "Gala"]);
            says(&rendered, &["You do not have to do anything", &mail.booking.to_string()]);
            assert!(!rendered.text.contains(reason) || reason == codes::CANCELLED, "codes are for programs");
            assert_eq!(rendered.subject, "No tickets for Gala: your payment is given back");
        }
    }

    #[test]
    fn a_title_breaks_out_of_no_refund() {
        let title = "Gala <b>\r\nBcc: x@y.zz".to_owned();
        let mail = RefundMail { booking: SagaId::fresh(), title, reason: "operator".into(), amount: price(1) };
        let rendered = booking_refunded("<i>Ada", &mail);
        assert!(rendered.html.contains("Gala &lt;b&gt;") && rendered.html.contains("&lt;i&gt;Ada"));
        assert_eq!(rendered.subject, "No tickets for Gala <b>  Bcc: x@y.zz: your payment is given back");
    }
}
