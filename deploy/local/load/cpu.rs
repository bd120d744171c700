//! CPU time by process, as the kernel accounts for it.

use std::collections::BTreeMap;

/// Clock ticks a second that `/proc` counts in; fixed in Linux' interface.
const TICKS: f64 = 100.0;

/// CPU seconds so far by the name of the program, over all processes of this machine with such a name.
pub fn seconds() -> BTreeMap<String, f64> {
    let mut by_name = BTreeMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else { return by_name };
    for process in processes.flatten() {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
        if let Some((name, seconds)) = read(&stat) {
            *by_name.entry(name).or_default() += seconds;
        }
    }
    by_name
}

/// CPU seconds of this process so far.
pub fn own() -> f64 {
    std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| read(&stat)).map_or(0.0, |(_, seconds)| seconds)
}

/// Name and CPU seconds of a line of `/proc/<pid>/stat`.
fn read(stat: &str) -> Option<(String, f64)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    ["postgres", "nats-server", "eventicket"].contains(&name).then(|| (name.to_owned(), ticks / TICKS))
}

/// What was spent between two looks.
pub fn since(before: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let spent = |(name, now): (String, f64)| {
        let spent = now - before.get(&name).copied().unwrap_or_default();
        (name, spent)
    };
    seconds().into_iter().map(spent).filter(|(_, s)| *s > 0.0).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_of_proc_is_read_whatever_stands_in_its_name() {
        let line = "42 (nats-server) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 9 0 1 0 0";
        assert_eq!(super::read(line), Some(("nats-server".into(), 2.0)));
        assert_eq!(super::read("42 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0"), None);
    }
}
