//! The tickets of a confirmed hold: one for each place of its lines, with codes that nobody can guess.

use eventicket_contracts::bookings::{Line, Ticket};
use eventicket_contracts::{EventId, Timestamp};
use rand::Rng;

/// Crockford's base 32: no I, L, O, U.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a code; five bits each.
const LENGTH: usize = 26;

/// The tickets of these lines, whose codes are in the order of the places.
pub(crate) fn tickets(event_id: EventId, lines: &[Line], codes: Vec<String>, issued_at: Timestamp) -> Vec<Ticket> {
    let places = lines.iter().flat_map(|line| (0..line.quantity as usize).map(move |at| (line, line.seats.get(at))));
    let ticket = |((line, seat), code): ((&Line, Option<&String>), String)| Ticket {
        code,
        event_id,
        ticket_type_id: line.ticket_type_id,
        name: line.name.clone(),
        seat: seat.cloned(),
        issued_at,
    };
    places.zip(codes).map(ticket).collect()
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
