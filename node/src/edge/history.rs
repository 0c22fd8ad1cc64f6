//! The last hour of calls: how many, how many failed, how many were refused, and how long they took.
//!
//! ```text
//! call ─► window: a bucket of its time +1, and +1 where it failed or was refused        (relaxed additions, no lock)
//!            └── every 10 s: taken and set to zero ─► a sample, one of 360              (the sampler's task)
//! ```
//!
//! The buckets grow by an eighth, so that a percentile is exact to an eighth whatever it is. A histogram of hdrhistogram has
//! to be borrowed to record into it, or wants a queue; what stands here is an array of counters.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rookery_proto::monitoring::v1::Sample;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::{
    clock::{Clock, SystemClock},
    edge::metrics::Metrics,
    limits,
    names::Timestamp,
};

/// Buckets to a doubling, as a power of two.
const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// Times from 2^28 µs (268 s) on share the last bucket; no call may take so long.
const TOP_BITS: u32 = 27;
const BUCKETS: usize = ((TOP_BITS - SUB_BITS + 2) as usize) * SUB as usize;

/// What became of a call, as far as an administrator cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Answered, be it that the document is not there.
    Answered,
    /// The node could not serve it.
    Failed,
    /// The caller was refused.
    Denied,
}

impl Fate {
    /// By the code of the answer.
    #[must_use]
    pub fn of(code: Code) -> Self {
        match code {
            Code::Ok
            | Code::Cancelled
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented => Self::Answered,
            Code::Unknown
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Self::Failed,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
        }
    }
}

/// The calls since the last sample, and the samples.
pub struct History {
    buckets: [AtomicU64; BUCKETS],
    failed: AtomicU64,
    denied: AtomicU64,
    /// The oldest first, by rising times. Never locked by a call.
    samples: Mutex<VecDeque<Sample>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            failed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            samples: Mutex::default(),
        }
    }
}

