//! What a piece of work costs: CPU time of a process and of PostgreSQL, bytes of WAL, transactions.

use std::collections::HashMap;
use std::fs;

use sqlx::{PgPool, Row as _};

/// Microseconds of one tick of `/proc/<pid>/stat`; Linux counts a hundred in a second.
const TICK: u64 = 10_000;

/// Counters when the work began.
pub struct Meter {
    pool: PgPool,
    process: u32,
    begun: Counters,
}

/// What was spent meanwhile.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time of the process, in us.
    pub process: u64,
    /// CPU time of the database's sessions, in us.
    pub sessions: u64,
    /// CPU time of PostgreSQL's other processes, in us: writers of WAL and pages, vacuum.
    pub writers: u64,
    /// Bytes of WAL, of all databases.
    pub wal: u64,
    /// Transactions of the database that were committed; a session's are counted up to a second late.
    pub commits: u64,
}

struct Counters {
    process: u64,
    sessions: HashMap<i32, u64>,
    writers: HashMap<i32, u64>,
    wal: i64,
    commits: i64,
}

impl Meter {
    /// Begins to count for a process and for the database that it works with.
    pub async fn begin(database: PgPool, process: u32) -> Result<Self, sqlx::Error> {
        let begun = Counters::read(&database, process).await?;
        Ok(Self { pool: database, process, begun })
    }

    /// What was spent since. Sessions that ended meanwhile are not counted.
    pub async fn usage(&self) -> Result<Usage, sqlx::Error> {
        let (before, now) = (&self.begun, Counters::read(&self.pool, self.process).await?);
        let spent = |before: &HashMap<i32, u64>, now: &HashMap<i32, u64>| {
            now.iter().map(|(pid, cpu)| cpu.saturating_sub(before.get(pid).copied().unwrap_or(0))).sum()
        };
        Ok(Usage {
            process: now.process.saturating_sub(before.process),
            sessions: spent(&before.sessions, &now.sessions),
            writers: spent(&before.writers, &now.writers),
            wal: u64::try_from(now.wal - before.wal).unwrap_or(0),
            commits: u64::try_from(now.commits - before.commits).unwrap_or(0),
        })
    }
}

impl Counters {
    async fn read(pool: &PgPool, process: u32) -> Result<Self, sqlx::Error> {
        let backends = sqlx::query(
            "SELECT pid, datname IS NOT NULL AND backend_type = 'client backend' AS session FROM pg_stat_activity
             WHERE pid <> pg_backend_pid() AND (datname IS NULL OR datname = current_database())",
        )
        .fetch_all(pool)
        .await?;
        let (mut sessions, mut writers) = (HashMap::new(), HashMap::new());
        for row in &backends {
            let pid: i32 = row.try_get("pid")?;
            let kind = if row.try_get("session")? { &mut sessions } else { &mut writers };
            kind.insert(pid, cpu(&pid.to_string()));
        }
        let sums = sqlx::query(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint AS wal, xact_commit FROM pg_stat_database
             WHERE datname = current_database()",
        )
        .fetch_one(pool)
        .await?;
        let (wal, commits) = (sums.try_get("wal")?, sums.try_get("xact_commit")?);
        Ok(Self { process: cpu(&process.to_string()), sessions, writers, wal, commits })
    }
}

/// CPU time of a process so far, user's and system's, in us; 0 where it has ended.
fn cpu(process: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold blanks; user and system time are the 14th and 15th field.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields).split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * TICK
}
