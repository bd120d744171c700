//! The texts. Each is rendered as plain text and as HTML that says the same.

use std::fmt::Write as _;

use eventicket_contracts::bookings::Ticket;
use eventicket_contracts::notifications::{BOOKING_CONFIRMED, BookingMail};

/// A template with its data.
pub(crate) enum Template {
    BookingConfirmed(BookingMail),
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
        _ => Err(BadData::Template),
    }
}

/// Fills in a confirmation. `name` is the customer's.
pub(crate) fn booking_confirmed(name: &str, mail: &BookingMail, tickets: &[Ticket]) -> Rendered {
    let mut text = format!("Hello {},\n\nyour booking is confirmed.\n\n{}\n\n", plain(name), plain(&mail.title));
    let mut lines = String::new();
    for line in &mail.lines {
        let _ = writeln!(text, "  {} x {} at {}", line.quantity, plain(&line.name), line.unit_price);
        let _ = write!(
            lines,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            line.quantity,
            html(&line.name),
            line.unit_price
        );
    }
    let _ = writeln!(text, "  Total: {}\n\nYour tickets:\n", mail.total);
    let mut codes = String::new();
    for ticket in tickets {
        let _ = writeln!(text, "  {}  {}", ticket.code, plain(&ticket.name));
        let _ = write!(codes, "<li><code>{}</code> {}</li>", html(&ticket.code), html(&ticket.name));
    }
    let _ = write!(
        text,
        "\nShow a ticket's code at the door. Who has the code has the ticket.\n\nBooking {}\n",
        mail.booking
    );
    let html = format!(
        "<!doctype html><html lang=\"en\"><body><p>Hello {name},</p><p>your booking is confirmed.</p><h1>{title}</h1>\
         <table><tr><th>Number</th><th>Ticket</th><th>Price</th></tr>{lines}</table><p>Total: <b>{total}</b></p>\
         <h2>Your tickets</h2><ul>{codes}</ul>\
         <p>Show a ticket's code at the door. Who has the code has the ticket.</p><p>Booking {booking}</p></body></html>",
        name = html(name),
        title = html(&mail.title),
        total = mail.total,
        booking = mail.booking,
    );
    Rendered { subject: format!("Your tickets for {}", plain(&mail.title)), text, html }
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

    #[test]
    fn both_forms_say_everything_and_nothing_breaks_out() {
        let price = |amount| Money { amount, currency: Currency::EUR };
        let kind = TicketTypeId::fresh();
        let line = Line { ticket_type_id: kind, name: "Front & centre".into(), quantity: 2, unit_price: price(4205) };
        let mail = BookingMail {
            booking: SagaId::fresh(),
            title: "Gala <b>\r\nBcc: x@y.zz".into(),
            lines: vec![line],
            total: price(8410),
        };
        let ticket = Ticket {
            code: "7ZK3Q9M2T5V8X1B4C6D0E7F9GH".into(),
            event_id: EventId::fresh(),
            ticket_type_id: kind,
            name: "Front & centre".into(),
            issued_at: Timestamp(0),
        };
        let rendered = booking_confirmed("Ada", &mail, &[ticket]);
        for part in ["Ada", "42.05 EUR", "84.10 EUR", "7ZK3Q9M2T5V8X1B4C6D0E7F9GH", &mail.booking.to_string()] {
            assert!(rendered.text.contains(part), "{part} in {}", rendered.text);
            assert!(rendered.html.contains(part), "{part} in {}", rendered.html);
        }
        assert!(rendered.text.contains("2 x Front & centre"));
        assert!(rendered.html.contains("Front &amp; centre") && rendered.html.contains("Gala &lt;b&gt;"));
        assert_eq!(rendered.subject, "Your tickets for Gala <b>  Bcc: x@y.zz");
    }
}
