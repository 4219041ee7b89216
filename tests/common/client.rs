//! A client that writes the bytes it is given and reads what comes back, framing included.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::SOON;

/// A response as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub version: String,
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Why no whole response came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The connection ended, after so many bytes of the response.
    Closed(usize),
    /// A reset.
    Reset,
    /// Bytes that are no HTTP.
    Garbage(String),
}

/// A connection.
pub struct Client<S = TcpStream> {
    pub io: S,
    pub read: Vec<u8>,
}

impl Client {
    pub async fn connect(addr: SocketAddr) -> Self {
        let io = TcpStream::connect(addr).await.unwrap();
        io.set_nodelay(true).unwrap();
        Self::over(io)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(io: S) -> Self {
        Self { io, read: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        timeout(SOON, self.io.write_all(bytes.as_ref())).await.expect("the write stalls").unwrap();
        self.io.flush().await.unwrap();
    }

    /// Posts `body` and waits for the response.
    pub async fn post(&mut self, body: impl AsRef<[u8]>) -> Response {
        self.send(post("/", body.as_ref())).await;
        self.response().await
    }

    /// The next response, which must come whole.
    pub async fn response(&mut self) -> Response {
        self.try_response().await.unwrap_or_else(|broken| panic!("no response: {broken:?}"))
    }

    pub async fn try_response(&mut self) -> Result<Response, Broken> {
        timeout(SOON * 4, self.read_response()).await.expect("no response in time")
    }

    async fn read_response(&mut self) -> Result<Response, Broken> {
        let head = loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                let head = std::mem::replace(&mut self.read, rest);
                let head = String::from_utf8(head).map_err(|error| Broken::Garbage(error.to_string()))?;
                // An interim response is no answer.
                if !head.starts_with("HTTP/1.1 1") {
                    break head;
                }
                continue;
            }
            self.fill().await?;
        };
        let mut lines = head.trim_end().split("\r\n");
        let first = lines.next().unwrap_or_default();
        let (version, rest) = first.split_once(' ').ok_or_else(|| Broken::Garbage(first.to_owned()))?;
        let status = rest.split(' ').next().unwrap_or_default();
        let status = status.parse().map_err(|_| Broken::Garbage(first.to_owned()))?;
        let mut headers = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| Broken::Garbage(line.to_owned()))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut response = Response { version: version.to_owned(), status, headers, body: Vec::new() };
        if status == 204 {
            return Ok(response);
        }
        response.body = if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| Broken::Garbage(length.to_owned()))?;
            self.take(length).await?
        } else if response.header("transfer-encoding").is_some() {
            self.chunks().await?
        } else {
            let mut whole = std::mem::take(&mut self.read);
            self.io.read_to_end(&mut whole).await.map_err(|_| Broken::Reset)?;
            whole
        };
        Ok(response)
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, Broken> {
        let mut whole = Vec::new();
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(|_| Broken::Garbage(line))?;
            whole.extend(self.take(size).await?);
            let end = self.line().await?;
            if !end.is_empty() {
                return Err(Broken::Garbage(end));
            }
            if size == 0 {
                return Ok(whole);
            }
        }
    }

    async fn line(&mut self) -> Result<String, Broken> {
        loop {
            if let Some(end) = self.read.windows(2).position(|window| window == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, Broken> {
        while self.read.len() < length {
            self.fill().await?;
        }
        let rest = self.read.split_off(length);
        Ok(std::mem::replace(&mut self.read, rest))
    }

    async fn fill(&mut self) -> Result<(), Broken> {
        self.read.reserve(64 * 1024);
        match self.io.read_buf(&mut self.read).await {
            Ok(0) => Err(Broken::Closed(self.read.len())),
            Ok(_) => Ok(()),
            Err(_) => Err(Broken::Reset),
        }
    }

    /// The head of what comes next, up to the blank line.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.bytes(end + 4).await).unwrap();
            }
            timeout(SOON, self.fill()).await.expect("no head in time").unwrap();
        }
    }

    /// The next bytes, so many.
    pub async fn bytes(&mut self, length: usize) -> Vec<u8> {
        timeout(SOON * 4, self.take(length)).await.expect("nothing comes").unwrap()
    }

    /// Whether the peer ends the connection, with nothing more to say.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        self.read.is_empty() && matches!(timeout(SOON, self.io.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
    }

    /// Whether nothing comes that was not asked for.
    pub async fn is_silent(&mut self) -> bool {
        let mut byte = [0];
        let wait = std::time::Duration::from_millis(50);
        self.read.is_empty() && timeout(wait, self.io.read(&mut byte)).await.is_err()
    }
}

/// A header that changes nothing, but for the way that a request takes through the door: that of
/// all which is not plain.
pub const ROUNDABOUT: &str = "Connection: keep-alive, te\r\n";

/// A plain request.
pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    with_headers(path, "", body)
}

/// A plain request with `headers` besides, each with its line end.
pub fn with_headers(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A request whose body comes in chunks of `size`.
pub fn chunked(headers: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!(
        "POST / HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n{headers}\r\n"
    );
    let mut bytes = head.into_bytes();
    for piece in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// A call.
pub fn call(id: impl std::fmt::Display, method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#)
}
