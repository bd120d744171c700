//! Reads single figures from pages of metrics in Prometheus' format.

use std::collections::BTreeMap;

/// Mails that wait to be sent.
pub const MAILS_WAITING: &str = "eventicket_mails_waiting";
/// Mails that were sent.
pub const MAILS_SENT: &str = "eventicket_mails_sent_total";
/// Sagas that ended by undoing what was done, as those whose hold expired.
pub const SAGAS_COMPENSATED: &str = "eventicket_sagas_ended_total{state=\"compensated\"}";

/// What is read: a name, and a label where only some of its series count.
const WANTED: [&str; 3] = [MAILS_WAITING, MAILS_SENT, SAGAS_COMPENSATED];

/// The wanted figures, each summed over its series; those that no page has are left out.
pub fn figures(pages: &[String]) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in pages.iter().flat_map(|page| page.lines()).filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let known = WANTED.iter().find(|wanted| is_of(series, wanted));
        if let Some((known, value)) = known.zip(value.parse::<f64>().ok()) {
            *found.entry((*known).to_owned()).or_default() += value;
        }
    }
    found
}

fn is_of(series: &str, wanted: &str) -> bool {
    let split = |text| -> (&str, &str) { str::split_once(text, '{').unwrap_or((text, "")) };
    let ((name, labels), (wanted, label)) = (split(series), split(wanted));
    name == wanted && labels.contains(label.trim_end_matches('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_pages_are_summed_and_other_series_left_out() {
        let one = "# TYPE eventicket_sagas_ended_total counter\n\
            eventicket_sagas_ended_total{definition=\"booking\",state=\"completed\"} 3\n\
            eventicket_sagas_ended_total{definition=\"booking\",state=\"compensated\"} 2\n\
            eventicket_sagas_ended_total{definition=\"other\",state=\"compensated\"} 5\n\
            eventicket_mails_waiting_more 9\n";
        let pages = [one.to_owned(), "eventicket_mails_waiting 7".to_owned()];
        let expected = [(SAGAS_COMPENSATED.to_owned(), 7.0), (MAILS_WAITING.to_owned(), 7.0)];
        assert_eq!(figures(&pages), expected.into());
    }
}
