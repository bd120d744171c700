//! The generator: one thread, one loop, no tasks and no timers of a runtime, so that a booking costs little more than
//! the system calls of its request and of its answer. It shares the machine with what it measures.
//!
//! The loop never waits for an answer. It sends what is due, then sleeps until the next start is due, and looks at the
//! connections at most once a [`TICK`].

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use nix::sys::resource::{UsageWho, getrusage};

use super::connection::{Connection, Received};
use super::mix::Mix;
use super::schedule::Schedule;
use super::story::{Answer, Kind, Next, Request, Story};
use super::tally::{Ended, Tally};
use super::wire::{self, Encoder, ID, Parsed, Response};

/// Shortest time between two looks at the connections: what is ready meanwhile is taken together.
const TICK: Duration = Duration::from_micros(500);
/// The kernel's poll counts in these.
const MILLISECOND: Duration = Duration::from_millis(1);
/// Longest time between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take: the wait that is asked for, and some.
const PATIENCE: Duration = Duration::from_secs(15);
/// Events of one look.
const EVENTS: usize = 4_096;
/// Largest answer that is read at once.
const ANSWER: usize = 64 * 1_024;

/// How far a run is, for whoever looks on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bookings begun.
    pub offered: AtomicU64,
    /// Bookings confirmed.
    pub confirmed: AtomicU64,
    /// Bookings refused with 429.
    pub refused: AtomicU64,
    /// Requests that wait for their answers.
    pub in_flight: AtomicU64,
}

/// A booking that has not ended.
struct Underway {
    story: Story,
    number: u64,
    phase: usize,
    begun: Duration,
    intended: Duration,
    sent: Duration,
    /// Of the request that waits for an answer; 0 where none does.
    ask: u64,
    connection: usize,
    id: [u8; ID],
}

struct Line {
    connection: Connection,
    /// The booking that waits for an answer.
    booking: Option<usize>,
    /// Unlike that of any other line at its place.
    name: u64,
}

/// The generator with its connections, which are kept from run to run.
pub struct Engine {
    address: SocketAddr,
    encoder: Encoder,
    /// What is measured; the kinds of its bookings.
    mix: Mix,
    /// How long the events hold their tickets.
    hold: Duration,
    most_connections: usize,
    poll: Poll,
    lines: Vec<Option<Line>>,
    free_lines: Vec<usize>,
    /// Place and name of lines without a request; the one that was used last is taken first.
    idle: Vec<(usize, u64)>,
    open: usize,
    /// Names of lines and requests.
    names: u64,
    /// The next booking.
    number: u64,
    out: Vec<u8>,
    scratch: Vec<u8>,
}

/// What a run knows beside the connections.
struct Run<'a> {
    started: Instant,
    now: Duration,
    tally: Tally,
    bookings: Vec<Option<Underway>>,
    free: Vec<usize>,
    live: usize,
    in_flight: u64,
    /// Bookings that go on later.
    later: BinaryHeap<Reverse<(Duration, usize)>>,
    /// When each request was waited for long enough, oldest first.
    limits: VecDeque<(Duration, usize, u64)>,
    /// Bookings that wait for a connection.
    queue: VecDeque<usize>,
    progress: &'a Progress,
}

impl Engine {
    /// Without connections yet.
    ///
    /// # Errors
    /// The kernel gives no poll.
    pub fn new(
        address: SocketAddr,
        encoder: Encoder,
        mix: Mix,
        hold: Duration,
        most_connections: usize,
    ) -> io::Result<Self> {
        Ok(Self {
            address,
            encoder,
            mix,
            hold,
            most_connections,
            poll: Poll::new()?,
            lines: Vec::new(),
            free_lines: Vec::new(),
            idle: Vec::new(),
            open: 0,
            names: 0,
            number: 0,
            out: Vec::with_capacity(4_096),
            scratch: vec![0; ANSWER],
        })
    }

    /// Sends the schedule and waits until each of its bookings has ended.
    ///
    /// # Errors
    /// The kernel's poll fails.
    pub fn run(&mut self, schedule: &Schedule, progress: &Progress) -> io::Result<Tally> {
        let cpu = thread_cpu();
        let mut run = Run::new(schedule, progress);
        let mut events = Events::with_capacity(EVENTS);
        let mut arrivals = schedule.arrivals().peekable();
        let mut looked = Duration::ZERO;
        loop {
            run.now = run.started.elapsed();
            while let Some(arrival) = arrivals.next_if(|arrival| arrival.at <= run.now) {
                let kind = self.mix.kind(self.number);
                let place = run.begin(kind, self.number, arrival.phase, arrival.at);
                self.number += 1;
                self.ask(&mut run, place);
            }
            while let Some(place) = run.due() {
                self.ask(&mut run, place);
            }
            while let Some(place) = run.given_up() {
                self.drop_line(&run, place);
                self.answered(&mut run, place, Answer::Lost, false);
            }
            let next = arrivals.peek().map(|arrival| arrival.at);
            if next.is_none() && run.live == 0 {
                break;
            }
            run.tell();
            self.look(&run, next, looked, &mut events)?;
            run.now = run.started.elapsed();
            looked = run.now;
            for event in &events {
                self.read(&mut run, event.token().0);
            }
        }
        run.tell();
        run.tally.own.cpu = thread_cpu() - cpu;
        Ok(run.tally)
    }

