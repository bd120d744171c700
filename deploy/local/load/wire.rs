//! HTTP/1.1 as far as the generator needs it: requests are put together from bytes that were made before the run, and of
//! an answer only the status, a few headers and two fields of the body are looked at. Nothing here reads or writes.

use std::fmt::Write as _;

use eventicket_contracts::sagas::BookingStatus;
use memchr::memmem;

use super::story::{Kind, Request};

/// Most headers of an answer.
const HEADERS: usize = 48;
/// Length of an id in an address.
pub const ID: usize = 36;

/// An event and a ticket type that are booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The event's id.
    pub event: String,
    /// The ticket type's id.
    pub ticket_type: String,
}

/// What requests are made of.
pub struct Encoder {
    /// Headers of each customer.
    customers: Vec<Box<[u8]>>,
    /// The body of a booking up to the number of tickets, for each target.
    bodies: Vec<Box<[u8]>>,
    /// The rest of it, for each kind.
    tails: Vec<Box<[u8]>>,
    /// Bookings of one target before the next one's turn.
    block: u64,
    /// Makes keys of this run unlike those of any other.
    run: [u8; KEY],
}

/// Hexadecimal digits of a run, and of a booking within it.
const KEY: usize = 16;
const PAYMENT: &[u8] = br#"{"payment_method":"pm_card_visa"}"#;

impl Encoder {
    /// Requests to `host`; `path` stands before `/v1`, `run` is drawn by chance. Without `paid`, no booking brings a
    /// payment method.
    pub fn new(host: &str, tokens: &[String], targets: &[Target], paid: bool, run: u64) -> Self {
        let customer = |token: &String| {
            let mut head = format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n");
            head.push_str("Content-Type: application/json\r\nPrefer: wait=10\r\n");
            head.into_bytes().into_boxed_slice()
        };
        let body = |target: &Target| {
            let mut body = format!(r#"{{"event_id":"{}","items":[{{"#, target.event);
            let _ = write!(body, r#""ticket_type_id":"{}","quantity":"#, target.ticket_type);
            body.into_bytes().into_boxed_slice()
        };
        let tail = |kind: Kind| match kind.method().filter(|_| paid) {
            Some(method) => format!(r#"}}],"payment_method":"{method}"}}"#).into_bytes().into_boxed_slice(),
            None => Box::from(&b"}]}"[..]),
        };
        Self {
            customers: tokens.iter().map(customer).collect(),
            bodies: targets.iter().map(body).collect(),
            tails: Kind::ALL.into_iter().map(tail).collect(),
            block: 1,
            run: hexadecimal(run),
        }
    }

    /// Books each target so many times before it goes on to the next one.
    pub fn in_blocks(self, block: u64) -> Self {
        Self { block: block.max(1), ..self }
    }

    /// Writes the request of the `number`th booking: customers and targets take turns. `id` is the booking's, where it has one.
    pub fn write(&self, request: Request, kind: Kind, number: u64, id: &[u8; ID], out: &mut Vec<u8>) {
        match request {
            Request::Book => out.extend_from_slice(b"POST /v1/bookings HTTP/1.1\r\n"),
            Request::Pay => Self::line(out, b"POST", id, b"/payment"),
            Request::Cancel => Self::line(out, b"POST", id, b"/cancel"),
            Request::Look => Self::line(out, b"GET", id, b""),
        }
        out.extend_from_slice(&self.customers[(number % self.customers.len() as u64) as usize]);
        if request != Request::Look {
            out.extend_from_slice(b"Idempotency-Key: ");
            out.extend_from_slice(&self.run);
            out.extend_from_slice(&hexadecimal(number));
            out.extend_from_slice(b"\r\n");
        }
        match request {
            Request::Look | Request::Cancel => out.extend_from_slice(b"Content-Length: 0\r\n\r\n"),
            Request::Pay => Self::body(out, &[PAYMENT]),
            Request::Book => {
                let body = &self.bodies[(number / self.block % self.bodies.len() as u64) as usize];
                Self::body(out, &[body, &[b'0' + kind.quantity(number)], &self.tails[kind as usize]]);
            }
        }
    }

    fn line(out: &mut Vec<u8>, method: &[u8], id: &[u8; ID], action: &[u8]) {
        for part in [method, b" /v1/bookings/", id, action, b" HTTP/1.1\r\n"] {
            out.extend_from_slice(part);
        }
    }

    fn body(out: &mut Vec<u8>, parts: &[&[u8]]) {
        let mut length = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut digits = [b'0'; 4];
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (length % 10) as u8;
            length /= 10;
        }
        out.extend_from_slice(b"Content-Length: ");
        out.extend_from_slice(&digits);
        out.extend_from_slice(b"\r\n\r\n");
        for part in parts {
            out.extend_from_slice(part);
        }
    }
}

fn hexadecimal(number: u64) -> [u8; KEY] {
    std::array::from_fn(|at| b"0123456789abcdef"[(number >> (60 - 4 * at) & 15) as usize])
}

/// An answer as far as it is looked at.
#[derive(Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// Of HTTP.
    pub status: u16,
    /// Whether it says when to come again.
    pub retry_after: bool,
    /// Whether the connection ends with it.
    pub closes: bool,
    /// Chunks are left as they came.
    pub body: &'a [u8],
}

/// What was made of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// Not all of it is there.
    Partial,
    /// All of it.
    Whole(Response<'a>),
    /// This is no HTTP.
    Broken,
}

/// Reads an answer; nothing follows it, as one request is sent at a time.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Parsed::Partial,
        Err(_) => return Parsed::Broken,
    };
    let body = &bytes[length..];
    let (mut retry_after, mut closes, mut chunked, mut expected) = (false, false, false, None);
    for header in head.headers.iter() {
        match header.name.len() {
            14 if header.name.eq_ignore_ascii_case("content-length") => expected = number(header.value),
            11 if header.name.eq_ignore_ascii_case("retry-after") => retry_after = number(header.value).is_some(),
            10 if header.name.eq_ignore_ascii_case("connection") => {
                closes = header.value.eq_ignore_ascii_case(b"close")
            }
            17 if header.name.eq_ignore_ascii_case("transfer-encoding") => chunked = true,
            _ => {}
        }
    }
    let complete = match expected {
        Some(expected) => body.len() >= expected,
        None if chunked => memmem::find(body, b"0\r\n\r\n").is_some_and(|at| at + 5 == body.len()),
        None => return Parsed::Broken,
    };
    let Some(status) = head.code.filter(|_| complete) else { return Parsed::Partial };
    Parsed::Whole(Response { status, retry_after, closes, body })
}

