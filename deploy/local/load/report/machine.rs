//! Where a run was made: asked of the system and of git.

use serde::{Deserialize, Serialize};

/// Where it ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: usize,
    /// What they are.
    pub model: String,
    /// Version of this program.
    pub version: String,
    /// Of the working copy in the current folder, where there is one; `+` where files were changed since.
    pub commit: Option<String>,
    /// Whether the program was built with optimizations.
    pub release: bool,
}

/// The machine that this runs on.
pub fn machine() -> Machine {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Machine {
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        model: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.to_owned()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: commit(),
        release: !cfg!(debug_assertions),
    }
}

fn commit() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output =
            std::process::Command::new("git").args(arguments).output().ok().filter(|out| out.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    // What the suite writes about its runs before this one is no change of the program.
    let changed = [
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ":/",
        ":(top,exclude)tests/load/README.md",
        ":(top,exclude)tests/load/rush.svg",
    ];
    let changed = git(&changed).is_some_and(|changes| !changes.is_empty());
    Some(if changed { commit + "+" } else { commit })
}
