//! Drives the channel over a port: reads the host's frames, hands calls to the handler, writes what waits.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::sleep;

use super::events::EventLog;
use super::frame::{Decoder, Frame, Kind, MAX_MESSAGE, MORE};
use super::streams::{Connection, Core, StreamHandle};
use crate::pb;

/// How a build tool finds the version in the binary.
#[used]
static MARK: &str = concat!("cuboid-agent/", env!("CARGO_PKG_VERSION"));

/// Open streams that a host may have.
pub const MAX_STREAMS: usize = 256;
/// Version of the contract that is spoken here.
const VERSION: u32 = 1;
/// Above this many bytes waiting for the port, nothing more is read: a host that does not read is not served.
const READ_PAUSE: usize = 1 << 20;
/// Room made for one read.
const READ_SIZE: usize = 16 << 10;
/// The kernel takes at most this much in one write to a virtio-serial port.
const WRITE_SIZE: usize = 32 << 10;
const PING_LIMIT: usize = 64;
/// Between looks for a host while none is connected: short at first, for a host that only reconnects.
const PAUSE_FIRST: Duration = Duration::from_millis(2);
const PAUSE_LONG: Duration = Duration::from_millis(20);

/// What serves the calls.
pub trait Handler {
    /// A call has come. Must not block: work of any length goes in a task of its own, which owns the stream.
    fn call(&self, call: pb::call::Call, stream: StreamHandle);

    /// What a host is told in the answer to its greeting: the guest's boot id; empty until it has one.
    fn boot_id(&self) -> String {
        String::new()
    }
}

enum Step {
    Read,
    Closed,
    Woken,
}

/// A message whose last frame has not come yet.
struct Partial {
    stream: u32,
    bytes: Vec<u8>,
}

pub struct Mux {
    handler: Rc<dyn Handler>,
    events: EventLog,
    connection: Rc<Connection>,
    decoder: Decoder,
    partial: Option<Partial>,
    greeted: bool,
}

impl Mux {
    pub fn new(handler: Rc<dyn Handler>, events: EventLog) -> Self {
        let (connection, decoder) = (Rc::default(), Decoder::new());
        Self { handler, events, connection, decoder, partial: None, greeted: false }
    }

    /// Serve for ever. A host that goes away ends its streams, not this.
    pub async fn run<P: AsyncRead + AsyncWrite + Unpin>(mut self, mut port: P) {
        let mut pause = PAUSE_FIRST;
        loop {
            match self.step(&mut port).await {
                Step::Read => {
                    pause = PAUSE_FIRST;
                    while let Some(frame) = self.decoder.next_frame() {
                        self.handle(frame);
                    }
                }
                Step::Closed => {
                    if !self.owes_greeting() {
                        self.disconnect();
                        self.decoder.lose_step();
                    }
                    sleep(pause).await;
                    pause = (pause + Duration::from_millis(1)).min(PAUSE_LONG);
                }
                Step::Woken => {}
            }
            self.queue_events();
        }
    }

    /// Write and read as far as the port goes; ends when there is something to do.
    async fn step<P: AsyncRead + AsyncWrite + Unpin>(&mut self, port: &mut P) -> Step {
        let mut polled = false;
        poll_fn(|context| {
            if std::mem::replace(&mut polled, true) && self.has_unsent_events() {
                return Poll::Ready(Step::Woken);
            }
            self.connection.wake_on_append(context.waker());
            self.events.wake_on_push(context.waker());
            if self.poll_write(port, context).is_err() {
                return Poll::Ready(Step::Closed);
            }
            if self.connection.waiting() > READ_PAUSE {
                return Poll::Pending;
            }
            self.poll_read(port, context)
        })
        .await
    }

    /// That a host is there is told apart from its bytes, and may be told later: one whose greeting has come has not
    /// gone because the port does not know it yet. If it has gone, the next one drops the answer to another's greeting.
    fn owes_greeting(&self) -> bool {
        self.greeted && self.connection.is_unheard()
    }

    fn has_unsent_events(&self) -> bool {
        self.greeted && self.events.has_unsent()
    }

    fn poll_write<P: AsyncWrite + Unpin>(&self, port: &mut P, context: &mut Context<'_>) -> Result<(), ()> {
        while self.connection.waiting() > 0 {
            let written = self.connection.with_waiting(|bytes| {
                let piece = &bytes[..bytes.len().min(WRITE_SIZE)];
                match Pin::new(&mut *port).poll_write(context, piece) {
                    Poll::Ready(Ok(count)) if count > 0 => (count, Some(Ok(()))),
                    Poll::Ready(_) => (0, Some(Err(()))),
                    Poll::Pending => (0, None),
                }
            });
            match written {
                Some(result) => result?,
                None => break,
            }
        }
        Ok(())
    }

    fn poll_read<P: AsyncRead + Unpin>(&mut self, port: &mut P, context: &mut Context<'_>) -> Poll<Step> {
        let buffer = self.decoder.buffer();
        buffer.reserve(READ_SIZE);
        match pin!(port.read_buf(buffer)).poll(context) {
            Poll::Ready(Ok(count)) if count > 0 => Poll::Ready(Step::Read),
            Poll::Ready(_) => Poll::Ready(Step::Closed),
            Poll::Pending => Poll::Pending,
        }
    }

