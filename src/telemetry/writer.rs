//! The writer of the log: a bounded queue in memory, and a thread that writes the queued lines.
//!
//! Whoever logs never waits for the output. A line that does not fit into the queue is dropped and counted, as is a line that
//! cannot be written. When the output works again, one line tells the two numbers.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvError, RecvTimeoutError, Sender, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// The maximum size of all queued lines together, in bytes: about 15,000 lines. A longer line is always dropped.
const MAX_QUEUED: usize = 4 * 1024 * 1024;

/// The time from a lost line to the line that tells the number of lost lines. It lets the output catch up first, and is the
/// minimum time between two such lines.
const REPORT_AFTER: Duration = Duration::from_secs(1);

/// The pause before another attempt to write to an output that is in non-blocking mode and full.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(10);

thread_local! {
    /// What this thread logs while it is set, instead of the queue.
    static CAPTURED: Cell<Option<Vec<u8>>> = const { Cell::new(None) };
}

/// The queue of the log. Each `write` of a `&LogQueue` queues one line, with its line break, and never fails or waits.
pub(super) struct LogQueue {
    messages: Sender<Message>,
    counters: Arc<Counters>,
    max_queued: usize,
}

enum Message {
    Line(Box<[u8]>),
    /// A request to confirm that every line before it was written, or could not be.
    Flush(SyncSender<()>),
}

#[derive(Default)]
struct Counters {
    /// The bytes of the queued lines.
    queued: AtomicUsize,
    /// The lines that did not fit, since the last report.
    dropped: AtomicU64,
    /// The lines that did not fit or could not be written, since the start.
    lost: AtomicU64,
}

/// The lines that were lost since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// The number of lines that did not fit into the queue.
    pub(super) dropped: u64,
    /// The number of lines that could not be written.
    pub(super) failed: u64,
}

impl LogQueue {
    /// Starts a thread that writes to `output`. `report` logs how many lines were lost, on that thread.
    ///
    /// # Errors
    /// If the system has no further thread.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        report: impl Fn(Lost) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let (queue, writer) = Self::new(output, report, MAX_QUEUED, REPORT_AFTER);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run())?;
        Ok(queue)
    }

    fn new<W: Write, R: Fn(Lost)>(
        output: W,
        report: R,
        max_queued: usize,
        report_after: Duration,
    ) -> (Arc<Self>, Writer<W, R>) {
        let (sender, messages) = mpsc::channel();
        let counters = Arc::<Counters>::default();
        let writer = Writer {
            messages,
            counters: Arc::clone(&counters),
            output,
            is_torn: false,
            failed: 0,
            report,
            report_after,
            report_at: None,
        };
        let queue = Self {
            messages: sender,
            counters,
            max_queued,
        };
        (Arc::new(queue), writer)
    }

    /// Queues a line even if the queue is full. For a last message before the exit.
    pub(super) fn push(&self, line: &[u8]) {
        self.counters
            .queued
            .fetch_add(line.len(), Ordering::Relaxed);
        self.send(line);
    }

    /// Queues a line if it fits.
    fn offer(&self, line: &[u8]) {
        let room = |queued: usize| {
            let queued = queued.checked_add(line.len())?;
            (queued <= self.max_queued).then_some(queued)
        };
        let queued = &self.counters.queued;
        if queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
            .is_ok()
        {
            self.send(line);
        } else {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of lines that were lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.counters.lost.load(Ordering::Relaxed)
    }

    fn send(&self, line: &[u8]) {
        // Without a receiver the thread has ended, and nobody can be told.
        let _ = self.messages.send(Message::Line(line.into()));
    }

    /// Waits until every line that was queued before is written, for at most `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let (done, flushed) = mpsc::sync_channel(1);
        if self.messages.send(Message::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(timeout);
        }
    }
}

