//! The story of a run, to be read.

/// What happened, in order.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    tells: bool,
    entries: Vec<(i64, String, String)>,
}

impl Timeline {
    /// One that keeps what it is told, or nothing.
    pub(crate) fn new(tells: bool) -> Self {
        Self { tells, entries: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: i64, who: String, what: String) {
        if self.tells {
            self.entries.push((at, who, what));
        }
    }

    /// Number of its lines.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it tells nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl std::fmt::Display for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, who, what) in &self.entries {
            let seconds = *at as f64 / 1_000.0;
            writeln!(f, "{seconds:>12.3} s  {who:<16} {what}")?;
        }
        Ok(())
    }
}
