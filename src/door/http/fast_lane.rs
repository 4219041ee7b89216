//! The fast lane: plain calls, without hyper in between, which would cost as much as the rest of a
//! call.
//!
//! Most requests have one shape: `POST`, HTTP/1.1, a `Content-Length`, no `Expect`, no `Upgrade`,
//! no `Origin`. The lane serves that shape, and has to be right only about that shape: any other
//! request, malformed ones included, goes over to hyper.

mod writing;

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    ops::Range,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, Sleep, sleep},
};

use super::{
    ARRIVAL, Asker, Client, IDLE, STALL, Service, answer,
    compress::may_compress,
    cut, gate,
    reply::{Content, Reply},
};
use crate::{
    call::{Calls, alarm::Alarm, outbox_calls::Passed},
    domain::{
        client::Peer,
        pace::{CLIENT_RATE, Pace},
        refusal::Refusal,
    },
    door::{
        access_log::{self, Line},
        crowd::Place,
        site::Site,
    },
    memory::{Account, Claim, Full, SMALL, make_room},
    metrics::Ended,
    net::{BoxIo, node_connections::Caller},
};

/// Up to this size an answer is copied behind its head, for one plain write is cheaper than a
/// vectored one.
const FLATTEN: u64 = 16 * 1024;
/// The longest head that the lane serves. hyper refuses a longer one.
const MAX_LANE_HEAD: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
/// How many bytes of further requests are read while a request is answered.
const MAX_AHEAD: usize = 8 * 1024;
/// The least room for one read: of a head, and of a body.
const STEPS: [usize; 2] = [2048, 8192];
/// How long a client's further bytes are read and dropped after a request was refused before all of
/// its bytes had come.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// A client's connection in the lane.
pub(super) struct Lane<'a> {
    io: BoxIo,
    read: BytesMut,
    write: BytesMut,
    /// Header lines of the request to send along.
    pass: Passed,
    alarm: Alarm,
    /// Whether the client has closed its side. The client may still wait for its answer.
    left: Arc<AtomicBool>,
    memory: &'a Arc<Account>,
    caller: &'a Arc<Caller>,
    /// The memory of the bytes read, also while the request is answered.
    claim: Claim,
    /// The rate at which the client takes its answers.
    pace: Pace,
    service: &'a Service,
    place: &'a Place,
    peer: Peer,
    /// The line in the access log of the request under way, if the request has one.
    line: Option<Box<Line>>,
}

/// How a connection leaves the lane.
pub(super) enum Left {
    /// The connection is over.
    Closed,
    /// The next request, whose beginning is in `read`, has another shape.
    Other {
        /// The connection.
        io: BoxIo,
        /// Bytes that were read, and come before those that the connection still holds.
        read: Bytes,
    },
}

enum Parsed {
    /// The head is not whole.
    Head,
    /// The body is not whole: head and body together have so many bytes.
    Body(usize),
    Other,
    Call {
        body: Range<usize>,
        keep_alive: bool,
        calls: Arc<Calls>,
        line: Option<Box<Line>>,
    },
}

impl<'a> Lane<'a> {
    pub(super) fn new(io: BoxIo, service: &'a Service, client: Client<'a>) -> Self {
        let Client { memory, caller, place, peer } = client;
        let (read, write, claim) = (BytesMut::new(), BytesMut::new(), memory.incoming());
        Self {
            io,
            read,
            write,
            pass: Passed::default(),
            alarm: Alarm::default(),
            left: Arc::default(),
            memory,
            caller,
            claim,
            pace: Pace::new(STALL, CLIENT_RATE),
            service,
            place,
            peer,
            line: None,
        }
    }

