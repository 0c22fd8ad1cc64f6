//! The first failure of the storage, which is final, and who is told.

use std::{sync::OnceLock, thread};

use parking_lot::Mutex;

type Told = Box<dyn FnOnce(&str) + Send>;

/// Remembers the first failure and tells it once.
#[derive(Default)]
pub struct Failing {
    why: OnceLock<String>,
    told: Mutex<Option<Told>>,
}

impl Failing {
    /// Why nothing may be written any more; `None` while all is well.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.why.get().map(String::as_str)
    }

    /// Called once, from another thread, at the first failure; at once where there was one.
    pub fn on_failure(&self, callback: impl FnOnce(&str) + Send + 'static) {
        let mut told = self.told.lock();
        match self.why.get() {
            Some(why) => {
                drop(told);
                callback(why);
            }
            None => *told = Some(Box::new(callback)),
        }
    }

    /// Remembers a failure; the first one counts.
    pub fn fail(&self, why: &str) {
        let told = {
            let mut told = self.told.lock();
            if self.why.set(why.to_owned()).is_err() {
                return;
            }
            told.take()
        };
        if let Some(told) = told {
            let why = why.to_owned();
            // On a thread of its own: it may take its time, or come back here.
            thread::spawn(move || told(&why));
        }
    }
}
