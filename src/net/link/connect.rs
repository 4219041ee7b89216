//! How a connection comes about: dial, TLS and handshake, or the dial of an IPC socket, all in one
//! time.

use std::{path::Path, sync::Arc};

use http::{HeaderName, HeaderValue, Request, header};
use tokio::time::timeout;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{Error, error::ProtocolError, handshake::client::generate_key, protocol::WebSocketConfig},
};

use super::{
    MAX_MESSAGE, Route, Timeouts,
    socket::{Socket, Timed},
    stubs::Stubs,
};
use crate::net::{
    Dial, Endpoint,
    http::Target,
    node_connections::{Grant, Permit, Rank},
    values::Values,
};

/// The library's default of 128 KiB is for a few connections with much on them.
const READ_BUFFER: usize = 16 << 10;
/// Bytes that are gathered before they are written without a flush.
const WRITE_BUFFER: usize = 64 << 10;

/// Opens connections to one node.
pub(super) struct Connector {
    route: Route,
    dial: Arc<dyn Dial>,
    timeouts: Timeouts,
}

/// Why there is no connection.
pub(super) struct Failed {
    /// For people; names no secret.
    pub(super) why: String,
    /// The node answered, and refused the handshake.
    pub(super) refused: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, refused: false }
    }
}

impl Connector {
    pub(super) fn new(route: Route, dial: Arc<dyn Dial>, timeouts: Timeouts) -> Arc<Self> {
        Arc::new(Self { route, dial, timeouts })
    }

    /// Opens a connection.
    pub(super) async fn connect(&self) -> Result<Socket, Failed> {
        let limit = self.timeouts.connect;
        let connections = match &self.route {
            Route::WebSocket(target) => &target.connections,
            Route::Ipc { connections, .. } => connections,
        };
        let permit = match connections.free(Rank::Own, None) {
            Some(permit) => permit,
            None => match timeout(limit, connections.wait(Rank::Own, true, None)).await {
                Ok(Grant::Permit(permit)) => permit,
                Ok(Grant::Conn(_)) | Err(_) => {
                    return Err("all connections that the node takes are in use".to_owned().into());
                }
            },
        };
        let opened = async {
            match &self.route {
                Route::WebSocket(target) => self.websocket(target, permit).await,
                Route::Ipc { path, .. } => self.ipc(path, permit).await,
            }
        };
        match timeout(limit, opened).await {
            Ok(opened) => opened,
            Err(_) => Err(format!("no connection within {limit:?}").into()),
        }
    }

    async fn ipc(&self, path: &Arc<Path>, mut permit: Permit) -> Result<Socket, Failed> {
        let io = self.dial.dial(&Endpoint::Unix(path.clone())).await;
        let io = io.map_err(|error| format!("cannot connect: {error}"))?;
        permit.becomes_link();
        Ok(Socket::new(Values::new(Timed::new(io), MAX_MESSAGE).into(), permit, self.timeouts))
    }

    async fn websocket(&self, target: &Target, mut permit: Permit) -> Result<Socket, Failed> {
        let unreachable = |error| format!("cannot connect: {error}");
        let mut io = self.dial.dial(&target.endpoint).await.map_err(unreachable)?;
        if let Some(tls) = &target.tls {
            io = tls.wrap(io).await.map_err(unreachable)?;
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(2 * MAX_MESSAGE)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let request = handshake(target).map_err(|error| format!("no request can be made for it: {error}"))?;
        let opened = client_async_with_config(request, Stubs::new(Timed::new(io), MAX_MESSAGE), Some(config)).await;
        let (socket, _) = opened.map_err(|error| match error {
            Error::Http(response) => {
                let status = response.status();
                let why = format!("the node answers {status} to a WebSocket handshake: is `ws` its WebSocket port?");
                Failed { why, refused: status.is_client_error() }
            }
            error => {
                if is_hanging_up(&error) {
                    permit.refused(false);
                }
                let is_no_http = matches!(error, Error::Protocol(ProtocolError::HttparseError(_)));
                let hint = if is_no_http && target.tls.is_none() { "; does the port speak TLS (wss://)?" } else { "" };
                format!("no WebSocket handshake: {error}{hint}").into()
            }
        })?;
        permit.becomes_link();
        Ok(Socket::new(socket.into(), permit, self.timeouts))
    }
}

fn handshake(target: &Target) -> Result<Request<()>, http::Error> {
    let Target { url, headers, .. } = target;
    let uri = format!("{}://{}{}", url.scheme().as_str(), url.authority(), url.target().expose());
    let mut request = Request::get(uri).body(())?;
    let fields = request.headers_mut();
    fields.insert(header::USER_AGENT, HeaderValue::from_static(concat!("steadfast/", env!("CARGO_PKG_VERSION"))));
    fields.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(basic) = url.basic_auth() {
        fields.insert(header::AUTHORIZATION, basic.expose().clone());
    }
    for (name, value) in headers {
        fields.insert(HeaderName::try_from(name)?, HeaderValue::try_from(&value[..])?);
    }
    fields.insert(header::HOST, HeaderValue::try_from(url.authority())?);
    fields.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    fields.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::try_from(generate_key())?);
    Ok(request)
}

/// Whether the node closed the connection without a word, as one does that takes no more.
fn is_hanging_up(error: &Error) -> bool {
    match error {
        Error::Io(error) => !matches!(error.kind(), std::io::ErrorKind::TimedOut),
        Error::Protocol(ProtocolError::HandshakeIncomplete) | Error::ConnectionClosed => true,
        _ => false,
    }
}
