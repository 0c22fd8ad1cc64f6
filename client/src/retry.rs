//! How often, how long, and after which pause a call is tried again.

use std::time::Duration;

/// Bounds of the attempts of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Most attempts, the first included.
    pub attempts_max: u32,
    /// Longest time one attempt may take before another node is asked.
    pub attempt_timeout: Duration,
    /// Pause before the second attempt; each further one doubles it.
    pub pause_min: Duration,
    /// Longest pause that this side chooses.
    pub pause_max: Duration,
    /// Longest pause that a node may ask for.
    pub asked_pause_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            attempts_max: 40,
            attempt_timeout: Duration::from_secs(10),
            pause_min: Duration::from_millis(25),
            pause_max: Duration::from_secs(1),
            asked_pause_max: Duration::from_secs(5),
        }
    }
}

impl Policy {
    /// One attempt: every error reaches the caller.
    #[must_use]
    pub fn once() -> Self {
        Self { attempts_max: 1, attempt_timeout: Duration::MAX, ..Self::default() }
    }

    /// The pause after the attempt of this number (from 1): doubled each time, jittered between its half and its
    /// whole by `fraction` (0 to 1), and never shorter than what the node asked for.
    #[must_use]
    pub fn pause(&self, attempt: u32, asked: Option<Duration>, fraction: f64) -> Duration {
        let doubled = self.pause_min.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        let whole = doubled.min(self.pause_max);
        let jittered = whole.mul_f64(0.5 + fraction.clamp(0.0, 1.0) / 2.0);
        jittered.max(asked.unwrap_or_default().min(self.asked_pause_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_jitter_and_stay_in_bounds() {
        let ms = Duration::from_millis;
        let check = |attempt, asked, fraction, expected| {
            assert_eq!(Policy::default().pause(attempt, asked, fraction), expected);
        };
        check(1, None, 1.0, ms(25));
        check(1, None, 0.0, Duration::from_micros(12_500));
        check(2, None, 1.0, ms(50));
        check(5, None, 1.0, ms(400));
        check(7, None, 1.0, ms(1000));
        check(4_000_000_000, None, 1.0, ms(1000));
        check(1, Some(ms(300)), 0.5, ms(300));
        check(7, Some(ms(300)), 1.0, ms(1000));
        check(1, Some(Duration::from_secs(3600)), 0.5, ms(5000));
        check(1, None, f64::INFINITY, ms(25));
    }
}
