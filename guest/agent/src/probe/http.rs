//! The HTTP probe, with or without TLS: one GET, the status decides.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tls;
use crate::pb;

const HEAD_LIMIT: usize = 16_384;

/// Ok if the status is 200 to 399; else why not.
pub async fn check(action: &pb::HttpAction, host: &str, port: u16) -> Result<(), String> {
    let request = request(action, host, port)?;
    let connection = TcpStream::connect((host, port)).await.map_err(|error| refused(port, &error))?;
    if action.tls {
        ask(tls::connect(host, connection).await?, &request, port).await
    } else {
        ask(connection, &request, port).await
    }
}

async fn ask(mut connection: impl AsyncRead + AsyncWrite + Unpin, request: &str, port: u16) -> Result<(), String> {
    connection.write_all(request.as_bytes()).await.map_err(|error| refused(port, &error))?;
    let mut head = Vec::new();
    while !head.windows(2).any(|pair| pair == b"\r\n") && head.len() < HEAD_LIMIT {
        if connection.read_buf(&mut head).await.map_err(|error| refused(port, &error))? == 0 {
            break;
        }
    }
    let status = status_of(&head).ok_or("the answer is not HTTP")?;
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("HTTP status {status}")) }
}

pub fn refused(port: u16, error: &std::io::Error) -> String {
    format!("port {port}: {}", crate::error::reason(error))
}

fn request(action: &pb::HttpAction, host: &str, port: u16) -> Result<String, String> {
    let path = if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) };
    let mut headers = vec![("Host", format!("{host}:{port}")), ("User-Agent", "kube-probe/cuboid".to_owned())];
    for header in &action.headers {
        headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&header.name));
        headers.push((&header.name, header.value.clone()));
    }
    let breaks = |text: &str| text.contains(['\r', '\n']);
    if breaks(&path) || path.contains(' ') || headers.iter().any(|(name, value)| breaks(name) || breaks(value)) {
        return Err("the probe's path or headers hold a line break or a blank".to_owned());
    }
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    Ok(format!("GET {path} HTTP/1.1\r\n{lines}Accept: */*\r\nConnection: close\r\n\r\n"))
}

fn status_of(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_decides() {
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\nX: y\r\n"), Some(204));
        assert_eq!(status_of(b"HTTP/1.0 500"), Some(500));
        for bad in [&b""[..], b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n", b"\xff\xff", b"HTTP/2 200"] {
            assert_eq!(status_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn own_headers_replace_ours_and_cannot_add_lines() {
        let header = |name: &str, value: &str| pb::Header { name: name.into(), value: value.into() };
        let action =
            pb::HttpAction { path: "ok".into(), headers: vec![header("host", "a.example")], ..Default::default() };
        let text = request(&action, "10.0.0.2", 80).unwrap();
        assert!(text.starts_with("GET /ok HTTP/1.1\r\n") && text.contains("host: a.example\r\n"));
        assert!(!text.contains("10.0.0.2"));
        let action = pb::HttpAction { headers: vec![header("X", "y\r\nZ: w")], ..Default::default() };
        assert!(request(&action, "h", 80).is_err());
    }
}