impl Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match CAPTURED.take() {
            Some(mut captured) => {
                captured.extend(line);
                CAPTURED.set(Some(captured));
            }
            None => self.offer(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The thread's part of the queue.
struct Writer<W, R> {
    messages: Receiver<Message>,
    counters: Arc<Counters>,
    output: W,
    /// The last line was written in part, without its line break.
    is_torn: bool,
    /// The lines that could not be written, since the last report.
    failed: u64,
    report: R,
    report_after: Duration,
    /// When the next report is due; `None` while no lost line was noticed.
    report_at: Option<Instant>,
}

impl<W: Write, R: Fn(Lost)> Writer<W, R> {
    /// Writes lines until the queue is dropped.
    fn run(mut self) {
        loop {
            match self.next() {
                Ok(Message::Line(line)) => {
                    if self.write_line(&line).is_err() {
                        self.failed += 1;
                        self.counters.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    self.counters
                        .queued
                        .fetch_sub(line.len(), Ordering::Relaxed);
                }
                Ok(Message::Flush(done)) => {
                    self.report();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.report_at.is_some_and(|at| at <= Instant::now()) {
                self.report();
                self.report_at = None;
            }
            if self.report_at.is_none() && self.has_lost() {
                self.report_at = Some(Instant::now() + self.report_after);
            }
        }
    }

    fn has_lost(&self) -> bool {
        self.failed > 0 || self.counters.dropped.load(Ordering::Relaxed) > 0
    }

    fn next(&self) -> Result<Message, RecvTimeoutError> {
        match self.report_at {
            None => self
                .messages
                .recv()
                .map_err(|RecvError| RecvTimeoutError::Disconnected),
            Some(at) => self
                .messages
                .recv_timeout(at.saturating_duration_since(Instant::now())),
        }
    }

    /// Writes how many lines were lost. If that fails, the numbers are kept for the next report.
    fn report(&mut self) {
        let lost = Lost {
            dropped: self.counters.dropped.swap(0, Ordering::Relaxed),
            failed: std::mem::take(&mut self.failed),
        };
        if lost == Lost::default() {
            return;
        }
        // The log has a format that only its subscriber knows, so the line is logged like any other. It does not go through the
        // queue, where it could be lost itself.
        CAPTURED.set(Some(Vec::new()));
        (self.report)(lost);
        let line = CAPTURED.take().unwrap_or_default();
        if self.write_line(&line).is_err() {
            self.failed = lost.failed;
            self.counters
                .dropped
                .fetch_add(lost.dropped, Ordering::Relaxed);
        }
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write(b"\n")?;
            self.is_torn = false;
        }
        self.write(line)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let mut rest = line;
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    thread::sleep(WOULD_BLOCK_PAUSE);
                }
                Err(error) => {
                    self.is_torn |= rest.len() < line.len();
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// An output whose writes do what is planned, and then succeed.
    #[derive(Clone, Default)]
    struct Planned(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        plan: VecDeque<io::Result<usize>>,
        written: Vec<u8>,
    }

    impl Planned {
        fn plan(&self, outcomes: impl IntoIterator<Item = io::Result<usize>>) {
            self.0.lock().unwrap().plan.extend(outcomes);
        }

        fn written(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().written.clone()).unwrap()
        }
    }

    impl Write for Planned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().unwrap();
            let length = state.plan.pop_front().unwrap_or(Ok(bytes.len()))?;
            state.written.extend(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn full() -> io::Error {
        ErrorKind::StorageFull.into()
    }

    /// A queue of 30 bytes. Its reports are due at once.
    fn queue(output: &Planned) -> (Arc<LogQueue>, impl FnOnce() + use<>) {
        let report = |Lost { dropped, failed }| {
            let line = format!("lost {dropped} {failed}\n");
            CAPTURED.set(Some(line.into_bytes()));
        };
        let (queue, writer) = LogQueue::new(output.clone(), report, 30, Duration::ZERO);
        (queue, || writer.run())
    }

    fn log(mut queue: &LogQueue, line: &str) {
        assert_eq!(queue.write(line.as_bytes()).unwrap(), line.len());
    }

    /// Seen red without the bound, and without the call of `report`.
    #[test]
    fn lines_beyond_the_bound_are_dropped_and_one_line_after_the_blockage_tells_their_number() {
        let output = Planned::default();
        let (queue, write) = queue(&output);
        // Nothing is written yet, as when nobody reads the output.
        for i in 0..8 {
            log(&queue, &format!("line {i}..\n"));
        }
        // Three bytes of the bound are left.
        log(&queue, "123\n");
        log(&queue, "12\n");
        assert_eq!(output.written(), "");
        queue.push(b"last words\n");
        drop(queue);
        write();
        assert_eq!(
            output.written(),
            "line 0..\nline 1..\nlost 6 0\nline 2..\n12\nlast words\n"
        );
    }

    /// Seen red with a `flush` that does not wait: most lines are then dropped.
    #[test]
    fn there_is_room_again_when_lines_are_written() {
        let output = Planned::default();
        let (queue, write) = queue(&output);
        let thread = thread::spawn(write);
        for i in 0..100 {
            log(&queue, &format!("line {i:3} of a hundred\n"));
            queue.flush(Duration::MAX);
        }
        assert_eq!(output.written().lines().count(), 100);
        drop(queue);
        thread.join().unwrap();
    }

    /// Seen red with `write_all` in place of `write`: the next line then continues the torn one.
    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_the_next_one_begins_a_line() {
        let output = Planned::default();
        let (queue, write) = queue(&output);
        output.plan([Ok(6), Ok(4), Ok(3), Err(full())]);
        log(&queue, "whole one\n");
        log(&queue, "torn one\n");
        log(&queue, "third\n");
        drop(queue);
        write();
        assert_eq!(output.written(), "whole one\ntor\nthird\nlost 0 1\n");
    }

    /// Seen red with numbers that are not kept when the report fails.
    #[test]
    fn a_report_that_cannot_be_written_is_made_again() {
        let output = Planned::default();
        let (queue, write) = queue(&output);
        log(&queue, "a line of thirty bytes, full.\n");
        log(&queue, "dropped\n");
        output.plan([Err(full()), Err(full()), Err(full())]);
        let thread = thread::spawn(write);
        // The line fails, then two reports.
        for _ in 0..3 {
            queue.flush(Duration::MAX);
        }
        assert_eq!(output.written(), "lost 1 1\n");
        drop(queue);
        thread.join().unwrap();
    }

    /// Seen red without the branch for `WouldBlock`.
    #[test]
    fn interrupted_and_blocking_writes_are_repeated() {
        let output = Planned::default();
        let (queue, write) = queue(&output);
        output.plan([
            Err(ErrorKind::Interrupted.into()),
            Ok(2),
            Err(ErrorKind::WouldBlock.into()),
        ]);
        log(&queue, "a line\n");
        drop(queue);
        write();
        assert_eq!(output.written(), "a line\n");
    }

    /// An output that nobody reads: its only write never ends.
    struct Unread(Receiver<()>);

    impl Write for Unread {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Err(full())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Seen red without the bound.
    #[test]
    fn neither_logging_nor_flushing_waits_for_an_output_that_nobody_reads() {
        let (read, unread) = mpsc::channel();
        let queue = LogQueue::start(Unread(unread), |_| ()).unwrap();
        let line = "x".repeat(MAX_QUEUED / 16);
        for _ in 0..64 {
            log(&queue, &line);
        }
        queue.flush(Duration::from_millis(1));
        assert_eq!(queue.counters.dropped.load(Ordering::Relaxed), 48);
        drop(read);
    }
}
