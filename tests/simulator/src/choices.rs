//! The decisions of a run: drawn from a seed, or given. Whatever was decided is kept, so that a run can be repeated, made
//! shorter, and varied. 0 is the most ordinary alternative everywhere, and what follows where nothing is given any more.

/// Where decisions come from.
#[derive(Clone, Debug)]
enum Source {
    /// The state of a SplitMix64 generator.
    Random(u64),
    /// These, one after the other, then 0.
    Given(Vec<u32>),
}

/// One decision: which of how many alternatives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Made {
    /// Below `of`.
    pub value: u32,
    /// Alternatives.
    pub of: u32,
}

/// Decides among alternatives.
#[derive(Clone, Debug)]
pub struct Choices {
    source: Source,
    made: Vec<Made>,
}

impl Choices {
    /// Drawn from a seed.
    pub fn random(seed: u64) -> Self {
        Self { source: Source::Random(seed), made: Vec::new() }
    }

    /// Given, then ordinary.
    pub fn given(values: Vec<u32>) -> Self {
        Self { source: Source::Given(values), made: Vec::new() }
    }

    /// One of 0 to `of` - 1; 0 where there is no choice.
    pub fn choose(&mut self, of: u32) -> u32 {
        if of <= 1 {
            return 0;
        }
        let value = match &mut self.source {
            Source::Random(state) => u32::try_from(noise(state) % u64::from(of)).unwrap_or(0),
            Source::Given(values) => values.get(self.made.len()).map_or(0, |value| value % of),
        };
        self.made.push(Made { value, of });
        value
    }

    /// What was decided so far.
    pub fn made(&self) -> &[Made] {
        &self.made
    }
}

/// The next number of a SplitMix64 generator.
fn noise(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_can_be_given() {
        let mut drawn = Choices::random(7);
        let first: Vec<u32> = (2..50).map(|of| drawn.choose(of)).collect();
        let mut given = Choices::given(drawn.made().iter().map(|made| made.value).collect());
        assert_eq!((2..50).map(|of| given.choose(of)).collect::<Vec<_>>(), first);
        assert_eq!(given.choose(9), 0, "then ordinary");
        assert_eq!(given.choose(1), 0, "no choice is none");
    }
}
