#![allow(clippy::unwrap_used, clippy::expect_used)]

use tokio::net::TcpListener;

use super::*;

const NOT_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 2];
const IS_SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

/// A block with a status 200 and, if given, `grpc-status`.
fn headers(status: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x88];
    if let Some(status) = status {
        literal(&mut block, "grpc-status", status).unwrap();
    }
    block
}

/// What a probe says of a server that reads the request and answers with these frames.
async fn probe(answer: Vec<Vec<u8>>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut preface = [0u8; PREFACE.len()];
        socket.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, *PREFACE);
        let kinds = [SETTINGS, HEADERS, DATA];
        for kind in kinds {
            assert_eq!(read_frame(&mut socket).await.unwrap().kind, kind);
        }
        socket.write_all(&encode_frame(SETTINGS, 0, 0, &[])).await.unwrap();
        socket.write_all(&encode_frame(PING, 0, 0, b"12345678")).await.unwrap();
        for expected in [SETTINGS, PING] {
            let frame = read_frame(&mut socket).await.unwrap();
            assert_eq!((frame.kind, frame.flags), (expected, ACK));
        }
        for frame in answer {
            socket.write_all(&frame).await.unwrap();
        }
    };
    tokio::join!(check("svc", "127.0.0.1", port), serve).0
}

fn data(flags: u8, payload: &[u8]) -> Vec<u8> {
    encode_frame(DATA, flags, 1, payload)
}

fn block(flags: u8, status: Option<&str>) -> Vec<u8> {
    encode_frame(HEADERS, END_HEADERS | flags, 1, &headers(status))
}

#[tokio::test(flavor = "current_thread")]
async fn a_serving_service_is_well_however_its_answer_is_cut() {
    assert_eq!(probe(vec![block(0, None), data(0, IS_SERVING)]).await, Ok(()));
    assert_eq!(
        probe(vec![block(0, None), data(0, &IS_SERVING[..3]), data(END_STREAM, &IS_SERVING[3..])]).await,
        Ok(())
    );
    let padded = [&[2], IS_SERVING, &[0, 0]].concat();
    assert_eq!(probe(vec![block(0, None), data(PADDED, &padded)]).await, Ok(()));
}

#[tokio::test(flavor = "current_thread")]
async fn why_a_service_is_not_well_is_said() {
    let says = async |frames, words: &str| {
        let error = probe(frames).await.unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    says(vec![block(0, None), data(0, NOT_SERVING)], "NOT_SERVING").await;
    says(vec![block(END_STREAM, Some("12"))], "UNIMPLEMENTED").await;
    says(vec![block(0, None), block(END_STREAM, Some("5"))], "NOT_FOUND").await;
    says(vec![block(END_STREAM, Some("14"))], "gRPC status 14").await;
    says(vec![block(END_STREAM, None)], "without a gRPC status").await;
    says(vec![block(0, None), data(END_STREAM, b"")], "no health status").await;
    says(vec![encode_frame(RST_STREAM, 0, 1, &[0, 0, 0, 7])], "refused stream").await;
    says(vec![encode_frame(GO_AWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])], "enhance your calm").await;
    says(vec![encode_frame(GO_AWAY, 0, 0, &[0])], "error 4294967295").await;
    says(vec![], "no answer").await;
}

#[tokio::test(flavor = "current_thread")]
async fn headers_may_go_on_in_further_frames() {
    let (whole, flags) = (headers(Some("5")), END_STREAM | PRIORITY);
    let first = [&[0; 5], &whole[..4]].concat();
    let frames = vec![encode_frame(HEADERS, flags, 1, &first), encode_frame(CONTINUATION, END_HEADERS, 1, &whole[4..])];
    assert!(probe(frames).await.unwrap_err().contains("NOT_FOUND"));
}

#[test]
fn a_frame_whose_padding_is_longer_than_itself_is_malformed() {
    for payload in [&b""[..], &[9], &[2, 0]] {
        let frame = Frame { kind: DATA, flags: PADDED, payload: payload.to_vec() };
        assert!(content(&frame).is_err(), "{payload:?}");
    }
}

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
