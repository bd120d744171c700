//! What a run is asked for.

use std::path::PathBuf;

use clap::Parser as _;

/// The variable with the arguments of a run; [`tests/chaos/run`] sets it from its own.
const VARIABLE: &str = "CHAOS";

/// The platform under load and faults.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "tests/chaos/run", no_binary_name = true)]
pub struct Order {
    /// Draws the faults: the same ones each time
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many faults
    #[arg(long, default_value_t = 200)]
    pub faults: usize,
    /// Bookings a second
    #[arg(long, default_value_t = 300.0)]
    pub rate: f64,
    /// Seconds that tickets are held
    #[arg(long, default_value_t = 20)]
    pub hold: u32,
    /// Another build of the platform than the one of this test
    #[arg(long, default_value = env!("CARGO_BIN_EXE_eventicket"), hide_default_value = true)]
    pub binary: PathBuf,
    /// Write what came out as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Put the table into tests/chaos/README.md
    #[arg(long)]
    pub readme: bool,
}

impl Order {
    /// The one of `cargo test`, where the platform is a debug build.
    pub fn short() -> Self {
        Self::parse_from(["--faults", "10", "--rate", "60", "--hold", "8"])
    }

    /// The one of the environment; ends the process where it cannot be read.
    pub fn given() -> Self {
        let arguments = std::env::var(VARIABLE).unwrap_or_default();
        Self::parse_from(arguments.split_whitespace())
    }
}
