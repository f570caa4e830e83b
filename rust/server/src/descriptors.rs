//! File descriptors that are kept back for the metrics port: probes are answered also when the process has no others left.

use std::fs::File;
use std::io;

use parking_lot::Mutex;

/// Kept back. A probe needs one for a moment.
const RESERVE: usize = 16;

/// The descriptors, each one open on nothing.
#[derive(Debug)]
pub(crate) struct Reserve(Mutex<Vec<File>>);

impl Reserve {
    /// Takes them; fewer if there are not so many.
    pub(crate) fn take() -> Self {
        let reserve = Self(Mutex::default());
        reserve.refill();
        reserve
    }

    /// Gives one back to the system, for whoever opens the next one.
    pub(crate) fn give_up_one(&self) -> bool {
        self.0.lock().pop().is_some()
    }

    /// Takes what is missing. Returns whether the reserve is whole: while it is not, only probes may open anything.
    pub(crate) fn refill(&self) -> bool {
        let mut files = self.0.lock();
        while files.len() < RESERVE {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                Err(_) => return false,
            }
        }
        true
    }
}

/// Whether `error` says that there are no descriptors left, in this process or on this machine.
pub(crate) fn are_spent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_given_up_one_by_one_and_taken_again() {
        let reserve = Reserve::take();
        for _ in 0..RESERVE {
            assert!(reserve.give_up_one());
        }
        assert!(!reserve.give_up_one());
        assert!(reserve.refill());
        assert!(reserve.give_up_one());
    }

    #[test]
    fn spent_descriptors_are_told_from_other_errors() {
        assert!(are_spent(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!are_spent(&io::Error::from_raw_os_error(libc::ECONNABORTED)));
    }
}
