//! Processes of the platform under test, by their ids only: other platforms may run on the machine.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sends a signal to a process; one that is gone already is no error.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

/// The process whose id is the first line of a server's own file.
pub fn of_file(file: &Path) -> anyhow::Result<Pid> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).filter(|pid| *pid > 1);
    pid.map(Pid::from_raw).with_context(|| format!("{} names no process", file.display()))
}

/// Children of a process, the oldest first.
pub fn children(parent: Pid) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut children: Vec<i32> = pids.filter(|pid| parent_of(*pid) == Some(parent.as_raw())).collect();
    children.sort_unstable();
    children.into_iter().map(Pid::from_raw).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    // Behind the name, which may hold anything: state, parent.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Stopped processes, which go on when this is dropped, however that comes about.
pub struct Paused(Vec<Pid>);

impl Paused {
    /// Stops them.
    pub fn new(pids: Vec<Pid>) -> Self {
        pids.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
        Self(pids)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
    }
}

/// Waits until the process is gone, within a bound.
pub async fn gone(pid: Pid, mark: &str, within: Duration) -> bool {
    let ended = async {
        while eventicket_servers::is_running(pid.as_raw(), mark) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(within, ended).await.is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn state(pid: u32) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    }

    #[test]
    fn a_paused_child_is_found_stopped_and_goes_on() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(children(Pid::this()).contains(&pid));
        let paused = Paused::new(vec![pid]);
        while state(child.id()) != 'T' {
            std::thread::yield_now();
        }
        drop(paused);
        while state(child.id()) == 'T' {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
