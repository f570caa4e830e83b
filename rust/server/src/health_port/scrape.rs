//! Renders metrics on a thread of its own: a text of ten thousand models takes a second, which probes must not wait.
//!
//! Whoever asks while a text is being rendered shares the next one. Texts that slow readers hold are bounded: above the
//! bound everybody gets the youngest text that somebody still holds.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::panics;

/// Bytes of texts that readers may hold before no more are made: some of a server with ten thousand models.
const HELD_BYTES: usize = 256 << 20;

/// The way to the thread that renders; it ends with this.
#[derive(Debug)]
pub(super) struct Scraper(Sender<oneshot::Sender<Bytes>>);

impl Scraper {
    /// Starts the thread; `failed` is told of panics.
    pub(super) fn start(
        render: impl Fn() -> String + Send + 'static,
        failed: impl Fn(&str) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, asked) = channel();
        let run = move || render_for(&asked, &render, &failed);
        std::thread::Builder::new().name("metrics".to_owned()).spawn(run)?;
        Ok(Self(sender))
    }

    /// A text that was rendered after this was called, or the youngest if too much is held; `None` if rendering failed.
    pub(super) async fn scrape(&self) -> Option<Bytes> {
        let (sender, text) = oneshot::channel();
        self.0.send(sender).ok()?;
        text.await.ok()
    }
}

/// A text that lives until the last reader has it.
struct Text(Arc<String>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

fn render_for(asked: &Receiver<oneshot::Sender<Bytes>>, render: &impl Fn() -> String, failed: &impl Fn(&str)) {
    let mut held = Held::default();
    while let Ok(first) = asked.recv() {
        let askers: Vec<_> =
            std::iter::once(first).chain(asked.try_iter()).filter(|asker| !asker.is_closed()).collect();
        if askers.is_empty() {
            continue;
        }
        let text = match catch_unwind(AssertUnwindSafe(|| held.text(render))) {
            Ok(text) => text,
            Err(payload) => {
                // Whoever asked is told by the sender's drop; the next one may have more luck.
                failed(&panics::text(&*payload));
                continue;
            }
        };
        for asker in askers {
            drop(asker.send(Bytes::from_owner(Text(Arc::clone(&text)))));
        }
    }
}

/// The texts that readers hold, the youngest last.
#[derive(Default)]
struct Held(Vec<Weak<String>>);

impl Held {
    fn text(&mut self, render: &impl Fn() -> String) -> Arc<String> {
        let held: Vec<Arc<String>> = self.0.iter().filter_map(Weak::upgrade).collect();
        let bytes: usize = held.iter().map(|text| text.len()).sum();
        if bytes > HELD_BYTES
            && let Some(youngest) = held.last()
        {
            return Arc::clone(youngest);
        }
        let text = Arc::new(render());
        self.0.retain(|text| text.strong_count() > 0);
        self.0.push(Arc::downgrade(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_held_are_bounded() {
        let mut held = Held::default();
        let render = || "m".repeat(HELD_BYTES / 2 + 1);
        let readers = [held.text(&render), held.text(&render)];
        assert!(!Arc::ptr_eq(&readers[0], &readers[1]));
        assert!(Arc::ptr_eq(&held.text(&render), &readers[1]), "the youngest");
        let [first, second] = readers;
        drop(first);
        assert!(!Arc::ptr_eq(&held.text(&render), &second), "there is room again");
    }

    #[test]
    fn a_rendering_that_panics_fails_those_who_asked_and_nobody_after() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let failed = std::sync::atomic::AtomicBool::new(false);
        let render = move || {
            assert!(failed.swap(true, std::sync::atomic::Ordering::SeqCst), "the first time");
            "text".to_owned()
        };
        let scraper = Scraper::start(render, |what| assert_eq!(what, "the first time"));
        let scraper = scraper.expect("a thread");
        assert_eq!(runtime.block_on(scraper.scrape()), None);
        assert_eq!(runtime.block_on(scraper.scrape()).as_deref(), Some(&b"text"[..]));
    }
}
