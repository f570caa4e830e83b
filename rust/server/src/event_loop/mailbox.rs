//! What a loop gets from other threads: deliveries, changes of the plan, pings; and the wake-up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mlserve_core::version::{Delivery, Mailbox};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A loop's mailbox.
#[derive(Debug, Default)]
pub(crate) struct LoopMailbox {
    deliveries: Mutex<Deliveries>,
    plan_changed: AtomicBool,
    ping: AtomicU64,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Deliveries {
    waiting: VecDeque<Delivery>,
    /// Nobody will fetch any more.
    is_closed: bool,
}

/// What has come since the last look. What is not taken out of it, because something panicked, goes back.
pub(super) struct Mail<'a> {
    mailbox: &'a LoopMailbox,
    pub(super) plan_changed: bool,
    pub(super) deliveries: VecDeque<Delivery>,
    pub(super) ping: u64,
}

impl Drop for Mail<'_> {
    fn drop(&mut self) {
        if !self.deliveries.is_empty() {
            self.mailbox.put_back(std::mem::take(&mut self.deliveries));
        }
    }
}

impl LoopMailbox {
    /// Waits until something comes.
    pub(super) async fn receive(&self) -> Mail<'_> {
        self.arrived.notified().await;
        Mail {
            mailbox: self,
            plan_changed: self.plan_changed.swap(false, Ordering::Acquire),
            deliveries: std::mem::take(&mut self.deliveries.lock().waiting),
            ping: self.ping.load(Ordering::Relaxed),
        }
    }

    #[cold]
    fn put_back(&self, mut deliveries: VecDeque<Delivery>) {
        let mut present = self.deliveries.lock();
        deliveries.append(&mut present.waiting);
        present.waiting = deliveries;
        drop(present);
        self.arrived.notify_one();
    }

    /// Asks the loop for a sign of life.
    pub(super) fn ping(&self, number: u64) {
        self.ping.store(number, Ordering::Relaxed);
        self.arrived.notify_one();
    }

    /// The loop has ended: what waits is dropped, as is everything that comes later. A delivery holds its version, and
    /// with it the model's weights.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut deliveries = self.deliveries.lock();
            deliveries.is_closed = true;
            std::mem::take(&mut deliveries.waiting)
        };
        drop(waiting);
    }
}

impl Mailbox for LoopMailbox {
    fn deliver(&self, delivery: Delivery) {
        let mut deliveries = self.deliveries.lock();
        if deliveries.is_closed {
            // What it holds may lock, too.
            drop(deliveries);
            return drop(delivery);
        }
        deliveries.waiting.push_back(delivery);
        drop(deliveries);
        self.arrived.notify_one();
    }

    fn plan_changed(&self) {
        self.plan_changed.store(true, Ordering::Release);
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::grpc::fixture;

    #[test]
    fn a_closed_mailbox_keeps_no_version_alive() {
        let mailbox: Arc<LoopMailbox> = Arc::default();
        let version = fixture::version(1, Arc::from([Arc::clone(&mailbox) as Arc<dyn Mailbox>]));
        let delivery = || Delivery { version: Arc::clone(&version), outcomes: Vec::new() };
        mailbox.deliver(delivery());
        assert_eq!(Arc::strong_count(&version), 2);
        mailbox.close();
        assert_eq!(Arc::strong_count(&version), 1, "what waited");
        mailbox.deliver(delivery());
        assert_eq!(Arc::strong_count(&version), 1, "what came later");
    }
}