    /// Sleeps until something is due or an answer is there.
    fn look(&mut self, run: &Run<'_>, next: Option<Duration>, looked: Duration, events: &mut Events) -> io::Result<()> {
        let later = run.later.peek().map(|Reverse((at, _))| *at);
        let due = next.into_iter().chain(later).min();
        let pause = due.map_or(LONGEST_PAUSE, |at| at.saturating_sub(run.now)).min(LONGEST_PAUSE);
        let rest = TICK.saturating_sub(run.now.saturating_sub(looked));
        let timeout = if pause < MILLISECOND {
            // The poll would round it up.
            std::thread::sleep(pause.max(rest));
            Duration::ZERO
        } else {
            pause
        };
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }

    /// Sends what the booking asks for next, once there is a connection.
    fn ask(&mut self, run: &mut Run<'_>, place: usize) {
        let Some(line) = self.free_line() else {
            run.tally.own.without_connection += 1;
            run.queue.push_back(place);
            return;
        };
        self.send(run, place, line);
    }

    fn send(&mut self, run: &mut Run<'_>, place: usize, at: usize) {
        let (Some(booking), Some(line)) = (run.bookings[place].as_mut(), self.lines[at].as_mut()) else { return };
        self.names += 1;
        (booking.ask, booking.connection, booking.sent) = (self.names, at, run.now);
        line.booking = Some(place);
        run.limits.push_back((run.now + PATIENCE, place, self.names));
        run.in_flight += 1;
        run.tally.own.requests += 1;
        self.out.clear();
        self.encoder.write(booking.story.asked, booking.story.kind, booking.number, &booking.id, &mut self.out);
        if line.connection.send(&self.out).is_err() {
            self.drop_line(run, place);
            self.answered(run, place, Answer::Lost, false);
        }
    }

    /// A connection without a request; none where all are in use and no more may be opened.
    fn free_line(&mut self) -> Option<usize> {
        while let Some((at, name)) = self.idle.pop() {
            if self.lines[at].as_ref().is_some_and(|line| line.name == name) {
                return Some(at);
            }
        }
        if self.open >= self.most_connections {
            return None;
        }
        let at = self.free_lines.pop().unwrap_or(self.lines.len());
        if at == self.lines.len() {
            self.lines.push(None);
        }
        let Ok(connection) = Connection::open(self.address, self.poll.registry(), Token(at)) else {
            self.free_lines.push(at);
            return None;
        };
        self.names += 1;
        self.open += 1;
        self.lines[at] = Some(Line { connection, booking: None, name: self.names });
        Some(at)
    }

    /// Takes what came on a connection.
    fn read(&mut self, run: &mut Run<'_>, at: usize) {
        let Some(line) = self.lines[at].as_mut() else { return };
        let mut broken = line.connection.flush().is_err();
        let mut kept = std::mem::take(&mut line.connection.partial);
        let mut fresh = 0;
        while !broken {
            match line.connection.receive(&mut self.scratch) {
                Ok(Received::Bytes(read)) if read < self.scratch.len() && kept.is_empty() => {
                    fresh = read;
                    break;
                }
                Ok(Received::Bytes(read)) => {
                    kept.extend_from_slice(&self.scratch[..read]);
                    if read < self.scratch.len() {
                        break;
                    }
                }
                Ok(Received::Nothing) => break,
                Ok(Received::Closed) | Err(_) => broken = true,
            }
        }
        let bytes = if fresh > 0 { &self.scratch[..fresh] } else { &kept[..] };
        let booking = line.booking;
        let parsed = if bytes.is_empty() { Parsed::Partial } else { wire::parse(bytes) };
        match (parsed, booking) {
            (Parsed::Whole(response), Some(place)) => {
                let (answer, retry_after, closes) = (read_answer(&response), response.retry_after, response.closes);
                if let Some(booking) = run.bookings[place].as_mut() {
                    booking.note(&response, &mut run.tally);
                }
                if closes || broken {
                    self.close(at);
                } else {
                    line.booking = None;
                    self.idle.push((at, line.name));
                }
                self.answered(run, place, answer, retry_after);
                self.serve_queue(run);
            }
            (Parsed::Partial, _) if !broken => {
                if fresh > 0 {
                    kept.extend_from_slice(&self.scratch[..fresh]);
                }
                line.connection.partial = kept;
            }
            (_, booking) => {
                self.close(at);
                if let Some(place) = booking {
                    self.answered(run, place, Answer::Lost, false);
                }
                self.serve_queue(run);
            }
        }
    }

