//! Gives a signed message that cannot be kept, as there is no room or the message is too long, to
//! all usable nodes at once, while the message comes.
//!
//! Rule: each node gets the pieces when the client sends them. A node that takes none for a quarter
//! of a slot is given up while another takes them. The first success goes to the client; a refusal
//! when all have answered, or a quarter of a slot after a node has judged the message. Where no
//! node answers, the client hears so when `calls.timeout` is over since the last piece. Reason: the
//! message cannot be sent again, so no node that dies or hangs may be the only one to have the
//! message. Example: all room is taken, node A hangs over a block, and B takes the block at once:
//! the client has the success of B, and A is waited for in the background.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Failure, Request, RequestRun, Requests, Stop,
    answer::Answer,
    attempt::{Sent, attempt_holding},
    maker::is_for_the_maker,
    publish::ANOTHER_NODE_AFTER,
    upload::Upload,
};
use crate::{
    domain::{
        node_id::NodeId,
        publication::{Problem, PublishVerdict},
        refusal::Refusal,
    },
    exchange::next_node::unserved,
    pool::{Pool, health::Fault},
};

/// Pieces that may wait for a node.
const AHEAD: usize = 4;
/// The longest piece. A node that takes some of a longer one would seem to take nothing.
const LONGEST: usize = 64 << 10;

/// A piece of the message; `None` is its end. A node that gets no end has not got all.
type Piece = Option<Bytes>;

impl RequestRun<'_> {
    /// Gives the message to all usable nodes as the message comes.
    pub(super) async fn publish_unkept(&mut self, upload: &mut Upload) -> Result<Answer, Stop> {
        let Some((first, turn, _scout)) = self.next_node(upload.weight()).await? else { return Ok(self.give_up()?) };
        drop(turn);
        let Requests { pool, messages, settings, background, .. } = self.requests;
        let Some(place) = messages.admit(self.request.client, 1) else {
            return Err(Refusal::Limit { name: "max_held", limit: settings.max_held.get() }.into());
        };
        let makers = if is_for_the_maker(self.request) { self.requests.makers.nodes(pool.slot()) } else { Vec::new() };
        let others = NodeId::all(pool.nodes.len()).filter(|node| pool.is_usable(*node) || makers.contains(node));
        let mut nodes = vec![first];
        nodes.extend(others.filter(|node| *node != first && !pool.nodes[*node].is_out()));
        let (told, answer) = oneshot::channel();
        let spread = Spread {
            pool: pool.clone(),
            request: self.request.clone(),
            late: pool.slot() / ANOTHER_NODE_AFTER,
            limit: settings.timeout,
            told: Some(told),
            heard: Heard::default(),
        };
        let (upload, room) = (upload.take(), self.requests.room.clone());
        background.tasks().spawn(async move {
            spread.run(nodes, upload, &room).await;
            drop(place);
        });
        // The task is ended early only together with the network.
        Ok(answer.await.unwrap_or_else(|_| Err(Refusal::OutcomeUnknown.into()))?)
    }
}

/// A message on its way to nodes.
struct Spread {
    pool: Arc<Pool>,
    request: Request,
    /// How long a node may take none of the message, or leave a word of another in doubt.
    late: Duration,
    /// How long an answer may take when all of the message has come.
    limit: Duration,
    /// Where the answer for the client goes; `None` when the client has one.
    told: Option<oneshot::Sender<Result<Answer, Failure>>>,
    heard: Heard,
}

/// The words of nodes that did not take the message.
#[derive(Default)]
struct Heard {
    /// A node's judgement of the message.
    word: Option<Answer>,
    /// A node knows a message of this validator.
    repeated: Option<Answer>,
    /// Another answer of a node, or of a gateway.
    other: Option<Answer>,
    /// A node may have the message without having said so.
    may_have_it: bool,
    /// Why a node could not be reached.
    fault: Option<Fault>,
    /// The status of an answer that is no node's.
    foreign: Option<u16>,
}

impl Spread {
    async fn run(mut self, nodes: Vec<NodeId>, upload: Upload, room: &Arc<super::room::Room>) {
        let length = upload.length();
        let (pool, request) = (self.pool.clone(), self.request.clone());
        let mut running = FuturesUnordered::new();
        let mut takers = Vec::new();
        for node in nodes {
            let (pieces, coming) = mpsc::channel::<Piece>(AHEAD);
            takers.push(pieces);
            let mut upload = Upload::streamed(Box::pin(stream::unfold(Some(coming), next_piece)), length);
            let (pool, request) = (&pool, &request);
            running.push(async move {
                let mut sent = attempt_holding(pool, node, request, &mut upload, Duration::MAX, Some(room)).await;
                let words = match &mut sent {
                    Sent::Answered(answer) if answer.status < 300 => None,
                    Sent::Answered(answer) | Sent::OfTheNode(answer, ..) => answer.words().await,
                    _ => None,
                };
                (sent, words)
            });
        }
        let mut passing = std::pin::pin!(pass_on(upload, takers, self.late));
        let (mut end, mut is_passed) = (None, false);
        loop {
            // All arms are cancel-safe: the passing and the attempts run on.
            tokio::select! {
                biased;
                Some((sent, words)) = running.next() => {
                    if self.takes(sent, words.as_deref()) {
                        let soon = Instant::now() + self.late;
                        end = Some(end.map_or(soon, |end: Instant| end.min(soon)));
                    }
                    if running.is_empty() {
                        break;
                    }
                }
                passed = &mut passing, if !is_passed => match passed {
                    Ok(()) => {
                        is_passed = true;
                        let late = Instant::now() + self.limit;
                        end = Some(end.map_or(late, |end| end.min(late)));
                    }
                    Err(error) => {
                        self.tell(Err(Failure::Unsent(error)));
                        return;
                    }
                },
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() && is_passed => {
                    if self.told.is_none() {
                        return;
                    }
                    // The nodes that are silent may have the message.
                    self.heard.may_have_it = true;
                    self.ends();
                    end = Some(Instant::now() + self.limit);
                }
            }
        }
        self.ends();
    }

