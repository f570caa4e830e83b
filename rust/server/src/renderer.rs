//! Renders what goes through all models on a thread of its own: for ten thousand it takes a second, and has megabytes.
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
pub(crate) struct Renderer(Sender<oneshot::Sender<Bytes>>);

impl Renderer {
    /// Starts the thread, called `name`; `failed` is told of panics.
    pub(crate) fn start(
        name: &str,
        render: impl Fn() -> Vec<u8> + Send + 'static,
        failed: impl Fn(&str) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, asked) = channel();
        let run = move || render_for(&asked, &render, &failed);
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self(sender))
    }

    /// A text that was rendered after this was called, or the youngest if too much is held; `None` if rendering failed.
    pub(crate) async fn text(&self) -> Option<Bytes> {
        self.ask()?.await.ok()
    }

    /// As [`Self::text`], for whoever may not wait yet.
    pub(crate) fn ask(&self) -> Option<oneshot::Receiver<Bytes>> {
        let (sender, text) = oneshot::channel();
        self.0.send(sender).ok()?;
        Some(text)
    }
}

/// A text that lives until the last reader has it.
struct Text(Arc<Vec<u8>>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn render_for(asked: &Receiver<oneshot::Sender<Bytes>>, render: &impl Fn() -> Vec<u8>, failed: &impl Fn(&str)) {
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
struct Held(Vec<Weak<Vec<u8>>>);

impl Held {
    fn text(&mut self, render: &impl Fn() -> Vec<u8>) -> Arc<Vec<u8>> {
        let held: Vec<Arc<Vec<u8>>> = self.0.iter().filter_map(Weak::upgrade).collect();
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
        let render = || vec![b'm'; HELD_BYTES / 2 + 1];
        let readers = [held.text(&render), held.text(&render)];
        assert!(!Arc::ptr_eq(&readers[0], &readers[1]));
        assert!(Arc::ptr_eq(&held.text(&render), &readers[1]), "the youngest");
        let [first, second] = readers;
        drop(first);
        assert!(!Arc::ptr_eq(&held.text(&render), &second), "there is room again");
    }

    #[test]
    fn those_who_ask_meanwhile_share_the_next_text() {
        let (begun, begins) = channel();
        let (release, released) = channel();
        let render = move || {
            begun.send(()).expect("the test waits");
            released.recv().expect("the test lets it go on");
            vec![b'm'; 1 << 20]
        };
        let renderer = Renderer::start("test", render, |_| ()).expect("a thread");
        let first = renderer.ask().expect("alive");
        begins.recv().expect("the first is rendered");
        let later: Vec<_> = (0..10).map(|_| renderer.ask().expect("alive")).collect();
        for _ in 0..2 {
            release.send(()).expect("it waits");
        }
        let text = first.blocking_recv().expect("rendered");
        let texts: Vec<_> = later.into_iter().map(|text| text.blocking_recv().expect("rendered")).collect();
        assert!(texts.iter().all(|other| other.as_ptr() == texts[0].as_ptr()), "one text for all");
        assert_ne!(text.as_ptr(), texts[0].as_ptr(), "what was begun before they asked may be too old");
    }

    #[test]
    fn nothing_is_rendered_for_those_who_have_left() {
        let renderings = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (counted, (release, released)) = (Arc::clone(&renderings), channel::<()>());
        let render = move || {
            let _ = released.recv();
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Vec::new()
        };
        let renderer = Renderer::start("test", render, |_| ()).expect("a thread");
        let first = renderer.ask().expect("alive");
        for _ in 0..10 {
            drop(renderer.ask());
        }
        drop(release);
        first.blocking_recv().expect("rendered");
        renderer.ask().expect("alive").blocking_recv().expect("rendered");
        assert!(renderings.load(std::sync::atomic::Ordering::SeqCst) <= 2);
    }

    #[test]
    fn a_rendering_that_panics_fails_those_who_asked_and_nobody_after() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let failed = std::sync::atomic::AtomicBool::new(false);
        let render = move || {
            assert!(failed.swap(true, std::sync::atomic::Ordering::SeqCst), "the first time");
            b"text".to_vec()
        };
        let renderer = Renderer::start("test", render, |what| assert_eq!(what, "the first time"));
        let renderer = renderer.expect("a thread");
        assert_eq!(runtime.block_on(renderer.text()), None);
        assert_eq!(runtime.block_on(renderer.text()).as_deref(), Some(&b"text"[..]));
    }
}
