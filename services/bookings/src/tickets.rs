//! The tickets of a confirmed hold, with codes that nobody can guess.

use eventicket_contracts::{BookingId, EventId, TicketTypeId};
use rand::Rng;

use crate::allocation::{Change, Content, Record, What};

/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a code; five bits each.
const LENGTH: usize = 26;

/// A ticket to be written; its code is made when it is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NewTicket<'a> {
    pub booking: BookingId,
    pub number: i32,
    pub event: EventId,
    pub ticket_type: TicketTypeId,
    pub name: &'a str,
    pub seat: Option<&'a str>,
}

/// The tickets that a change makes: one for each place of a hold that was confirmed.
pub(crate) fn tickets<'a>(change: &Change, record: &'a Record) -> impl Iterator<Item = NewTicket<'a>> {
    let lines = match (&change.what, &record.content) {
        (What::Confirmed, Content::Hold(hold)) => hold.reserved.lines.as_slice(),
        _ => &[],
    };
    let (booking, event) = (change.key.saga, record.event);
    let places = lines.iter().flat_map(|line| (0..line.quantity as usize).map(move |at| (line, line.seats.get(at))));
    places.zip(1..).map(move |((line, seat), number)| {
        let (ticket_type, name, seat) = (line.ticket_type_id, line.name.as_str(), seat.map(String::as_str));
        NewTicket { booking, number, event, ticket_type, name, seat }
    })
}

/// 130 random bits, of the generator that the system seeds.
pub(crate) fn code() -> String {
    let mut bytes = [0_u8; LENGTH];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| char::from(ALPHABET[usize::from(byte & 31)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_have_26_characters_of_crockfords_alphabet_and_use_all_of_them() {
        let codes: HashSet<String> = (0..1_000).map(|_| code()).collect();
        assert_eq!(codes.len(), 1_000);
        assert!(codes.iter().all(|code| code.len() == 26));
        let used: HashSet<u8> = codes.iter().flat_map(|code| code.bytes()).collect();
        assert_eq!(used, ALPHABET.iter().copied().collect());
    }
}