    fn tell(&mut self, outcome: Result<Answer, Failure>) {
        if let Some(told) = self.told.take() {
            // The client may have left.
            let _ = told.send(outcome);
        }
    }

    /// Takes note of the outcome at one node. Whether the node has judged the message.
    fn takes(&mut self, sent: Sent, words: Option<&[u8]>) -> bool {
        let heard = &mut self.heard;
        let (answer, is_judged, form) = match sent {
            Sent::Answered(answer) if answer.status < 300 => {
                self.tell(Ok(answer));
                return false;
            }
            Sent::Answered(answer) => (answer, true, None),
            Sent::OfTheNode(answer, form, _) => (answer, false, Some(form)),
            Sent::Refused(answer, _) => {
                heard.other.get_or_insert(answer);
                return false;
            }
            Sent::Nothing(trouble) => {
                heard.fault = trouble.map(|trouble| trouble.fault).or(heard.fault);
                return false;
            }
            Sent::Lost(_) | Sent::Late(_) | Sent::Unsent(_) => {
                heard.may_have_it = true;
                return false;
            }
        };
        let problem = words.filter(|_| answer.speaks_of_messages()).and_then(Problem::read);
        match problem.as_ref().map_or(PublishVerdict::Other, said) {
            PublishVerdict::Known => {
                let success = answer.as_success();
                self.tell(Ok(success));
            }
            PublishVerdict::Repeated => _ = heard.repeated.get_or_insert(answer),
            PublishVerdict::Slashable => {
                heard.word = Some(answer);
                return true;
            }
            PublishVerdict::Wrong | PublishVerdict::Other if is_judged => {
                heard.word.get_or_insert(answer);
                return true;
            }
            _ => {
                heard.may_have_it |= form.is_some_and(|form| form.may_have_passed_on(answer.status));
                match answer.status {
                    ..400 => heard.foreign = Some(answer.status),
                    _ => _ = heard.other.get_or_insert(answer),
                }
            }
        }
        false
    }

    /// Gives the client the best answer that was heard, if the client has none yet.
    fn ends(&mut self) {
        let heard = std::mem::take(&mut self.heard);
        let success = heard.repeated.as_ref().filter(|_| heard.may_have_it && heard.word.is_none());
        let outcome = match success.map(Answer::as_success).or(heard.word).or(heard.repeated).or(heard.other) {
            Some(answer) => Ok(answer),
            None if heard.may_have_it => Err(Refusal::OutcomeUnknown.into()),
            None if let Some(status) = heard.foreign => Err(Refusal::Rejected(status).into()),
            None => Err(Refusal::Unserved(unserved(&self.pool, heard.fault)).into()),
        };
        self.tell(outcome);
    }
}

/// The meaning of a node's words on the whole message: of a list the worst.
fn said(problem: &Problem) -> PublishVerdict {
    let is = |said| !problem.failures.is_empty() && problem.failures.values().all(|failure| failure.said() == said);
    match problem.failures.is_empty() {
        true => problem.message.said(),
        false if is(PublishVerdict::Known) => PublishVerdict::Known,
        false if is(PublishVerdict::Repeated) => PublishVerdict::Repeated,
        false => PublishVerdict::Other,
    }
}

/// The next piece for one node.
async fn next_piece(
    coming: Option<mpsc::Receiver<Piece>>,
) -> Option<(io::Result<Bytes>, Option<mpsc::Receiver<Piece>>)> {
    let mut coming = coming?;
    match coming.recv().await {
        Some(Some(bytes)) => Some((Ok(bytes), Some(coming))),
        Some(None) => None,
        None => Some((Err(io::ErrorKind::ConnectionAborted.into()), None)),
    }
}

/// Passes the message on to all takers. A node that takes nothing for `late` is given up, while
/// another takes the message.
async fn pass_on(mut upload: Upload, mut takers: Vec<mpsc::Sender<Piece>>, late: Duration) -> io::Result<()> {
    let mut rest = Bytes::new();
    loop {
        while rest.is_empty()
            && let Some(more) = upload.next().await.transpose()?
        {
            rest = more;
        }
        let piece = Some(rest.split_to(rest.len().min(LONGEST))).filter(|piece| !piece.is_empty());
        let is_end = piece.is_none();
        let end = Instant::now() + late;
        let (mut left, mut slow) = (Vec::with_capacity(takers.len()), Vec::new());
        for taker in takers {
            match taker.try_send(piece.clone()) {
                Ok(()) => left.push(taker),
                Err(mpsc::error::TrySendError::Full(_)) => slow.push(taker),
                // That node has answered, or is lost.
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        for taker in slow {
            let is_last = left.is_empty();
            let sent = async { taker.send(piece.clone()).await.is_ok() };
            let is_taken = if is_last { sent.await } else { timeout_at(end, sent).await.unwrap_or(false) };
            if is_taken {
                left.push(taker);
            }
        }
        if is_end {
            return Ok(());
        }
        takers = left;
    }
}
