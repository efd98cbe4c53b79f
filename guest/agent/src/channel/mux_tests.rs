#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;

use tokio::io::{AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use super::super::frame::{HEADER, MAX_PAYLOAD, append_checked};
use super::super::streams::{Incoming, WINDOW};
use super::*;

/// A port to which one host after another connects, as to a virtio-serial device.
struct TestPort {
    current: Option<DuplexStream>,
    next: mpsc::UnboundedReceiver<DuplexStream>,
}

impl AsyncRead for TestPort {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.current.is_none() {
            self.current = self.next.try_recv().ok();
        }
        let Some(host) = self.current.as_mut() else {
            return Poll::Ready(Ok(()));
        };
        let before = buffer.filled().len();
        let result = Pin::new(host).poll_read(context, buffer);
        if result.is_ready() && buffer.filled().len() == before {
            self.current = None;
        }
        result
    }
}

impl AsyncWrite for TestPort {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.current.as_mut() {
            Some(host) => Pin::new(host).poll_write(context, bytes),
            None => Poll::Pending,
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Echoes exec's stdin to stdout, floods on logs, answers list, keeps anything else open until it is reset.
#[derive(Default)]
struct TestHandler {
    resets: Rc<RefCell<Vec<u32>>>,
}

impl Handler for TestHandler {
    fn call(&self, call: pb::call::Call, stream: StreamHandle) {
        let resets = Rc::clone(&self.resets);
        spawn_local(async move {
            match call {
                pb::call::Call::Exec(_) => echo(&stream).await,
                pb::call::Call::Logs(logs) => flood(&stream, logs.offset as usize).await,
                pb::call::Call::List(_) => {
                    stream.reply(pb::reply::Reply::State(pb::State::default())).await;
                }
                pb::call::Call::Shutdown(_) => std::future::pending().await,
                _ => {
                    while let Some(item) = stream.recv().await {
                        if item == Incoming::Reset {
                            resets.borrow_mut().push(stream.id());
                        }
                    }
                }
            }
        });
    }
}

async fn echo(stream: &StreamHandle) {
    while let Some(item) = stream.recv().await {
        match item {
            Incoming::Data(_, bytes) => drop(stream.send(1, &bytes).await),
            Incoming::End(_) => {
                return stream.reply(pb::reply::Reply::Exit(pb::ExitStatus::default())).await;
            }
            Incoming::Reset => return,
        }
    }
}

async fn flood(stream: &StreamHandle, bytes: usize) {
    if stream.send(0, &vec![7; bytes]).await.is_ok() {
        stream.reply(pb::reply::Reply::Logs(pb::LogsEnd::default())).await;
    }
}

struct Host {
    port: DuplexStream,
    wire: Vec<u8>,
}

impl Host {
    async fn greet(mut self, nonce: &[u8]) -> Self {
        self.port.write_all(&vec![0; HEADER + MAX_PAYLOAD]).await.unwrap();
        let hello = pb::Hello { version: 1, nonce: nonce.to_vec() };
        self.send(Kind::Hello, 0, &hello.encode_to_vec()).await;
        let (kind, _, _, payload) = self.receive().await;
        assert_eq!(kind, Kind::HelloAck as u8);
        assert_eq!(pb::HelloAck::decode(&*payload).unwrap().nonce, nonce);
        self
    }

    async fn send(&mut self, kind: Kind, stream: u32, payload: &[u8]) {
        let mut bytes = Vec::new();
        append_checked(&mut bytes, kind, 0, stream, payload);
        self.port.write_all(&bytes).await.unwrap();
    }

    async fn call(&mut self, stream: u32, call: pb::call::Call) {
        let call = pb::Call { call: Some(call) };
        self.send(Kind::Call, stream, &call.encode_to_vec()).await;
    }

    /// Kind, flags, stream and payload of the next frame.
    async fn receive(&mut self) -> (u8, u8, u32, Vec<u8>) {
        while self.wire.len() < HEADER || self.wire.len() < HEADER + self.length() {
            assert_ne!(self.port.read_buf(&mut self.wire).await.unwrap(), 0, "the agent ended");
        }
        let rest = self.wire.split_off(HEADER + self.length());
        let frame = std::mem::replace(&mut self.wire, rest);
        let stream = u32::from_le_bytes(*frame[4..].first_chunk().unwrap());
        (frame[2], frame[3], stream, frame[HEADER..].to_vec())
    }

    fn length(&self) -> usize {
        u32::from_le_bytes(*self.wire[8..].first_chunk().unwrap()) as usize
    }

