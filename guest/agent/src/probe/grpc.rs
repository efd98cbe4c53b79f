//! The gRPC health probe: one call of grpc.health.v1.Health/Check over HTTP/2 without TLS.
//!
//! Only as much of HTTP/2 as one call needs: headers are sent as literals; of the answer DATA is read, which holds the
//! serving status, and of the last headers the status of a call that failed. Formats: RFC 9113 (frames), RFC 7541 (headers), gRPC over HTTP/2, health checking protocol.

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::hpack;
use super::http::refused;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// SETTINGS_HEADER_TABLE_SIZE 0: no header refers to an earlier one.
const NO_TABLE: [u8; 6] = [0, 1, 0, 0, 0, 0];
const SERVING: i32 = 1;
/// HTTP/2's own limit unless agreed otherwise.
const FRAME_LIMIT: usize = 16_384;
/// An answer in more frames than this is none.
const MOST_FRAMES: usize = 64;

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Ok if the service says that it serves; else why not.
pub async fn check(service: &str, host: &str, port: u16) -> Result<(), String> {
    let mut connection = TcpStream::connect((host, port)).await.map_err(|error| refused(port, &error))?;
    let request = request(service, &format!("{host}:{port}"))?;
    connection.write_all(&request).await.map_err(|error| refused(port, &error))?;
    let mut answer = Answer::default();
    for _ in 0..MOST_FRAMES {
        let frame = read_frame(&mut connection)
            .await
            .map_err(|error| format!("no answer: {}", crate::error::reason(&error)))?;
        if matches!(frame.kind, SETTINGS | PING) && frame.flags & ACK == 0 {
            let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
            let answer = encode_frame(frame.kind, ACK, 0, payload);
            connection.write_all(&answer).await.map_err(|error| refused(port, &error))?;
        }
        if answer.take(&frame)? {
            return Ok(());
        }
    }
    Err("the answer has too many frames".to_owned())
}

/// What has come of the answer.
#[derive(Default)]
struct Answer {
    body: Vec<u8>,
    headers: Vec<u8>,
    /// The headers that are under way are the last of the stream.
    last: bool,
}

impl Answer {
    /// True when the service serves; the error says why it does not, or why that cannot be known.
    fn take(&mut self, frame: &Frame) -> Result<bool, String> {
        match frame.kind {
            DATA => self.body.extend_from_slice(content(frame)?),
            HEADERS => {
                self.headers = content(frame)?.to_vec();
                self.last = frame.flags & END_STREAM != 0;
            }
            CONTINUATION => self.headers.extend_from_slice(&frame.payload),
            RST_STREAM => return Err(format!("the server reset the call: {}", reason(&frame.payload, 0))),
            GO_AWAY => return Err(format!("the server closed the connection: {}", reason(&frame.payload, 4))),
            _ => return Ok(false),
        }
        match status_of(&self.body)? {
            Some(SERVING) => return Ok(true),
            Some(status) => return Err(format!("the service is not serving: {}", serving(status))),
            None => {}
        }
        let block_ended = matches!(frame.kind, HEADERS | CONTINUATION) && frame.flags & END_HEADERS != 0;
        if block_ended && self.last {
            return Err(refusal(hpack::grpc_status(&self.headers)));
        }
        if frame.kind == DATA && frame.flags & END_STREAM != 0 {
            return Err("the answer is no health status".to_owned());
        }
        Ok(false)
    }
}

/// The payload without padding and priority.
fn content(frame: &Frame) -> Result<&[u8], String> {
    let padded = frame.flags & PADDED != 0;
    let skipped = usize::from(padded) + if frame.kind == HEADERS && frame.flags & PRIORITY != 0 { 5 } else { 0 };
    let padding = if padded { frame.payload.first().copied().unwrap_or(0) } else { 0 };
    let end = frame.payload.len().checked_sub(usize::from(padding));
    end.and_then(|end| frame.payload.get(skipped..end)).ok_or_else(|| "a frame is malformed".to_owned())
}

/// An error of HTTP/2, which begins at `at`.
fn reason(payload: &[u8], at: usize) -> String {
    const NAMES: [&str; 14] = [
        "no error",
        "protocol error",
        "internal error",
        "flow control error",
        "settings timeout",
        "stream closed",
        "frame size error",
        "refused stream",
        "cancelled",
        "compression error",
        "connect error",
        "enhance your calm",
        "inadequate security",
        "HTTP/1.1 required",
    ];
    let code =
        payload.get(at..at + 4).map_or(u32::MAX, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]));
    NAMES.get(code as usize).map_or_else(|| format!("error {code}"), |name| (*name).to_owned())
}

/// HealthCheckResponse.ServingStatus.
fn serving(status: i32) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => format!("status {other}"),
    }
}

/// What a call that ended without an answer says by its status.
fn refusal(status: Option<u32>) -> String {
    match status {
        Some(5) => "the server does not know this service (NOT_FOUND)".to_owned(),
        Some(12) => "the server has no grpc.health.v1.Health (UNIMPLEMENTED)".to_owned(),
        Some(status) => format!("the call failed with the gRPC status {status}"),
        None => "the call ended without a gRPC status".to_owned(),
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

async fn read_frame(connection: &mut TcpStream) -> std::io::Result<Frame> {
    let mut head = [0u8; 9];
    connection.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    if length > FRAME_LIMIT {
        return Err(std::io::Error::other("a frame is too large"));
    }
    let mut payload = vec![0u8; length];
    connection.read_exact(&mut payload).await?;
    Ok(Frame { kind: head[3], flags: head[4], payload })
}

fn encode_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

fn request(service: &str, authority: &str) -> Result<Vec<u8>, String> {
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "kube-probe/cuboid"),
    ] {
        literal(&mut headers, name, value)?;
    }
    let message = Request { service: service.to_owned() }.encode_to_vec();
    if message.len() > 4_096 {
        return Err("the service's name is too long".to_owned());
    }
    let mut body = vec![0u8];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    let mut out = PREFACE.to_vec();
    out.extend(encode_frame(SETTINGS, 0, 0, &NO_TABLE));
    out.extend(encode_frame(HEADERS, END_HEADERS, 1, &headers));
    out.extend(encode_frame(DATA, END_STREAM, 1, &body));
    Ok(out)
}

/// A header as a literal without indexing and without Huffman coding.
fn literal(out: &mut Vec<u8>, name: &str, value: &str) -> Result<(), String> {
    out.push(0);
    for text in [name, value] {
        // Seven bits hold the length up to 126.
        let length = u8::try_from(text.len()).ok().filter(|length| *length < 127);
        out.push(length.ok_or("the host's name is too long")?);
        out.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

/// The serving status in a gRPC message; None until it is complete.
fn status_of(body: &[u8]) -> Result<Option<i32>, String> {
    let Some((head, rest)) = body.split_first_chunk::<5>() else { return Ok(None) };
    if head[0] != 0 {
        return Err("the answer is compressed".to_owned());
    }
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let Some(message) = rest.get(..length) else { return Ok(None) };
    let response = Response::decode(message).map_err(|_| "the answer is no health status".to_owned())?;
    Ok(Some(response.status))
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
