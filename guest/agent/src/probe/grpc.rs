//! The gRPC health probe: one call of grpc.health.v1.Health/Check over HTTP/2 without TLS.
//!
//! Only as much of HTTP/2 as one call needs: headers are sent as literals, and of the answer only DATA is read, since the
//! serving status is in there. Formats: RFC 9113 (frames), RFC 7541 (headers), gRPC over HTTP/2, health checking protocol.

use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::refused;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
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
    /// 1: serving.
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Ok if the service says that it serves; else why not.
pub async fn check(service: &str, host: &str, port: u16) -> Result<(), String> {
    let mut connection = TcpStream::connect((host, port)).await.map_err(|error| refused(port, &error))?;
    let request = request(service, &format!("{host}:{port}"))?;
    connection.write_all(&request).await.map_err(|error| refused(port, &error))?;
    let mut body = Vec::new();
    for _ in 0..MOST_FRAMES {
        let frame = read_frame(&mut connection)
            .await
            .map_err(|error| format!("no answer: {}", crate::error::reason(&error)))?;
        match frame.kind {
            DATA => body.extend_from_slice(&frame.payload),
            SETTINGS | PING if frame.flags & ACK == 0 => {
                let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
                let answer = encode_frame(frame.kind, ACK, 0, payload);
                connection.write_all(&answer).await.map_err(|error| refused(port, &error))?;
            }
            RST_STREAM | GO_AWAY => return Err("the server ended the call".to_owned()),
            _ => {}
        }
        if let Some(status) = status_of(&body)? {
            return if status == 1 { Ok(()) } else { Err(format!("the service is not serving (status {status})")) };
        }
        if frame.flags & END_STREAM != 0 && matches!(frame.kind, DATA | HEADERS) {
            return Err("the server knows no health of this service".to_owned());
        }
    }
    Err("the answer has too many frames".to_owned())
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
    out.extend(encode_frame(SETTINGS, 0, 0, &[]));
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
mod tests {
    use super::*;

    #[test]
    fn the_status_is_read_once_it_is_complete() {
        assert_eq!(status_of(&[0, 0, 0, 0]), Ok(None));
        assert_eq!(status_of(&[0, 0, 0, 0, 2, 8]), Ok(None));
        assert_eq!(status_of(&[0, 0, 0, 0, 2, 8, 1]), Ok(Some(1)));
        assert_eq!(status_of(&[0, 0, 0, 0, 0]), Ok(Some(0)));
        assert!(status_of(&[1, 0, 0, 0, 0]).is_err());
        assert!(status_of(&[0, 0, 0, 0, 1, 0xff]).is_err());
        assert_eq!(status_of(&[0, 255, 255, 255, 255, 1]), Ok(None));
    }

    #[test]
    fn a_frame_has_nine_bytes_of_head() {
        assert_eq!(encode_frame(HEADERS, 4, 1, b"ab"), [0, 0, 2, 1, 4, 0, 0, 0, 1, b'a', b'b']);
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        assert!(request("s", &"h".repeat(127)).is_err());
        assert!(request(&"s".repeat(5_000), "h").is_err());
        assert!(request("s", "h:1").unwrap().starts_with(PREFACE));
    }
}