    async fn nothing_comes(&mut self) {
        let wait = tokio::time::timeout(Duration::from_millis(30), self.receive());
        assert!(wait.await.is_err());
    }
}

struct Guest {
    connect: mpsc::UnboundedSender<DuplexStream>,
    events: EventLog,
    resets: Rc<RefCell<Vec<u32>>>,
}

impl Guest {
    fn start() -> Self {
        let (connect, next) = mpsc::unbounded_channel();
        let handler = TestHandler::default();
        let resets = Rc::clone(&handler.resets);
        let events = EventLog::new();
        let mux = Mux::new(Rc::new(handler), events.clone());
        spawn_local(mux.run(TestPort { current: None, next }));
        Self { connect, events, resets }
    }

    fn host(&self) -> Host {
        let (port, far) = duplex(64 << 10);
        self.connect.send(far).unwrap();
        Host { port, wire: Vec::new() }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test stands still");
    });
}

fn exec() -> pb::call::Call {
    pb::call::Call::Exec(pb::Exec::default())
}

#[test]
fn bytes_go_in_and_out_under_flow_control() {
    run(async {
        let mut host = Guest::start().host().greet(b"n").await;
        host.call(1, exec()).await;
        let (mut sent, mut allowed, mut back) = (0, WINDOW as usize, 0);
        while back < 3 << 20 {
            while sent < 3 << 20 && allowed >= 32_768 && sent - back < 65_536 {
                host.send(Kind::Data, 1, &[3; 32_768]).await;
                sent += 32_768;
                allowed -= 32_768;
            }
            let (kind, flags, _, payload) = host.receive().await;
            if kind == Kind::Credit as u8 {
                allowed += u32::from_le_bytes(*payload.first_chunk().unwrap()) as usize;
            } else {
                assert_eq!((kind, flags), (Kind::Data as u8, 1));
                back += payload.len();
                host.send(Kind::Credit, 1, &(payload.len() as u32).to_le_bytes()).await;
            }
        }
        assert_eq!(back, sent);
        host.send(Kind::End, 1, b"").await;
        let mut kind = host.receive().await.0;
        while kind == Kind::Credit as u8 {
            kind = host.receive().await.0;
        }
        assert_eq!(kind, Kind::Reply as u8);
    });
}

#[test]
fn the_guest_never_sends_more_than_its_credit() {
    run(async {
        let mut host = Guest::start().host().greet(b"n").await;
        host.call(1, pb::call::Call::Logs(pb::Logs { offset: 1 << 20, ..Default::default() })).await;
        let mut got = 0;
        while got < WINDOW as usize {
            got += host.receive().await.3.len();
        }
        assert_eq!(got, WINDOW as usize);
        host.nothing_comes().await;
        host.send(Kind::Credit, 1, &10u32.to_le_bytes()).await;
        assert_eq!(host.receive().await.3.len(), 10);
    });
}

#[test]
fn a_host_that_sends_more_than_its_credit_loses_the_stream() {
    run(async {
        let mut host = Guest::start().host().greet(b"n").await;
        host.call(1, pb::call::Call::Shutdown(pb::Shutdown {})).await;
        for _ in 0..8 {
            host.send(Kind::Data, 1, &[0; 32_768]).await;
        }
        host.nothing_comes().await;
        host.send(Kind::Data, 1, &[0]).await;
        assert_eq!(host.receive().await.0, Kind::Reset as u8);
    });
}

#[test]
fn a_new_host_gets_every_event_that_is_not_acknowledged_and_no_old_stream() {
    run(async {
        let guest = Guest::start();
        for _ in 0..3 {
            guest.events.push(pb::event::Event::Warning(pb::Warning::default())).await;
        }
        let mut host = guest.host().greet(b"one").await;
        for number in 1..=3 {
            let (kind, _, _, payload) = host.receive().await;
            assert_eq!(kind, Kind::Event as u8);
            assert_eq!(pb::Event::decode(&*payload).unwrap().number, number);
        }
        host.send(Kind::EventAck, 0, &1u64.to_le_bytes()).await;
        host.call(5, pb::call::Call::Stats(pb::GetStats {})).await;
        host.send(Kind::Ping, 0, b"p").await;
        assert_eq!(host.receive().await.0, Kind::Pong as u8);
        drop(host);
        let mut host = guest.host().greet(b"two").await;
        assert_eq!(*guest.resets.borrow(), [5]);
        for number in 2..=3 {
            assert_eq!(pb::Event::decode(&*host.receive().await.3).unwrap().number, number);
        }
        guest.events.push(pb::event::Event::Warning(pb::Warning::default())).await;
        assert_eq!(pb::Event::decode(&*host.receive().await.3).unwrap().number, 4);
        host.nothing_comes().await;
    });
}

#[test]
fn a_host_cut_off_at_any_byte_of_a_frame_leaves_the_next_one_unharmed() {
    run(async {
        let guest = Guest::start();
        let mut frame = Vec::new();
        let call = pb::Call { call: Some(pb::call::Call::List(pb::List {})) };
        append_checked(&mut frame, Kind::Call, 0, 1, &call.encode_to_vec());
        for length in 0..frame.len() {
            let mut host = guest.host().greet(b"n").await;
            host.port.write_all(&frame[..length]).await.unwrap();
            drop(host);
        }
        let mut host = guest.host().greet(b"n").await;
        host.call(1, pb::call::Call::List(pb::List {})).await;
        assert_eq!(host.receive().await.0, Kind::Reply as u8);
    });
}

#[test]
fn a_message_longer_than_a_frame_is_put_together() {
    run(async {
        let mut host = Guest::start().host().greet(b"n").await;
        let exec = pb::Exec { args: vec!["x".repeat(150_000)], ..Default::default() };
        let call = pb::Call { call: Some(pb::call::Call::Exec(exec)) }.encode_to_vec();
        let pieces: Vec<&[u8]> = call.chunks(MAX_PAYLOAD).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let mut bytes = Vec::new();
            let flags = if index + 1 < pieces.len() { MORE } else { 0 };
            append_checked(&mut bytes, Kind::Call, flags, 3, piece);
            host.port.write_all(&bytes).await.unwrap();
        }
        host.send(Kind::End, 3, b"").await;
        assert_eq!(host.receive().await.0, Kind::Reply as u8);
    });
}

