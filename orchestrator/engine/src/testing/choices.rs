//! Decisions of a test: every combination in turn, or drawn from a seed.

/// Decides among alternatives.
#[derive(Clone, Debug)]
pub struct Choices(Mode);

#[derive(Clone, Debug)]
enum Mode {
    /// The choices made so far with the number of alternatives of each; the first `replay` are given.
    Every { made: Vec<(usize, usize)>, next: usize },
    /// The state of a SplitMix64 generator.
    Random(u64),
}

impl Choices {
    /// The first of all combinations; [`Self::advance`] leads to the others.
    pub fn every() -> Self {
        Self(Mode::Every { made: Vec::new(), next: 0 })
    }

    /// Drawn from a seed.
    pub fn random(seed: u64) -> Self {
        Self(Mode::Random(seed))
    }

    /// One of 0 to `n` - 1; 0 where `n` is 0.
    pub fn choose(&mut self, n: usize) -> usize {
        match &mut self.0 {
            Mode::Every { made, next } => {
                if *next == made.len() {
                    made.push((0, n));
                }
                *next += 1;
                made[*next - 1].0
            }
            Mode::Random(_) => usize::try_from(self.noise() % (n.max(1) as u64)).unwrap_or(0),
        }
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.choose(n) == 0
    }

    /// Any number; 0 where every combination is tried.
    pub fn noise(&mut self) -> u64 {
        let Mode::Random(state) = &mut self.0 else { return 0 };
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// The next combination; false after the last one. Random choices go on for ever.
    pub fn advance(&mut self) -> bool {
        let Mode::Every { made, next } = &mut self.0 else { return true };
        *next = 0;
        while let Some((choice, n)) = made.pop() {
            if choice + 1 < n {
                made.push((choice + 1, n));
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_comes_once() {
        let mut choices = Choices::every();
        let mut seen = Vec::new();
        loop {
            let first = choices.choose(2);
            // Alternatives may depend on earlier choices.
            seen.push((first, if first == 0 { choices.choose(3) } else { 9 }));
            if !choices.advance() {
                break;
            }
        }
        assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 9)]);
    }
}
