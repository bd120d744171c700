//! CPU time and memory by process, as Linux accounts for them in `/proc`; elsewhere nothing is found.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Clock ticks a second that `/proc` counts in; fixed in Linux' interface.
const TICKS: f64 = 100.0;
/// Bytes of a page that `/proc` counts in.
const PAGE: u64 = 4_096;
/// What the platform's own process is called, the only one of services unless it runs with `--processes`.
pub const PLATFORM: &str = "eventicket";
/// What the generator is called.
pub const GENERATOR: &str = "load generator";
/// What processes are called that do not belong to the platform.
pub const OTHERS: &str = "other programs";
const POSTGRES: &str = "postgres";
const NATS: &str = "nats-server";

/// What a platform's processes have spent so far, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU seconds.
    pub cpu: BTreeMap<String, f64>,
    /// Bytes that are not shared; what PostgreSQL's processes share is counted once.
    pub memory: BTreeMap<String, u64>,
}

/// Looks at a platform's processes again and again: what ends between two looks keeps what it was last seen to have spent.
pub struct Processes {
    root: Option<u32>,
    named: HashMap<u32, String>,
    prefix: String,
    /// Name of each process seen, and its CPU seconds then.
    seen: HashMap<u32, (String, f64)>,
    spent: BTreeMap<String, f64>,
}

/// A line of `/proc/<pid>/stat`, as far as it is needed.
#[derive(Debug, PartialEq)]
struct Stat {
    name: String,
    parent: u32,
    cpu: f64,
}

impl Processes {
    /// Of the platform that the process `root` started; `named` are processes with a service each, `prefix` stands before
    /// the names of the databases. Without a platform on this machine only the generator is looked at.
    pub fn new(root: Option<u32>, named: &BTreeMap<String, u32>, prefix: &str) -> Self {
        let named = named.iter().map(|(name, pid)| (*pid, name.clone())).collect();
        Self { root, named, prefix: prefix.to_owned(), seen: HashMap::new(), spent: BTreeMap::new() }
    }

    /// Looks once.
    pub fn look(&mut self) -> Usage {
        let stats = stats();
        let mut memory = BTreeMap::new();
        let mut shared = 0;
        for (&pid, stat) in &stats {
            let name = match self.seen.get(&pid) {
                Some((name, _)) => name.clone(),
                None => self.name(pid, stat, &stats),
            };
            let before = self.seen.insert(pid, (name.clone(), stat.cpu)).map_or(0.0, |(_, cpu)| cpu);
            // A number that was given to another process starts anew.
            let more = if stat.cpu >= before { stat.cpu - before } else { stat.cpu };
            *self.spent.entry(name.clone()).or_default() += more;
            if name != OTHERS
                && let Some((own, common)) = memory_of(pid)
            {
                *memory.entry(group(&name).to_owned()).or_default() += own;
                if stat.name == POSTGRES {
                    shared = shared.max(common);
                }
            }
        }
        self.seen.retain(|pid, _| stats.contains_key(pid));
        if shared > 0 {
            *memory.entry(POSTGRES.to_owned()).or_default() += shared;
        }
        Usage { cpu: self.spent.clone(), memory }
    }

    fn name(&self, pid: u32, stat: &Stat, all: &HashMap<u32, Stat>) -> String {
        if pid == std::process::id() {
            return GENERATOR.to_owned();
        }
        if !self.belongs(pid, stat, all) {
            return OTHERS.to_owned();
        }
        match stat.name.as_str() {
            POSTGRES => std::fs::read(format!("/proc/{pid}/cmdline"))
                .map_or_else(|_| POSTGRES.to_owned(), |title| postgres(&String::from_utf8_lossy(&title), &self.prefix)),
            NATS => NATS.to_owned(),
            _ if Some(pid) == self.root && !self.named.is_empty() => "launcher".to_owned(),
            _ if Some(pid) == self.root => PLATFORM.to_owned(),
            name => self.named.get(&pid).cloned().unwrap_or_else(|| name.to_owned()),
        }
    }

    /// Whether it descends from the platform, or is a server of this machine and the platform has none of its own.
    fn belongs(&self, pid: u32, stat: &Stat, all: &HashMap<u32, Stat>) -> bool {
        let Some(root) = self.root else { return false };
        let descends = |mut pid: u32| {
            // As deep as processes may be nested; no ring of parents can be seen in one look, but between two reads.
            for _ in 0..64 {
                if pid == root {
                    return true;
                }
                match all.get(&pid) {
                    Some(stat) => pid = stat.parent,
                    None => return false,
                }
            }
            false
        };
        if descends(pid) {
            return true;
        }
        let is_server = stat.name == POSTGRES || stat.name == NATS;
        is_server && !all.iter().any(|(&other, its)| its.name == stat.name && descends(other))
    }
}

