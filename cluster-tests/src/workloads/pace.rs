//! How fast all clients together go: operations begin at fixed distances, whether earlier ones have ended or not (an open
//! loop), bounded by the number of clients.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How far behind its schedule a load may catch up; what is further behind is left out.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The schedule.
pub struct Pace(Mutex<Schedule>);

struct Schedule {
    distance: Option<Duration>,
    next: Instant,
}

fn distance(per_second: Option<f64>) -> Option<Duration> {
    let per_second = per_second.filter(|rate| *rate > 0.0)?;
    Some(Duration::from_secs_f64(1.0 / per_second))
}

impl Pace {
    /// So many operations a second; `None`: no pause at all.
    #[must_use]
    pub fn new(per_second: Option<f64>) -> Self {
        Self(Mutex::new(Schedule { distance: distance(per_second), next: Instant::now() }))
    }

    /// Another speed from now on.
    pub fn set(&self, per_second: Option<f64>) {
        let schedule = &mut *self.0.lock();
        (schedule.distance, schedule.next) = (distance(per_second), Instant::now());
    }

    /// Waits for the turn of one operation.
    pub async fn turn(&self) {
        let turn = {
            let schedule = &mut *self.0.lock();
            let Some(distance) = schedule.distance else { return };
            let earliest = Instant::now().checked_sub(CATCH_UP);
            let turn = earliest.map_or(schedule.next, |earliest| schedule.next.max(earliest));
            schedule.next = turn + distance;
            turn
        };
        tokio::time::sleep_until(turn.into()).await;
    }
}