fn number(value: &[u8]) -> Option<usize> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

/// The status of the booking in a body.
pub fn booking_status(body: &[u8]) -> Option<BookingStatus> {
    use BookingStatus::{AwaitingPayment, Cancelled, Confirmed, Expired, Failed, Pending, Refunded};
    let name = field(body, br#""status":""#)?;
    let all = [Confirmed, AwaitingPayment, Pending, Failed, Expired, Cancelled, Refunded];
    all.into_iter().find(|status| status.name().as_bytes() == name)
}

/// The id of the booking in a body.
pub fn booking_id(body: &[u8]) -> Option<[u8; ID]> {
    field(body, br#""id":""#)?.try_into().ok()
}

fn field<'a>(body: &'a [u8], opening: &[u8]) -> Option<&'a [u8]> {
    let rest = &body[memmem::find(body, opening)? + opening.len()..];
    Some(&rest[..memchr::memchr(b'"', rest)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ID: &[u8; ID] = &[b'0'; ID];

    fn encoder(paid: bool) -> Encoder {
        let targets = [Target { event: "E".into(), ticket_type: "T".into() }];
        Encoder::new("localhost:1", &["one".into(), "two".into()], &targets, paid, 0xabc)
    }

    fn request(encoder: &Encoder, request: Request, kind: Kind, number: u64) -> String {
        let mut out = Vec::new();
        encoder.write(request, kind, number, NO_ID, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_booking_is_a_request_with_its_customer_key_and_body() {
        let text = request(&encoder(true), Request::Book, Kind::Plain, 1);
        let body = r#"{"event_id":"E","items":[{"ticket_type_id":"T","quantity":1}],"payment_method":"pm_card_visa"}"#;
        let head = "POST /v1/bookings HTTP/1.1\r\nHost: localhost:1\r\nAuthorization: Bearer two\r\n\
            Content-Type: application/json\r\nPrefer: wait=10\r\n\
            Idempotency-Key: 0000000000000abc0000000000000001\r\nContent-Length: ";
        assert_eq!(text, format!("{head}{:04}\r\n\r\n{body}", body.len()));
    }

    #[test]
    fn bodies_are_json_whatever_the_way() {
        for (kind, paid) in Kind::ALL.into_iter().flat_map(|kind| [(kind, true), (kind, false)]) {
            let text = request(&encoder(paid), Request::Book, kind, 2);
            let (_, body) = text.split_once("\r\n\r\n").unwrap();
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["payment_method"].as_str(), kind.method().filter(|_| paid), "{kind:?}");
            assert_eq!(body["items"][0]["quantity"], kind.quantity(2));
        }
    }

    #[test]
    fn targets_take_turns_one_by_one_or_in_blocks() {
        let targets = ["A", "B"].map(|event| Target { event: event.into(), ticket_type: "T".into() });
        let make = || Encoder::new("h", &["t".into()], &targets, false, 0);
        let turns = |encoder: &Encoder| -> String {
            let book = |number| request(encoder, Request::Book, Kind::Plain, number);
            (0..6).map(|number| if book(number).contains(r#""event_id":"A""#) { 'A' } else { 'B' }).collect()
        };
        assert_eq!((turns(&make()).as_str(), turns(&make().in_blocks(2)).as_str()), ("ABABAB", "AABBAA"));
    }

    #[test]
    fn what_follows_names_the_booking() {
        let id = std::str::from_utf8(NO_ID).unwrap();
        for (asked, line) in [
            (Request::Pay, format!("POST /v1/bookings/{id}/payment HTTP/1.1\r\n")),
            (Request::Cancel, format!("POST /v1/bookings/{id}/cancel HTTP/1.1\r\n")),
            (Request::Look, format!("GET /v1/bookings/{id} HTTP/1.1\r\n")),
        ] {
            let text = request(&encoder(true), asked, Kind::PaysLater, 1);
            assert!(text.starts_with(&line), "{text}");
            assert_eq!(text.contains("Idempotency-Key"), asked != Request::Look);
        }
    }

    #[test]
    fn an_answer_is_whole_when_its_body_is() {
        let text =
            b"HTTP/1.1 202 Accepted\r\ncontent-length: 37\r\n\r\n{\"id\":\"7\",\"status\":\"confirmed\",\"x\":1}";
        for cut in 0..text.len() {
            assert_eq!(parse(&text[..cut]), Parsed::Partial, "{cut}");
        }
        let Parsed::Whole(answer) = parse(text) else { panic!() };
        assert_eq!((answer.status, answer.retry_after, answer.closes), (202, false, false));
        assert_eq!(booking_status(answer.body), Some(BookingStatus::Confirmed));
    }

    #[test]
    fn chunks_and_refusals_are_understood() {
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        assert_eq!(parse(&chunked[..chunked.len() - 1]), Parsed::Partial);
        assert!(matches!(parse(chunked), Parsed::Whole(Response { status: 200, .. })));
        let refused =
            b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nconnection: close\r\nContent-Length: 0\r\n\r\n";
        let expected = Response { status: 429, retry_after: true, closes: true, body: b"" };
        assert_eq!(parse(refused), Parsed::Whole(expected));
        assert_eq!(parse(b"SSH-2.0\r\n\r\n"), Parsed::Broken);
    }

    #[test]
    fn a_body_tells_id_and_status_or_nothing() {
        let id = "01936f0e-8f4e-7cc2-9a56-0242ac120002";
        let body = format!(r#"{{"id":"{id}","status":"awaiting_payment"}}"#);
        assert_eq!(booking_id(body.as_bytes()).as_ref().map(|id| &id[..]), Some(id.as_bytes()));
        assert_eq!(booking_status(body.as_bytes()), Some(BookingStatus::AwaitingPayment));
        assert_eq!((booking_id(b"{}"), booking_status(br#"{"status":429}"#)), (None, None));
    }
}