/// All processes of the machine.
fn stats() -> HashMap<u32, Stat> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let stat = |pid: u32| read(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|stat| (pid, stat));
    pids.filter_map(stat).collect()
}

/// Reads a line of `/proc/<pid>/stat`.
fn read(line: &str) -> Option<Stat> {
    let (name, rest) = line.split_once('(')?.1.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(Stat { name: name.to_owned(), parent: fields.get(1)?.parse().ok()?, cpu: ticks / TICKS })
}

/// What a process of PostgreSQL is called: by its database, or by what it does.
fn postgres(title: &str, prefix: &str) -> String {
    let title = title.trim_end_matches('\0');
    let Some(what) = title.strip_prefix("postgres: ") else { return "postgres".to_owned() };
    let words: Vec<&str> = what.split(' ').collect();
    let database = match words.as_slice() {
        // user, database, address, command
        [_, database, address, ..] if address.contains('(') || *address == "[local]" => database,
        ["autovacuum", "worker", ..] => return "postgres autovacuum".to_owned(),
        ["io", "worker", ..] => return "postgres io worker".to_owned(),
        _ => return format!("postgres {}", what.trim()),
    };
    format!("postgres {}", database.strip_prefix(prefix).unwrap_or(database))
}

/// Under which name memory is told: PostgreSQL's processes together.
fn group(name: &str) -> &str {
    name.split_once(' ').filter(|(first, _)| *first == POSTGRES).map_or(name, |(first, _)| first)
}

/// Bytes of its own, and shared ones.
fn memory_of(pid: u32) -> Option<(u64, u64)> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("statm")).ok()?;
    let mut pages = text.split_whitespace().skip(1).map_while(|n| n.parse::<u64>().ok());
    let (resident, shared) = (pages.next()?, pages.next()?);
    Some((resident.saturating_sub(shared) * PAGE, shared * PAGE))
}

/// CPU seconds of this process's threads by their names, the most expensive first.
pub fn threads(pid: u32) -> BTreeMap<String, f64> {
    let mut by_name = BTreeMap::new();
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return by_name };
    for thread in threads.flatten() {
        if let Some(stat) = std::fs::read_to_string(thread.path().join("stat")).ok().and_then(|line| read(&line)) {
            *by_name.entry(stat.name).or_default() += stat.cpu;
        }
    }
    by_name
}

/// Share of all cores of the machine that were busy between two looks, and their number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cores {
    busy: f64,
    all: f64,
}

impl Cores {
    /// So far.
    pub fn look() -> Self {
        std::fs::read_to_string("/proc/stat").ok().and_then(|text| Self::read(&text)).unwrap_or_default()
    }

    fn read(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<f64> = line.split_whitespace().map_while(|n| n.parse().ok()).take(8).collect();
        let all: f64 = ticks.iter().sum();
        // Idle, and waiting for a disk.
        let idle = ticks.get(3)? + ticks.get(4)?;
        Some(Self { busy: (all - idle) / TICKS, all: all / TICKS })
    }

    /// The busy share since an earlier look.
    pub fn since(self, before: Self) -> f64 {
        (self.busy - before.busy) / (self.all - before.all).max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_read_whatever_stands_in_its_name() {
        let line = "42 (nats) (x) S 7 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 9 0 1 0 0";
        assert_eq!(read(line), Some(Stat { name: "nats) (x".into(), parent: 7, cpu: 2.0 }));
        assert_eq!(read("42 (a) S 1"), None);
    }

    #[test]
    fn processes_of_postgresql_are_told_apart() {
        let named = |title: &str| postgres(title, "shop_");
        assert_eq!(named("postgres: postgres shop_bookings 127.0.0.1(4711) COMMIT\0\0"), "postgres bookings");
        assert_eq!(named("postgres: postgres other [local] idle"), "postgres other");
        assert_eq!(named("postgres: walwriter "), "postgres walwriter");
        assert_eq!(named("postgres: io worker 2"), "postgres io worker");
        assert_eq!(named("/usr/lib/postgresql/18/bin/postgres\0-D\0data"), "postgres");
        assert_eq!((group("postgres bookings"), group("load generator")), ("postgres", "load generator"));
    }

    #[test]
    fn busy_time_is_what_is_neither_idle_nor_waiting() {
        let before = Cores::read("cpu  100 0 100 700 100 0 0 0 0 0\n").unwrap();
        let after = Cores::read("cpu  150 0 150 750 150 0 0 0 0 0\n").unwrap();
        assert!((after.since(before) - 0.5).abs() < 1e-9);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_the_generator_and_its_work_is_counted() {
        let mut processes = Processes::new(None, &BTreeMap::new(), "");
        let before = processes.look().cpu[GENERATOR];
        while processes.look().cpu[GENERATOR] <= before {
            std::hint::black_box((0..100_000).sum::<u64>());
        }
        assert!(processes.look().memory[GENERATOR] > 0);
    }
}