impl History {
    /// A call was answered.
    pub fn note(&self, code: Code, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get(bucket(us)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        match Fate::of(code) {
            Fate::Answered => {}
            Fate::Failed => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            Fate::Denied => {
                self.denied.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Makes a sample of the calls since the last one. `from` is the beginning of its ten seconds.
    fn close(&self, from: Timestamp, counted: Duration) {
        let counts: Vec<u64> =
            self.buckets.iter().map(|bucket| bucket.swap(0, Ordering::Relaxed)).collect();
        let calls = counts.iter().sum();
        // A call that is noted at this moment may be in a bucket of this sample and fail in the next one.
        let taken = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed).min(calls);
        let sample = Sample {
            from_unix_ms: from.0,
            duration_ms: u32::try_from(counted.as_millis()).unwrap_or(u32::MAX),
            calls,
            failed: taken(&self.failed),
            denied: taken(&self.denied),
            p50_us: percentile(&counts, calls, 50),
            p99_us: percentile(&counts, calls, 99),
        };
        self.keep(sample);
    }

    /// Whatever a clock that was set back has seen already is forgotten, so that times rise.
    fn keep(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        let from = sample.from_unix_ms;
        while samples.back().is_some_and(|last| last.from_unix_ms >= from) {
            samples.pop_back();
        }
        let kept = i64::try_from(limits::METRICS_KEPT.as_millis()).unwrap_or(i64::MAX);
        let oldest = from.saturating_sub(kept);
        while samples.front().is_some_and(|first| first.from_unix_ms <= oldest) {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The samples of the last hour, the oldest first.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.samples.lock().iter().cloned().collect()
    }
}

/// The bucket of a time.
fn bucket(us: u64) -> usize {
    let index = match us.checked_ilog2() {
        Some(bits) if bits >= SUB_BITS => {
            let shift = bits - SUB_BITS;
            u64::from(shift + 1) * SUB + ((us >> shift) - SUB)
        }
        Some(_) | None => us,
    };
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The middle of a bucket in microseconds.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    let from = (SUB + bucket % SUB) << shift;
    from + (1_u64 << shift) / 2
}

/// The time within which so many of a hundred calls were answered; 0 for none, and 1 at least.
fn percentile(counts: &[u64], calls: u64, percent: u64) -> u64 {
    let rank = calls.saturating_mul(percent).div_ceil(100);
    let mut seen = 0;
    for (bucket, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= rank && seen > 0 {
            return middle(bucket).max(1);
        }
    }
    0
}

/// How long until the next multiple of an interval, and where the interval before it begins. One that is closer than half
/// an interval is left out: this node has just begun, or just made the sample of it by a clock that was a moment ahead.
fn next_sample(now: Timestamp, every_ms: i64) -> (Duration, Timestamp) {
    let left = every_ms - now.0.rem_euclid(every_ms);
    let left = if left < every_ms / 2 { left + every_ms } else { left };
    let wait = Duration::from_millis(u64::try_from(left).unwrap_or(1));
    (wait, Timestamp(now.0.saturating_add(left).saturating_sub(every_ms)))
}

/// Makes the samples until `stop`: at the same times on every node, as far as their clocks agree.
pub async fn sample_regularly(metrics: Arc<Metrics>, stop: CancellationToken) {
    let every = i64::try_from(limits::METRICS_INTERVAL.as_millis()).unwrap_or(i64::MAX);
    let mut counted = Instant::now();
    loop {
        let (wait, from) = next_sample(SystemClock.wall(), every);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
        metrics.history.close(from, counted.elapsed());
        counted = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn last(history: &History) -> Sample {
        history.samples().last().cloned().unwrap_or_default()
    }

    #[test]
    fn a_bucket_is_an_eighth_wide_at_every_size() {
        let sizes = (0..27).flat_map(|bits| [(1 << bits) - 1, 1 << bits, 3 << bits]);
        for us in (0..5_000_u64).chain(sizes) {
            let middle = middle(bucket(us));
            let off = middle.abs_diff(us);
            assert!(off * 8 <= us.max(1), "{us} µs became {middle}");
        }
        for pair in (0..1_000_000_u64).step_by(7).collect::<Vec<_>>().windows(2) {
            assert!(bucket(pair[0]) <= bucket(pair[1]), "{pair:?}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(1 << TOP_BITS), BUCKETS - SUB as usize);
    }

    #[test]
    fn a_sample_tells_what_was_answered_since_the_last_one() {
        let history = History::default();
        history.close(Timestamp(0), ms(3_000));
        assert_eq!(last(&history), Sample { duration_ms: 3_000, ..Sample::default() });
        for n in 0..100 {
            let code = match n {
                0..3 => Code::PermissionDenied,
                3..5 => Code::Unavailable,
                5..9 => Code::NotFound,
                _ => Code::Ok,
            };
            history.note(code, if n == 99 { ms(800) } else { ms(2) });
        }
        history.close(Timestamp(10_000), ms(10_000));
        let sample = last(&history);
        assert_eq!((sample.calls, sample.failed, sample.denied), (100, 2, 3));
        assert!((1_800..=2_200).contains(&sample.p50_us), "{sample:?}");
        assert!((1_800..=2_200).contains(&sample.p99_us), "99 of 100 took 2 ms: {sample:?}");
        history.note(Code::Ok, ms(800));
        history.close(Timestamp(20_000), ms(10_000));
        let sample = last(&history);
        assert_eq!((sample.calls, sample.failed, sample.denied), (1, 0, 0));
        assert!((700_000..=900_000).contains(&sample.p50_us) && sample.p99_us == sample.p50_us);
        history.note(Code::Ok, Duration::ZERO);
        history.close(Timestamp(30_000), ms(10_000));
        assert_eq!(last(&history).p50_us, 1, "a call takes some time, however short");
    }

    #[test]
    fn an_hour_is_kept_and_times_rise() {
        let history = History::default();
        let times = |history: &History| -> Vec<i64> {
            history.samples().iter().map(|it| it.from_unix_ms).collect()
        };
        (0..1_000).for_each(|n| history.close(Timestamp(n * 10_000), ms(10_000)));
        let kept = times(&history);
        assert_eq!((kept.len(), kept[0], kept[359]), (360, 6_400_000, 9_990_000));
        // The clock is set back: what it had seen is forgotten.
        history.close(Timestamp(9_000_000), ms(10_000));
        let kept = times(&history);
        assert!(kept.is_sorted() && kept.last() == Some(&9_000_000) && kept.len() == 261);
        // And forward: so is all that is older than an hour then.
        history.close(Timestamp(90_000_000), ms(10_000));
        assert_eq!(times(&history), [90_000_000]);
    }

    #[test]
    fn samples_begin_at_round_times() {
        for (now, wait, from) in [
            (0, 10_000, 0),
            (1, 9_999, 0),
            (9_999, 10_001, 10_000),
            (5_000, 5_000, 0),
            (5_001, 14_999, 10_000),
            (10_000, 10_000, 10_000),
            (1_795_334_404_321, 5_679, 1_795_334_400_000),
            (-1, 10_001, 0),
        ] {
            assert_eq!(next_sample(Timestamp(now), 10_000), (ms(wait), Timestamp(from)), "{now}");
        }
    }
}