    /// End what belongs to the connection: streams, a half message, what waits for the port. Events stay.
    fn disconnect(&mut self) {
        self.greeted = false;
        self.partial = None;
        self.connection.reset();
        self.events.rewind();
    }

    fn queue_events(&self) {
        while self.greeted && self.connection.waiting() < READ_PAUSE {
            let Some(event) = self.events.next_unsent() else {
                break;
            };
            self.connection.append(Kind::Event, 0, 0, &event);
        }
    }

    fn handle(&mut self, frame: Frame) {
        match frame.kind {
            Kind::Hello => self.hello(&frame.payload),
            Kind::Call => self.call(&frame),
            Kind::Ping => {
                let echo = &frame.payload[..frame.payload.len().min(PING_LIMIT)];
                self.connection.append(Kind::Pong, 0, 0, echo);
            }
            Kind::EventAck => {
                if let Some(number) = frame.payload.first_chunk() {
                    self.events.acknowledge(u64::from_le_bytes(*number));
                }
            }
            Kind::Data | Kind::Credit | Kind::End | Kind::Reset => self.on_stream(frame),
            // Only the guest sends these.
            Kind::HelloAck | Kind::Reply | Kind::Event | Kind::Pong => {}
        }
    }

    fn hello(&mut self, payload: &[u8]) {
        let Ok(hello) = pb::Hello::decode(payload) else {
            return;
        };
        self.disconnect();
        self.greeted = true;
        let ack = pb::HelloAck {
            version: VERSION,
            nonce: hello.nonce,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: self.handler.boot_id(),
            first_event: self.events.first(),
        };
        self.connection.append(Kind::HelloAck, 0, 0, &ack.encode_to_vec());
    }

    fn call(&mut self, frame: &Frame) {
        let whole = match self.assemble(frame) {
            Ok(Some(whole)) => whole,
            Ok(None) => return,
            Err(reason) => return self.connection.send_reset(frame.stream, reason),
        };
        let stream = match self.open(frame.stream) {
            Ok(stream) => stream,
            Err(reason) => return self.connection.send_reset(frame.stream, reason),
        };
        match decode_call(&whole) {
            Some(call) => self.handler.call(call, stream),
            None => stream.finish_with(pb::reply::Reply::Error(pb::Error {
                code: pb::error::Code::Unsupported.into(),
                message: "this agent does not know the call".to_owned(),
                errno: 0,
            })),
        }
    }

    /// Put a message together; None until its last frame is here.
    fn assemble(&mut self, frame: &Frame) -> Result<Option<Bytes>, &'static str> {
        let more = frame.flags & MORE != 0;
        let Some(mut partial) = self.partial.take() else {
            if more {
                self.partial = Some(Partial { stream: frame.stream, bytes: frame.payload.to_vec() });
                return Ok(None);
            }
            return Ok(Some(frame.payload.clone()));
        };
        if partial.stream != frame.stream {
            return Err("a call within another call's frames");
        }
        if partial.bytes.len() + frame.payload.len() > MAX_MESSAGE {
            return Err("the call is too long");
        }
        partial.bytes.extend_from_slice(&frame.payload);
        if more {
            self.partial = Some(partial);
            return Ok(None);
        }
        Ok(Some(partial.bytes.into()))
    }

    fn open(&self, id: u32) -> Result<StreamHandle, &'static str> {
        let mut streams = self.connection.streams.borrow_mut();
        if id == 0 || streams.contains_key(&id) {
            return Err("the stream id is taken");
        }
        if streams.len() >= MAX_STREAMS {
            return Err("too many streams are open");
        }
        let core = Core::new();
        streams.insert(id, Rc::clone(&core));
        Ok(StreamHandle::new(id, core, Rc::clone(&self.connection)))
    }

    /// A frame of an open stream. One of a stream that is over already was under way when it ended: nothing to do.
    fn on_stream(&self, frame: Frame) {
        let found = self.connection.streams.borrow().get(&frame.stream).cloned();
        let Some(core) = found else { return };
        let fair = match frame.kind {
            Kind::Data => core.data(frame.flags, frame.payload),
            Kind::End => core.end(frame.flags),
            Kind::Credit => frame.payload.first_chunk().is_some_and(|bytes| {
                core.add_credit(u32::from_le_bytes(*bytes));
                true
            }),
            _ => return self.forget(frame.stream, &core),
        };
        if !fair {
            self.forget(frame.stream, &core);
            self.connection.send_reset(frame.stream, "more was sent than allowed");
        }
    }

    fn forget(&self, id: u32, core: &Core) {
        self.connection.streams.borrow_mut().remove(&id);
        core.reset();
    }
}

fn decode_call(bytes: &[u8]) -> Option<pb::call::Call> {
    pb::Call::decode(bytes).ok()?.call
}

#[cfg(test)]
#[path = "mux_tests.rs"]
mod tests;