#[test]
fn a_call_that_makes_no_sense_gets_an_error_and_a_taken_id_a_reset() {
    run(async {
        let mut host = Guest::start().host().greet(b"n").await;
        host.send(Kind::Call, 1, &[0xff; 9]).await;
        let (kind, _, _, payload) = host.receive().await;
        assert_eq!(kind, Kind::Reply as u8);
        let reply = pb::Reply::decode(&*payload).unwrap().reply;
        assert!(matches!(reply, Some(pb::reply::Reply::Error(_))));
        host.call(3, exec()).await;
        host.call(3, exec()).await;
        assert_eq!(host.receive().await.0, Kind::Reset as u8);
    });
}

#[test]
fn more_streams_than_allowed_are_reset() {
    run(async {
        let mut host = Guest::start().host().greet(b"n").await;
        for id in 1..=MAX_STREAMS as u32 + 1 {
            host.call(id, exec()).await;
        }
        let (kind, _, stream, _) = host.receive().await;
        assert_eq!((kind, stream), (Kind::Reset as u8, MAX_STREAMS as u32 + 1));
    });
}

/// A port that has the host's first bytes before it knows that a host is there.
struct LatePort {
    hello: Vec<u8>,
    announced: Rc<std::cell::Cell<bool>>,
    sent: Rc<RefCell<Vec<u8>>>,
}

impl AsyncRead for LatePort {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        if self.hello.is_empty() && self.announced.get() {
            return Poll::Pending;
        }
        buffer.put_slice(&std::mem::take(&mut self.hello));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LatePort {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        if !self.announced.get() {
            return Poll::Pending;
        }
        self.sent.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_greeting_that_comes_before_its_host_is_announced_is_answered() {
    run(async {
        let (announced, sent) = (Rc::new(std::cell::Cell::new(false)), Rc::new(RefCell::new(Vec::new())));
        let mut hello = Vec::new();
        let greeting = pb::Hello { version: 1, nonce: b"early".to_vec() };
        append_checked(&mut hello, Kind::Hello, 0, 0, &greeting.encode_to_vec());
        let port = LatePort { hello, announced: Rc::clone(&announced), sent: Rc::clone(&sent) };
        spawn_local(Mux::new(Rc::new(TestHandler::default()), EventLog::new()).run(port));
        sleep(Duration::from_millis(30)).await;
        assert!(sent.borrow().is_empty());
        announced.set(true);
        sleep(Duration::from_millis(60)).await;
        let sent = sent.borrow();
        assert_eq!(sent[2], Kind::HelloAck as u8);
        assert_eq!(pb::HelloAck::decode(&sent[HEADER..]).unwrap().nonce, b"early");
    });
}
