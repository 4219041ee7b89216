//! Clients with a WebSocket. Each has a task of its own that keeps all that comes.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use cucumber::{gherkin::Step, given, then, when};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use steadfast::devnet::Transport;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use crate::{
    calls::{address, padded},
    heard::{Answer, Heard, parts},
    network::{Tip, stretch},
    world::{Proxy, Reply, eventually, soon},
};

/// Bytes that the system keeps for a client with a small buffer.
const SMALL: u32 = 4096;
const SLOW: &str = "steadfast_slow_clients_closed_total";

/// One client. Its connection ends with this.
pub struct Socket {
    name: String,
    heard: Arc<Mutex<Heard>>,
    orders: mpsc::Sender<Order>,
    /// Sends binary messages.
    is_binary: bool,
    /// Asks for every block that it is told of.
    pub fetches: Arc<AtomicBool>,
    count: usize,
    tasks: JoinSet<()>,
}

enum Order {
    Send(Message),
    Read(bool),
}

struct Task {
    socket: WebSocketStream<TcpStream>,
    orders: mpsc::Receiver<Order>,
    heard: Arc<Mutex<Heard>>,
    fetches: Arc<AtomicBool>,
    tip: Tip,
}

impl Task {
    async fn run(mut self) {
        let mut reads = true;
        let over = loop {
            // Both arms are cancel-safe.
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Send(message)) => {
                        // That it is lost is seen by reading.
                        let _ = self.socket.send(message).await;
                    }
                    Some(Order::Read(on)) => reads = on,
                    None => return,
                },
                message = self.socket.next(), if reads => match message {
                    Some(Ok(Message::Text(text))) => self.hear(text.as_str()).await,
                    Some(Ok(Message::Close(Some(frame)))) => break Ok((frame.code.into(), frame.reason.to_string())),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => break Err(format!("{other:?}")),
                },
            }
        };
        // The answer to the close is written by looking for more.
        while let Some(Ok(_)) = self.socket.next().await {}
        self.heard.lock().unwrap().over = Some(over);
    }

    async fn hear(&mut self, text: &str) {
        let tip = (self.tip)();
        let header = self.heard.lock().unwrap().hear(text, tip);
        if let Some(hash) = header.filter(|_| self.fetches.load(Relaxed)) {
            let call = json!({"jsonrpc": "2.0", "id": hash, "method": "eth_getBlockByHash", "params": [hash, false]});
            self.heard.lock().unwrap().ask(&call.to_string());
            let _ = self.socket.send(Message::text(call.to_string())).await;
        }
    }
}

