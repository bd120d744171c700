//! Which traces are recorded.

use std::sync::OnceLock;

use opentelemetry::trace::TraceId;

use super::Traceparent;

/// How the edge decides, by OpenTelemetry's names of samplers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// A trace that was begun elsewhere is kept where it was kept there.
    pub parent_based: bool,
    /// Share of the other ones that is kept, 0 to 1.
    pub ratio: f64,
}

static EXPORTED: OnceLock<Sampling> = OnceLock::new();

/// Says that spans of this process are exported; the first call counts.
pub fn export(sampling: Sampling) {
    let _ = EXPORTED.set(sampling);
}

/// Whether spans of this process are exported.
pub fn is_exported() -> bool {
    EXPORTED.get().is_some()
}

/// How traces are chosen that begin in this process; none is where nothing is exported.
pub fn sampling() -> Sampling {
    EXPORTED.get().copied().unwrap_or(Sampling { parent_based: true, ratio: 0.0 })
}

impl Sampling {
    /// From the values of `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG`. An argument alone is the ratio; what makes
    /// no sense keeps everything.
    pub fn read(sampler: Option<&str>, argument: Option<&str>) -> Self {
        let sampler = sampler.unwrap_or("parentbased_traceidratio");
        let argument = argument.and_then(|text| text.parse::<f64>().ok()).filter(|r| (0.0..=1.0).contains(r));
        let ratio = match sampler.trim_start_matches("parentbased_") {
            "always_off" => 0.0,
            "traceidratio" => argument.unwrap_or(1.0),
            _ => 1.0,
        };
        Self { parent_based: sampler.starts_with("parentbased_"), ratio }
    }

    /// Whether a trace is kept that comes from `parent`, or begins here. The same id always has the same verdict.
    pub fn keeps(&self, trace: TraceId, parent: Option<Traceparent>) -> bool {
        if let Some(parent) = parent.filter(|_| self.parent_based) {
            return parent.sampled;
        }
        let [.., a, b, c, d, e, f, g, h] = trace.to_bytes();
        let place = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 11;
        // Both are whole numbers below 2^53, which a double holds exactly.
        (place as f64) < self.ratio * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::SpanId;

    #[test]
    fn samplers_are_read_by_their_names_and_nonsense_keeps_everything() {
        for (sampler, argument, parent_based, ratio) in [
            (None, None, true, 1.0),
            (None, Some("0.25"), true, 0.25),
            (None, Some("2"), true, 1.0),
            (None, Some("many"), true, 1.0),
            (Some("parentbased_traceidratio"), Some("0"), true, 0.0),
            (Some("traceidratio"), Some("0.01"), false, 0.01),
            (Some("parentbased_always_off"), Some("0.5"), true, 0.0),
            (Some("always_on"), Some("0.5"), false, 1.0),
        ] {
            let read = Sampling::read(sampler, argument);
            assert_eq!(read, Sampling { parent_based, ratio }, "{sampler:?} {argument:?}");
        }
    }

    #[test]
    fn a_parents_verdict_stands_and_else_the_ratio_decides() {
        let one_in_four = Sampling { parent_based: true, ratio: 0.25 };
        let parent = |sampled| Some(Traceparent { trace: TraceId::from(1), span: SpanId::from(1), sampled });
        let late = TraceId::from(u128::MAX);
        assert!(one_in_four.keeps(late, parent(true)) && !one_in_four.keeps(TraceId::from(1), parent(false)));
        assert!(!Sampling { parent_based: false, ..one_in_four }.keeps(late, parent(true)));
        let kept = (0..10_000_u64).filter(|n| {
            let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            one_in_four.keeps(TraceId::from(u128::from(spread)), None)
        });
        assert!((2_400..2_600).contains(&kept.count()));
        assert!(Sampling { ratio: 1.0, ..one_in_four }.keeps(late, None));
        assert!(!Sampling { ratio: 0.0, ..one_in_four }.keeps(TraceId::from(1 << 64), None));
    }
}