    /// A booking has its answer: it ends, or goes on at once or later.
    fn answered(&mut self, run: &mut Run<'_>, place: usize, answer: Answer, retry_after: bool) {
        run.in_flight -= 1;
        let Some(booking) = run.bookings[place].as_mut() else { return };
        booking.ask = 0;
        match booking.story.next(answer, self.hold) {
            Next::End(answer) => run.end(place, answer, retry_after),
            Next::Ask(request, after) => {
                let at = run.now + after;
                // Only what the customer does by itself has a start of its own.
                if matches!(request, Request::Pay | Request::Cancel) {
                    booking.intended = at;
                }
                run.later.push(Reverse((at, place)));
            }
        }
    }

    fn serve_queue(&mut self, run: &mut Run<'_>) {
        while !run.queue.is_empty() {
            let Some(line) = self.free_line() else { return };
            if let Some(place) = run.queue.pop_front() {
                self.send(run, place, line);
            }
        }
    }

    /// Ends the connection that the booking waits at: a late answer must not be taken for another one's.
    fn drop_line(&mut self, run: &Run<'_>, place: usize) {
        if let Some(booking) = &run.bookings[place] {
            self.close(booking.connection);
        }
    }

    fn close(&mut self, at: usize) {
        if let Some(line) = self.lines[at].take() {
            line.connection.close(self.poll.registry());
            self.free_lines.push(at);
            self.open -= 1;
        }
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.open
    }
}

impl<'a> Run<'a> {
    fn new(schedule: &Schedule, progress: &'a Progress) -> Self {
        Self {
            started: Instant::now(),
            now: Duration::ZERO,
            tally: Tally::new(schedule.phases.len(), schedule.total()),
            bookings: Vec::new(),
            free: Vec::new(),
            live: 0,
            in_flight: 0,
            later: BinaryHeap::new(),
            limits: VecDeque::new(),
            queue: VecDeque::new(),
            progress,
        }
    }

    fn begin(&mut self, kind: Kind, number: u64, phase: usize, intended: Duration) -> usize {
        self.tally.begin(kind, phase, intended, self.now);
        self.live += 1;
        let booking = Underway {
            story: Story::new(kind),
            number,
            phase,
            begun: intended,
            intended,
            sent: intended,
            ask: 0,
            connection: usize::MAX,
            id: [b'0'; ID],
        };
        let place = self.free.pop().unwrap_or(self.bookings.len());
        if place == self.bookings.len() {
            self.bookings.push(None);
        }
        self.bookings[place] = Some(booking);
        place
    }

    fn end(&mut self, place: usize, answer: Answer, retry_after: bool) {
        let Some(booking) = self.bookings[place].take() else { return };
        self.free.push(place);
        self.live -= 1;
        self.tally.end(&Ended {
            kind: booking.story.kind,
            phase: booking.phase,
            begun: booking.begun,
            intended: booking.intended,
            sent: booking.sent,
            now: self.now,
            answer,
            retry_after,
        });
    }

    /// A booking that goes on now.
    fn due(&mut self) -> Option<usize> {
        self.later.peek().filter(|Reverse((at, _))| *at <= self.now)?;
        self.later.pop().map(|Reverse((_, place))| place)
    }

    /// A booking that has waited for its answer long enough.
    fn given_up(&mut self) -> Option<usize> {
        while self.limits.front().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, place, ask) = self.limits.pop_front()?;
            if self.bookings[place].as_ref().is_some_and(|booking| booking.ask == ask) {
                return Some(place);
            }
        }
        None
    }

    fn tell(&self) {
        let (tally, progress) = (&self.tally, self.progress);
        let offered = tally.phases.iter().map(|phase| phase.offered).sum();
        progress.offered.store(offered, Ordering::Relaxed);
        progress.confirmed.store(tally.ended("confirmed"), Ordering::Relaxed);
        progress.refused.store(tally.ended(super::tally::REFUSED), Ordering::Relaxed);
        progress.in_flight.store(self.in_flight, Ordering::Relaxed);
    }
}

impl Underway {
    /// Learns the booking's id where it is needed: to go on with it, or to read its history later.
    fn note(&mut self, response: &Response<'_>, tally: &mut Tally) {
        if self.story.asked == Request::Book && response.status == 202 {
            if !matches!(self.story.kind, Kind::Plain) {
                self.id = wire::booking_id(response.body).unwrap_or(self.id);
            } else if tally.wants(self.number) {
                tally.samples.extend(wire::booking_id(response.body));
            }
        }
    }
}

fn read_answer(response: &Response<'_>) -> Answer {
    match response.status {
        200 | 202 => wire::booking_status(response.body).map_or(Answer::Other(response.status), Answer::Booking),
        429 => Answer::Refused,
        503 => Answer::Unavailable,
        status => Answer::Other(status),
    }
}

/// CPU seconds of this thread.
fn thread_cpu() -> f64 {
    #[cfg(target_os = "linux")]
    let who = UsageWho::RUSAGE_THREAD;
    #[cfg(not(target_os = "linux"))]
    let who = UsageWho::RUSAGE_SELF;
    getrusage(who).map_or(0.0, |usage| {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}