    /// Serves plain calls until the connection ends or another kind of request comes.
    pub(super) fn run(mut self) -> impl Future<Output = io::Result<Left>> + Send + use<'a> {
        let mut closing = self.service.closing.clone();
        // An `async fn` would have room for its `self` twice.
        async move {
            let mut closing = pin!(closing.wait_for(|closing| *closing));
            // A client that has not asked yet has less time, because its connection cost nothing
            // but a place.
            let mut idle = ARRIVAL;
            loop {
                let (mut needed, mut looked) = (0, 0);
                let now = Instant::now();
                if !self.place.rests(now) {
                    return Ok(Left::Closed);
                }
                let mut due = now + idle;
                // Once the length of the body is known.
                let mut pace: Option<Pace> = None;
                let (body, mut keep_alive, calls, arrived) = loop {
                    // A head has one deadline, a body has a least rate.
                    let is_due = if needed > 0 { self.read.len() >= needed } else { self.is_worth_a_look(looked) };
                    if is_due {
                        match self.parse(&self.service.site.load()) {
                            Parsed::Head => {
                                if looked == 0 {
                                    due = Instant::now() + ARRIVAL;
                                }
                                looked = self.read.len();
                            }
                            Parsed::Body(length) => {
                                let now = Instant::now();
                                (needed, due) = (length, now + ARRIVAL);
                                // A client that sends is not as idle as a client that says nothing.
                                self.place.refreshes(now);
                                pace = Some(Pace::new(ARRIVAL, CLIENT_RATE));
                            }
                            Parsed::Other => return Ok(Left::Other { io: self.io, read: self.read.freeze() }),
                            Parsed::Call { body, keep_alive, calls, line } => {
                                self.line = line;
                                self.read.advance(body.start);
                                let body = self.read.split_to(body.len()).freeze();
                                if self.claim.bytes() > 0 {
                                    // A large buffer goes with its body, and does not stay with the
                                    // connection.
                                    self.read = BytesMut::from(&self.read[..]);
                                }
                                break (body, keep_alive, calls, Instant::now());
                            }
                        }
                    }
                    if self.has_left() {
                        return Ok(Left::Closed);
                    }
                    if let Err(full) = self.make_room(needed) {
                        return Box::pin(self.refuse(Reply::refused(&full.into(), None))).await;
                    }
                    // All arms are cancel-safe. A shutdown does not interrupt a request that has
                    // begun to come.
                    let refusal = tokio::select! {
                        biased;
                        count = self.io.read_buf(&mut self.read) => match count? {
                            0 if needed == 0 => return Ok(Left::Closed),
                            0 => unread(&gate::NOT_WHOLE),
                            count => {
                                if let Some(pace) = &mut pace {
                                    let now = Instant::now();
                                    let left = due.saturating_duration_since(now);
                                    pace.moved(pace.left().saturating_sub(left), count);
                                    due = now + pace.left();
                                    // A byte makes the connection count as newer, for as long as
                                    // the least rate gives that byte.
                                    self.place.refreshes(due - ARRIVAL);
                                }
                                continue;
                            }
                        },
                        _ = &mut closing, if self.read.is_empty() => return Ok(Left::Closed),
                        why = poll_fn(|context| self.memory.poll_cut(context)), if self.claim.bytes() > 0 => {
                            Reply::refused(&self.service.cut_off(why), None)
                        }
                        () = self.alarm.at(due) => {
                            self.service.metrics.client_ended(match () {
                                () if !self.read.is_empty() => Ended::SlowRequest,
                                () if idle == ARRIVAL => Ended::Silent,
                                () => Ended::Idle,
                            });
                            if needed == 0 {
                                return Ok(Left::Closed);
                            }
                            unread(&gate::NOT_IN_TIME)
                        }
                    };
                    return Box::pin(self.refuse(refusal)).await;
                };
                idle = IDLE;
                if !self.place.begins() {
                    return Ok(Left::Closed);
                }
                // When the client is lost, its call is dropped: a call that still waits for a node
                // is then not sent.
                let Self { io, read, alarm, pass, left, memory, caller, service, place, line, .. } = &mut self;
                let reply = {
                    let trace = line.as_ref().map(|line| &line.trace);
                    let asker = Asker { left: &*left, memory, caller, trace };
                    let mut reply = pin!(answer(&calls, &body, pass, arrived, asker, alarm));
                    let mut stalled = None;
                    loop {
                        // All arms are cancel-safe. Bytes that come meanwhile belong to the next
                        // request.
                        tokio::select! {
                            biased;
                            reply = &mut reply => break reply,
                            count = io.read_buf(read), if read.len() < MAX_AHEAD && !left.load(Relaxed) => match count {
                                Ok(0) => {
                                    left.store(true, Relaxed);
                                    place.departs();
                                    stalled = Some(Box::pin(sleep(STALL)));
                                }
                                Ok(_) => {}
                                Err(_) => return Ok(Left::Closed),
                            },
                            why = poll_fn(|context| memory.poll_cut(context)) => {
                                keep_alive = false;
                                let max_batch = calls.settings().max_batch.get();
                                break cut(&body, max_batch, &service.cut_off(why));
                            }
                            () = over(&mut stalled) => return Ok(Left::Closed),
                        }
                    }
                };
                drop(body);
                if self.has_left() && !self.place.begins() {
                    return Ok(Left::Closed);
                }
                keep_alive &= !self.service.is_closing();
                if let Content::Ready(own) = &reply.body
                    && own.len() > SMALL
                {
                    // The refusal repeats a long id.
                    self.claim.set(self.claim.bytes() + own.len());
                }
                self.reply(reply, keep_alive).await?;
                self.line = None;
                self.claim.set(if self.read.capacity() > SMALL { self.read.capacity() } else { 0 });
                if !keep_alive {
                    self.end().await?;
                    return Ok(Left::Closed);
                }
            }
        }
    }

    /// Makes room for more of a request of `needed` bytes: for as much again as has come, since an
    /// announced length alone shall cost nothing.
    fn make_room(&mut self, needed: usize) -> Result<(), Full> {
        let (length, missing) = (self.read.len(), needed.saturating_sub(self.read.len()));
        let step = STEPS[usize::from(needed > 0)];
        let least = if needed > 0 { missing.min(step) } else { step };
        // The room of requests that are answered is used again, without an allocation.
        if self.read.capacity() - length >= least || self.reclaims(least) {
            return Ok(());
        }
        let more = if needed > 0 { missing.min(length.max(step)) } else { step };
        if length + more > SMALL {
            self.claim.resize(length + more)?;
        }
        make_room(&mut self.read, length + more);
        if self.read.capacity() > SMALL {
            self.claim.set(self.read.capacity());
        }
        Ok(())
    }

    /// Whether the small buffer has this much room again, since its earlier bytes are gone.
    fn reclaims(&mut self, least: usize) -> bool {
        self.claim.bytes() == 0 && self.read.try_reclaim(least)
    }

    /// Answers a request for which there is no room, and closes. The rest of the request is read
    /// and dropped, since closing at once could destroy the answer on its way. Called in a box, so
    /// that an idle connection does not hold the room for this future.
    async fn refuse(mut self, reply: Reply) -> io::Result<Left> {
        self.read = BytesMut::new();
        self.claim.set(0);
        let access = self.service.site.load().access.clone();
        let wanted = access.wanted_of(&self.pass.lines);
        self.line = wanted.map(|wanted| access.line_of(wanted, "http", self.peer, &mut self.pass.lines));
        self.reply(reply, false).await?;
        self.end().await?;
        let due = Instant::now() + DISCARD_TIMEOUT;
        let mut passed = [0; 2048];
        // Both arms are cancel-safe.
        while tokio::select! {
            biased;
            () = self.alarm.at(due) => false,
            count = self.io.read(&mut passed) => count? > 0,
        } {}
        Ok(Left::Closed)
    }

    /// Whether the bytes since the first `looked` can complete the head. A head that comes byte by
    /// byte is not parsed again for each byte, but for each line, of which there are few, and when
    /// the bytes have doubled.
    fn is_worth_a_look(&self, looked: usize) -> bool {
        let len = self.read.len();
        len > looked && (len >= MAX_LANE_HEAD.min(2 * looked) || memchr::memchr(b'\n', &self.read[looked..]).is_some())
    }

    fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    /// Parses the bytes so far, and notes the headers to send along.
    fn parse(&mut self, site: &Site) -> Parsed {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut []);
        let head = match request.parse_with_uninit_headers(&self.read, &mut headers) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.read.len() < MAX_LANE_HEAD => return Parsed::Head,
            _ => return Parsed::Other,
        };
        let (Some("POST"), Some(path), Some(1)) = (request.method, request.path, request.version) else {
            return Parsed::Other;
        };
        let Some(calls) = site.calls(path) else { return Parsed::Other };
        self.pass.clear();
        let (mut length, mut keep_alive, mut has_host) = (None, true, false);
        let compresses = site.compression.is_on();
        // hyper's side refuses a wrong host, a second one, and a compressed body.
        for header in request.headers.iter() {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            match header.name.len() {
                4 if is("host") => {
                    if has_host || !site.hosts.allows(header.value) {
                        return Parsed::Other;
                    }
                    has_host = true;
                }
                14 if is("content-length") => {
                    let digits =
                        std::str::from_utf8(header.value).ok().filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                    match digits.and_then(|digits| digits.parse::<usize>().ok()) {
                        Some(bytes) if length.is_none() && bytes <= site.max_body => length = Some(bytes),
                        _ => return Parsed::Other,
                    }
                }
                6 if is("expect") || is("origin") => return Parsed::Other,
                14 if is("sec-fetch-site") => return Parsed::Other,
                7 if is("upgrade") => return Parsed::Other,
                17 if is("transfer-encoding") => return Parsed::Other,
                16 if is("content-encoding") => return Parsed::Other,
                // hyper's side compresses.
                15 if compresses && is("accept-encoding") && may_compress(header.value) => return Parsed::Other,
                10 if is("connection") => match header.value {
                    value if value.eq_ignore_ascii_case(b"close") => keep_alive = false,
                    value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                    _ => return Parsed::Other,
                },
                _ => site.pass(header.name, header.value, &mut self.pass),
            }
        }
        match length {
            Some(length) if !has_host || length == 0 => Parsed::Other,
            Some(length) if self.read.len() < head + length => Parsed::Body(head + length),
            Some(length) => {
                let line = site.access.wanted_of(&self.pass.lines).map(|wanted| {
                    let forwarded = request.headers.iter().filter(|header| access_log::is_forwarded(header.name));
                    let client = site.access.client(self.peer, forwarded.map(|header| header.value));
                    site.access.line_of(wanted, "http", client, &mut self.pass.lines)
                });
                Parsed::Call { body: head..head + length, keep_alive, calls: calls.clone(), line }
            }
            None => Parsed::Other,
        }
    }
}

/// The reply to a request whose body cannot be read.
fn unread(refused: &gate::Refused) -> Reply {
    let reply = Reply::refused(&Refusal::NotARequest(refused.why), None);
    Reply { status: refused.status.as_u16(), ..reply }
}

/// Completes when a client that has closed its side need not be waited for any longer.
async fn over(stalled: &mut Option<Pin<Box<Sleep>>>) {
    match stalled {
        Some(stalled) => stalled.await,
        None => std::future::pending().await,
    }
}