impl Socket {
    pub async fn open(name: &str, proxy: &Proxy, is_small: bool) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        if is_small {
            socket.set_recv_buffer_size(SMALL).unwrap();
        }
        let stream = socket.connect(proxy.addr()).await.unwrap();
        let opening = timeout(soon(), client_async(format!("ws://{}/", proxy.addr()), stream)).await;
        let (socket, _) = opening.expect("no answer to the upgrade").unwrap_or_else(|error| panic!("{name}: {error}"));
        let (heard, fetches) = (Arc::<Mutex<Heard>>::default(), Arc::<AtomicBool>::default());
        let (orders, receiver) = mpsc::channel(1024);
        let tip = proxy.net().tip();
        let mut tasks = JoinSet::new();
        let task = Task { socket, orders: receiver, heard: heard.clone(), fetches: fetches.clone(), tip };
        tasks.spawn(task.run());
        Self { name: name.to_owned(), heard, orders, is_binary: false, fetches, count: 0, tasks }
    }

    /// What it was told so far. Fails if a promise was broken, or the connection is over.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        let heard = self.even_over();
        assert_eq!(heard.over, None, "{}: the connection is over", self.name);
        heard
    }

    /// The same, but the connection may be over.
    pub fn even_over(&self) -> MutexGuard<'_, Heard> {
        let heard = self.heard.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        heard.holds(&self.name);
        heard
    }

    /// Sends a message of requests.
    pub async fn send(&self, text: String) {
        self.heard().ask(&text);
        let message = if self.is_binary { Message::Binary(text.into_bytes().into()) } else { Message::text(text) };
        self.order(Order::Send(message)).await;
    }

    async fn order(&self, order: Order) {
        let sent = timeout(soon(), self.orders.send(order)).await;
        assert!(matches!(sent, Ok(Ok(()))), "{}: the connection is over, or stalls", self.name);
    }

    /// An id that was not used before.
    fn id(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    pub fn request(&mut self, method: &str, params: &Value) -> String {
        json!({"jsonrpc": "2.0", "id": self.id(), "method": method, "params": params}).to_string()
    }

    /// Sends a message of requests, and waits until nothing is owed.
    pub async fn exchange(&self, text: String) -> Reply {
        let started = Instant::now();
        self.send(text).await;
        self.settled().await;
        let heard = self.heard();
        let frame = heard.frames.iter().rev().find(|(_, text)| !text.contains(r#""method":"eth_subscription""#));
        let body = frame.expect("something was answered").1.clone();
        Reply { status: 200, retry_after: false, body, took: started.elapsed() }
    }

    /// Waits until nothing is owed.
    pub async fn settled(&self) {
        eventually(&format!("{} is answered", self.name), soon(), async || match self.heard().owed() {
            0 => Ok(()),
            owed => Err(format!("{owed} answers are owed")),
        })
        .await;
    }
}

impl Proxy {
    /// The client of that name.
    pub fn socket(&self, name: &str) -> &Socket {
        self.sockets.get(name).unwrap_or_else(|| panic!("{name} has no WebSocket"))
    }

    pub fn socket_mut(&mut self, name: &str) -> &mut Socket {
        self.sockets.get_mut(name).unwrap_or_else(|| panic!("{name} has no WebSocket"))
    }
}

#[given(regex = r"^(\w+) has a WebSocket( with a small buffer|, and sends binary messages|)$")]
#[when(regex = r"^(\w+) has a WebSocket( with a small buffer|, and sends binary messages|)$")]
async fn connects(proxy: &mut Proxy, name: String, how: String) {
    let mut socket = Socket::open(&name, proxy, how.contains("small")).await;
    socket.is_binary = how.contains("binary");
    proxy.sockets.insert(name, socket);
}

#[when(expr = "a web page of {word} asks for a WebSocket")]
async fn web_page(proxy: &mut Proxy, origin: String) {
    let started = Instant::now();
    let mut request = format!("ws://{}/", proxy.addr()).into_client_request().unwrap();
    request.headers_mut().insert("origin", origin.parse().unwrap());
    let stream = TcpStream::connect(proxy.addr()).await.unwrap();
    let (status, body) = match timeout(soon(), client_async(request, stream)).await.expect("an answer") {
        Ok((_, response)) => (response.status(), String::new()),
        Err(Error::Http(response)) => {
            (response.status(), String::from_utf8(response.body().clone().unwrap_or_default()).unwrap())
        }
        Err(error) => panic!("{error}"),
    };
    proxy.last = Some(Reply { status: status.as_u16(), retry_after: false, body, took: started.elapsed() });
}

#[given(expr = "{word} calls {word}")]
#[when(expr = "{word} calls {word}")]
async fn calls(proxy: &mut Proxy, name: String, method: String) {
    let socket = proxy.socket_mut(&name);
    let text = socket.request(&method, &json!([]));
    proxy.last = Some(socket.exchange(text).await);
}

#[given(expr = "{word} asks which node answers")]
#[when(expr = "{word} asks which node answers")]
async fn asks(proxy: &mut Proxy, name: String) {
    let (method, before) = (proxy.voice().method(), proxy.answered().await);
    calls(proxy, name, method.to_owned()).await;
    proxy.find_teller(&before).await;
}

#[when(expr = "{word} sends:")]
async fn sends(proxy: &mut Proxy, name: String, step: &Step) {
    let text = step.docstring.as_ref().expect("a text").trim().to_owned();
    proxy.last = Some(proxy.socket(&name).exchange(text).await);
}

#[when(expr = "{word} sends a message of {int} bytes")]
async fn long_message(proxy: &mut Proxy, name: String, bytes: usize) {
    proxy.socket(&name).send(padded(bytes)).await;
}

#[when(expr = "{word} sends each of these at once, all with the id {word}:")]
async fn reuses(proxy: &mut Proxy, name: String, id: String, step: &Step) {
    let socket = proxy.socket(&name);
    let before = socket.heard().answers.len();
    let methods: Vec<_> = step.table.as_ref().expect("a table").rows.iter().map(|row| row[0].clone()).collect();
    for method in &methods {
        socket.send(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":[]}}"#)).await;
    }
    socket.settled().await;
    let heard = socket.heard();
    let mut expected: Vec<_> = heard.answers[before..].iter().map(|answer| value(answer)["result"].clone()).collect();
    expected.sort_by_key(Value::to_string);
    expected.dedup();
    assert_eq!(expected.len(), methods.len(), "not one answer of each: {expected:?}");
}

#[when(expr = "{word} begins to call {int} times, once every {int} ms")]
async fn begins(proxy: &mut Proxy, name: String, count: usize, millis: u64) {
    let socket = proxy.socket_mut(&name);
    let texts: Vec<_> = (0..count)
        .map(|number| match number % 5 {
            0 => socket.request("eth_getBalance", &json!([address(number), "latest"])),
            1 => socket.request("eth_getBlockByNumber", &json!(["0x3", false])),
            2 => socket.request("eth_blockNumber", &json!([])),
            3 => socket.request("eth_gasPrice", &json!([])),
            _ => socket.request("web3_clientVersion", &json!([])),
        })
        .collect();
    // They are owed from now on, so that nobody takes those that are yet to be sent for answered.
    let (heard, orders) = (socket.heard.clone(), socket.orders.clone());
    texts.iter().for_each(|text| heard.lock().unwrap().ask(text));
    let mut ticks = interval(Duration::from_millis(millis));
    socket.tasks.spawn(async move {
        for text in texts {
            ticks.tick().await;
            heard.lock().unwrap().sent(&text);
            if orders.send(Order::Send(Message::text(text))).await.is_err() {
                return;
            }
        }
    });
}

async fn send_some(proxy: &mut Proxy, name: &str, count: usize) {
    let socket = proxy.socket_mut(name);
    for number in 1..=count {
        let text = socket.request("eth_getBalance", &json!([address(number), "latest"]));
        socket.send(text).await;
    }
}

#[when(expr = "{word} sends {int} calls, and they wait")]
async fn wait(proxy: &mut Proxy, name: String, count: usize) {
    send_some(proxy, &name, count).await;
    let proxy = &*proxy;
    eventually("they wait", soon(), async || {
        match proxy.metric(r#"steadfast_held_calls{layer="el",network="default"}"#).await {
            Some(held) if held as usize == count => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(proxy.socket(&name).heard().owed(), count);
}

#[then(expr = "the calls of {word} reach {word} in the order in which they were sent")]
async fn in_order(proxy: &mut Proxy, name: String, node: String) {
    answered(proxy, name.clone()).await;
    let sent: Vec<_> = proxy.socket(&name).heard().answers.iter().map(|answer| answer.params.to_string()).collect();
    let mut sorted = sent.clone();
    sorted.sort();
    assert!(sorted.len() > 1, "{sent:?}");
    let requests = proxy.node(&node).requests().into_iter().filter(|request| request.method == "eth_getBalance");
    assert_eq!(requests.map(|request| request.params).collect::<Vec<_>>(), sorted);
}

fn value(answer: &Answer) -> Value {
    serde_json::from_str(&answer.text).unwrap()
}

#[then(expr = "every call of {word} is answered with a result")]
async fn answered(proxy: &mut Proxy, name: String) {
    let socket = proxy.socket(&name);
    socket.settled().await;
    let heard = socket.heard();
    assert!(!heard.answers.is_empty());
    let failed: Vec<_> = heard.answers.iter().filter(|answer| value(answer)["result"].is_null()).collect();
    assert!(failed.is_empty(), "{} of {} failed, such as {}", failed.len(), heard.answers.len(), failed[0].text);
}

#[then(expr = "every call of {word} is answered with a result within {int} ms")]
async fn answered_within(proxy: &mut Proxy, name: String, millis: u64) {
    answered(proxy, name.clone()).await;
    let heard = proxy.socket(&name).heard();
    let worst = heard.answers.iter().max_by_key(|answer| answer.took).unwrap();
    assert!(worst.took <= stretch(Duration::from_millis(millis)), "{} took {:?}", worst.method, worst.took);
}

#[then(expr = "{word} was answered {int} times in all")]
async fn answered_times(proxy: &mut Proxy, name: String, times: usize) {
    let heard = proxy.socket(&name).heard();
    assert_eq!((heard.answers.len(), heard.owed()), (times, 0));
}

#[when(expr = "{word} sends {int} calls, and they have reached {word}")]
async fn reached(proxy: &mut Proxy, name: String, count: usize, node: String) {
    send_some(proxy, &name, count).await;
    let node = proxy.node(&node);
    eventually("they reach the node", soon(), async || match node.count("eth_getBalance") {
        seen if seen as usize == count => Ok(()),
        _ => Err(format!("{:?}", node.counts())),
    })
    .await;
    assert_eq!(proxy.socket(&name).heard().owed(), count);
}

#[then(expr = "{word} was answered {int} times before its connection ended")]
async fn answered_before(proxy: &mut Proxy, name: String, times: usize) {
    let socket = proxy.socket(&name);
    eventually("the connection ends", soon(), async || match &socket.even_over().over {
        Some(_) => Ok(()),
        None => Err("it is open".to_owned()),
    })
    .await;
    let heard = socket.even_over();
    assert_eq!((heard.answers.len(), heard.owed()), (times, 0));
    assert!(heard.answers.iter().all(|answer| value(answer)["result"].is_string()), "a call failed");
}

#[then(expr = "the answer is one batch of the ids {word}")]
async fn batch(proxy: &mut Proxy, ids: String) {
    let reply = proxy.last.as_ref().expect("a reply");
    assert!(reply.body.starts_with('['), "{reply:?}");
    let answers = parts(&reply.body).unwrap();
    let seen: Vec<_> = answers.iter().map(|answer| answer["id"].get()).collect();
    assert_eq!(seen.join(","), ids, "{reply:?}");
    assert!(answers.iter().all(|answer| answer.contains_key("result")), "{reply:?}");
}

#[when(regex = r"^(\w+) (stops reading|reads on)$")]
async fn reads(proxy: &mut Proxy, name: String, what: String) {
    proxy.socket(&name).order(Order::Read(what == "reads on")).await;
}

#[then(expr = "the proxy closes {int} client that is too slow")]
async fn slow(proxy: &mut Proxy, count: usize) {
    let proxy = &*proxy;
    eventually("it closes a slow client", soon(), async || match proxy.metric(SLOW).await {
        Some(closed) if closed as usize == count => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[then(expr = "{word} is closed with code {int}: {string}")]
async fn closed(proxy: &mut Proxy, name: String, code: u16, words: String) {
    let socket = proxy.socket(&name);
    let over = eventually(&format!("{name} is closed"), soon(), async || {
        socket.even_over().over.clone().ok_or_else(|| "it is open".to_owned())
    })
    .await;
    let (seen, reason) = over.unwrap_or_else(|error| panic!("{name} was not closed: {error}"));
    assert_eq!(seen, code, "{reason}");
    assert!(reason.contains(&words), "{reason}");
}

#[then(expr = "{word} is connected")]
async fn connected(proxy: &mut Proxy, name: String) {
    calls(proxy, name, "eth_gasPrice".to_owned()).await;
}

#[then("no node was asked for anything over HTTP")]
async fn not_over_http(proxy: &mut Proxy) {
    asked_over(proxy, Transport::Ws);
}

#[then("no node was asked for anything over a WebSocket")]
async fn not_over_websockets(proxy: &mut Proxy) {
    asked_over(proxy, Transport::Http);
}

fn asked_over(proxy: &Proxy, transport: Transport) {
    for node in proxy.names() {
        let requests = proxy.node(&node).requests();
        let other = requests.iter().find(|request| request.transport != transport);
        assert!(!requests.is_empty() && other.is_none(), "{node}: {other:?}");
    }
}
