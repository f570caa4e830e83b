use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const LIMIT: Duration = Duration::from_secs(10);
const RATE: u64 = 1_000;

/// Writes to a reader that takes `step` bytes a second; how long until that is too slow, if it is before all is written.
async fn end_of(step: usize, len: usize) -> Option<Duration> {
    let (near, mut far) = tokio::io::duplex(64);
    let mut socket = Watched::new(Bytes::new(), near, Rc::default());
    let meter = Rc::clone(socket.meter());
    let reading = async move {
        let mut taken = vec![0; step];
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if step > 0 && far.read_exact(&mut taken).await.is_err() {
                break;
            }
        }
    };
    let begun = Instant::now();
    let writing = async {
        socket.write_all(&vec![0; len]).await.expect("open");
        socket.flush().await.expect("open");
    };
    tokio::select! {
        () = reading => None,
        () = writing => None,
        () = meter.too_slow(LIMIT, RATE) => Some(begun.elapsed()),
    }
}

/// A peer that keeps up with everything, and notes the most that it was given at once.
#[derive(Debug, Default)]
struct Tireless(usize);

impl AsyncRead for Tireless {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buffer.initialize_unfilled();
        buffer.advance(buffer.remaining());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tireless {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0 = self.0.max(bytes.len());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = slices.iter().map(|slice| slice.len()).sum();
        self.0 = self.0.max(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How often others had a turn meanwhile.
async fn turns_beside(moving: impl Future<Output = ()>) -> usize {
    let (mut moving, mut turns) = (pin!(moving), 0);
    poll_fn(|cx| {
        let moved = moving.as_mut().poll(cx);
        turns += usize::from(moved.is_pending());
        moved
    })
    .await;
    turns
}

#[tokio::test]
async fn whoever_moves_much_lets_others_have_their_turn() {
    let much = 16 * TURN_BYTES;
    let mut socket = Watched::new(Bytes::new(), Tireless::default(), Rc::default());
    // In pieces, as whoever reads has room for.
    let mut piece = vec![0; TURN_BYTES / 4];
    let reading = async {
        for _ in 0..64 {
            socket.read_exact(&mut piece).await.expect("open");
        }
    };
    assert!(turns_beside(reading).await >= 15, "read in one go");
    let writing = async { socket.write_all(&vec![0; much]).await.expect("open") };
    assert!(turns_beside(writing).await >= 15, "written in one go");
    let part = vec![0; TURN_BYTES / 2];
    let pieces = [&part; 32].map(|part| IoSlice::new(part));
    let writing = async {
        let mut left = &pieces[..];
        while !left.is_empty() {
            let written = socket.write_vectored(left).await.expect("open");
            left = &left[written / part.len()..];
        }
    };
    assert!(turns_beside(writing).await >= 15, "written in one go");
    assert_eq!(socket.socket.0, TURN_BYTES, "at once");
}

#[tokio::test]
async fn whoever_takes_long_over_what_it_reads_lets_others_have_their_turn() {
    let mut socket = Watched::new(Bytes::new(), Tireless::default(), Rc::default());
    let mut piece = vec![0; TURN_BYTES];
    let mut counts = Vec::new();
    let reading = async {
        for _ in 0..16 {
            counts.push(socket.read(&mut piece).await.expect("open"));
            std::thread::sleep(2 * TURN);
        }
    };
    assert_eq!(turns_beside(reading).await, 15, "read in one go");
    assert!(counts.is_sorted_by(|one, next| one >= next), "{counts:?}");
    assert_eq!(counts.last(), Some(&LEAST_PORTION), "at once");
}

#[tokio::test]
async fn what_is_done_between_polls_is_not_taken_for_the_cost_of_bytes() {
    let mut socket = Watched::new(Bytes::new(), Tireless::default(), Rc::default());
    let meter = Rc::clone(socket.meter());
    let mut piece = vec![0; TURN_BYTES / 2];
    let reading = meter.accompany(async {
        for _ in 0..16 {
            assert_eq!(socket.read(&mut piece).await.expect("open"), TURN_BYTES / 2);
            tokio::time::sleep(2 * TURN).await;
        }
    });
    reading.await;
}

#[tokio::test]
async fn a_run_before_the_answer_is_not_taken_for_the_cost_of_bytes() {
    let mut socket = Watched::new(Bytes::new(), Tireless::default(), Rc::default());
    let mut piece = vec![0; 2 * LEAST_PORTION];
    let answering = async {
        for _ in 0..16 {
            socket.read_exact(&mut piece).await.expect("open");
            std::thread::sleep(2 * TURN);
            socket.write_all(b"answer").await.expect("open");
        }
    };
    assert_eq!(turns_beside(answering).await, 0);
}

#[tokio::test]
async fn a_large_slice_behind_an_empty_one_is_written() {
    let mut socket = Watched::new(Bytes::new(), Tireless::default(), Rc::default());
    let large = vec![0; TURN_BYTES + 1];
    let written = socket.write_vectored(&[IoSlice::new(&[]), IoSlice::new(&large)]).await.expect("open");
    assert_eq!(written, TURN_BYTES);
}

#[tokio::test]
async fn whoever_moves_little_is_not_interrupted() {
    let mut socket = Watched::new(Bytes::new(), Tireless::default(), Rc::default());
    let moving = async {
        for _ in 0..100 {
            socket.read_exact(&mut [0; 1_000]).await.expect("open");
            socket.write_all(&[0; 1_000]).await.expect("open");
        }
    };
    assert_eq!(turns_beside(moving).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_and_one_that_trickles_are_too_slow() {
    let stopped = end_of(0, 10_000).await.expect("it takes nothing");
    assert!(stopped >= LIMIT && stopped < 2 * LIMIT, "{stopped:?}");
    let trickling = end_of(100, 100_000).await.expect("it takes a tenth of what it should");
    assert!(trickling > LIMIT && trickling < 2 * LIMIT, "{trickling:?}");
    assert_eq!(end_of(1_100, 100_000).await, None, "it takes a little more than it should");
}

#[tokio::test]
async fn the_sockets_of_others_are_looked_at_between_turns() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut sender = std::net::TcpStream::connect(address).expect("connects");
    let (mut other, _) = listener.accept().await.expect("accepts");
    let turns = Rc::new(Cell::new(0));
    let tasks = tokio::task::LocalSet::new();
    let counted = Rc::clone(&turns);
    tasks.spawn_local(async move {
        let mut socket = Watched::new(Bytes::new(), Tireless::default(), Rc::default());
        let mut piece = vec![0; TURN_BYTES];
        loop {
            socket.read_exact(&mut piece).await.expect("open");
            counted.set(counted.get() + 1);
        }
    });
    let asking = async {
        // Twice: the first time it may have been looked at already.
        for _ in 0..2 {
            std::io::Write::write_all(&mut sender, b"?").expect("open");
            turns.set(0);
            other.read_exact(&mut [0]).await.expect("open");
        }
    };
    tasks.run_until(asking).await;
    assert!(turns.get() < 10, "{} turns before others were looked at", turns.get());
}
