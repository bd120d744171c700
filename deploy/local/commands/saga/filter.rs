//! Which sagas, as flags.

use clap::builder::PossibleValuesParser;
use eventicket_contracts::sagas::ListSagas;
use eventicket_contracts::{CustomerId, EventId, Timestamp};

/// What `--state` may be.
const STATES: [&str; 10] = [
    "running",
    "waiting",
    "held",
    "paused",
    "compensating",
    "completed",
    "compensated",
    "abandoned",
    "attention",
    UNFINISHED,
];
/// Those that have not ended.
const UNFINISHED: &str = "unfinished";

/// All of these must hold.
#[derive(Clone, Debug, Default, PartialEq, clap::Args)]
pub struct Filter {
    /// By state; `unfinished` has not ended, `attention` waits for an operator
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    /// By kind, as `booking`
    #[arg(long)]
    kind: Option<String>,
    /// By the step that it is at, as `PAY`
    #[arg(long)]
    pub step: Option<String>,
    /// By event
    #[arg(long)]
    event: Option<EventId>,
    /// By the user it belongs to
    #[arg(long)]
    user: Option<CustomerId>,
    /// Started at or after this time, as `2027-01-12T09:30:00Z`
    #[arg(long)]
    from: Option<Timestamp>,
    /// Started before this time
    #[arg(long)]
    to: Option<Timestamp>,
    /// By idempotency key, or by how the id begins
    #[arg(long)]
    q: Option<String>,
}

impl Filter {
    /// Only those that have not ended, where no state is named.
    pub fn unfinished(self) -> Self {
        Self { state: Some(self.state.unwrap_or_else(|| UNFINISHED.to_owned())), ..self }
    }

    /// For the orchestrator, from the newest on.
    pub fn query(self) -> ListSagas {
        let Self { state, kind, step, event, user, from, to, q } = self;
        ListSagas { state, kind, step, event, user, from, to, q, ..ListSagas::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        filter: Filter,
    }

    fn parse(args: &[&str]) -> Result<Filter, clap::Error> {
        Cli::try_parse_from([&["saga"], args].concat()).map(|cli| cli.filter)
    }

    #[test]
    fn a_state_that_does_not_exist_is_an_error_that_lists_them() {
        let error = parse(&["--state", "runing"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(STATES.iter().all(|state| text.contains(state)), "{text}");
    }

    #[test]
    fn actions_are_for_unfinished_sagas_where_no_state_is_named() {
        let state = |args: &[&str]| parse(args).unwrap().unfinished().query().state.unwrap();
        assert_eq!(state(&["--kind", "booking"]), "unfinished");
        assert_eq!(state(&["--state", "completed"]), "completed");
        assert_eq!(parse(&[]).unwrap(), Filter::default(), "lists are of all");
    }
}
