//! One stream: what a call's handler holds, and what the connection keeps for it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use prost::Message;
use tokio::sync::Notify;

use super::frame::{self, Kind, MAX_MESSAGE, MAX_PAYLOAD};
use crate::pb;

/// Bytes of DATA that may be under way in each direction of a stream.
pub const WINDOW: u32 = 262_144;
/// Credit is given back in pieces of this size: few frames, and a sender that never stands still.
const CREDIT_STEP: u32 = WINDOW / 4;
/// Above this many bytes waiting for the port, senders wait.
const OUT_HIGH: usize = 128 << 10;
/// Bytes of a RESET's reason.
const REASON_LIMIT: usize = 1_024;

/// The stream is over: the host reset it, went away, or has its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the host's end of the stream is gone")
    }
}

impl std::error::Error for Gone {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// Channel and bytes. Their credit goes back at the next `recv`.
    Data(u8, Bytes),
    /// No more DATA comes on this channel.
    End(u8),
    /// The host gave the stream up, or is gone. Nothing follows.
    Reset,
}

/// What all streams of the connection share: bytes for the port and who waits for it.
#[derive(Default)]
pub(super) struct Connection {
    out: RefCell<Out>,
    pub(super) streams: RefCell<HashMap<u32, Rc<Core>>>,
    room: Notify,
    waker: RefCell<Option<Waker>>,
}

/// Frames waiting for the port, in one piece of memory so that one write takes many.
#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    written: usize,
    /// Whether any byte has gone out since the connection began.
    begun: bool,
}

impl Connection {
    pub(super) fn append(&self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        frame::append(&mut self.out.borrow_mut().bytes, kind, flags, stream, payload);
        self.wake();
    }

    fn append_message(&self, kind: Kind, stream: u32, message: &[u8]) {
        frame::append_message(&mut self.out.borrow_mut().bytes, kind, stream, message);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(super) fn wake_on_append(&self, waker: &Waker) {
        *self.waker.borrow_mut() = Some(waker.clone());
    }

    pub(super) fn waiting(&self) -> usize {
        let out = self.out.borrow();
        out.bytes.len() - out.written
    }

    /// Whether there is something to send and nothing has been sent.
    pub(super) fn is_unheard(&self) -> bool {
        self.waiting() > 0 && !self.out.borrow().begun
    }

    /// Let `write` take bytes from the front; it gives back how many it took.
    pub(super) fn with_waiting<T>(&self, write: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        let mut out = self.out.borrow_mut();
        let (count, result) = write(&out.bytes[out.written..]);
        out.written += count;
        out.begun |= count > 0;
        if out.written == out.bytes.len() {
            out.bytes.clear();
            out.written = 0;
        } else if out.written > OUT_HIGH {
            let written = std::mem::take(&mut out.written);
            out.bytes.drain(..written);
        }
        let low = out.bytes.len() - out.written < OUT_HIGH;
        drop(out);
        if count > 0 && low {
            self.room.notify_waiters();
        }
        result
    }

    /// The connection is over: every stream is reset, what waited for the port is dropped.
    pub(super) fn reset(&self) {
        *self.out.borrow_mut() = Out::default();
        let streams = std::mem::take(&mut *self.streams.borrow_mut());
        for stream in streams.into_values() {
            stream.reset();
        }
        self.room.notify_waiters();
    }

    pub(super) fn send_reset(&self, stream: u32, reason: &str) {
        let mut end = reason.len().min(REASON_LIMIT);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.append(Kind::Reset, 0, stream, &reason.as_bytes()[..end]);
    }
}

/// The state of a stream that the connection and the handler share.
pub(super) struct Core {
    incoming: RefCell<VecDeque<Incoming>>,
    /// Bytes that the host may still send.
    window: Cell<u32>,
    /// Bytes handed to the handler with the last `recv`, and taken but not given back yet.
    handed: Cell<u32>,
    taken: Cell<u32>,
    /// Bytes that we may still send.
    credit: Cell<u64>,
    over: Cell<bool>,
    readable: Notify,
    writable: Notify,
}

impl Core {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self {
            incoming: RefCell::default(),
            window: Cell::new(WINDOW),
            handed: Cell::new(0),
            taken: Cell::new(0),
            credit: Cell::new(u64::from(WINDOW)),
            over: Cell::new(false),
            readable: Notify::new(),
            writable: Notify::new(),
        })
    }

    /// DATA from the host; false if it is more than its credit.
    pub(super) fn data(&self, channel: u8, bytes: Bytes) -> bool {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Some(window) = self.window.get().checked_sub(length) else {
            return false;
        };
        self.window.set(window);
        if !bytes.is_empty() {
            self.deliver(Incoming::Data(channel, bytes));
        }
        true
    }

    /// END from the host; false if it floods.
    pub(super) fn end(&self, channel: u8) -> bool {
        let ends = |item: &&Incoming| matches!(item, Incoming::End(_));
        if self.incoming.borrow().iter().filter(ends).count() > 8 {
            return false;
        }
        self.deliver(Incoming::End(channel));
        true
    }

    pub(super) fn add_credit(&self, bytes: u32) {
        self.credit.set(self.credit.get().saturating_add(u64::from(bytes)));
        self.writable.notify_waiters();
    }

    pub(super) fn reset(&self) {
        self.over.set(true);
        self.incoming.borrow_mut().clear();
        self.deliver(Incoming::Reset);
        self.writable.notify_waiters();
    }

    fn deliver(&self, item: Incoming) {
        self.incoming.borrow_mut().push_back(item);
        self.readable.notify_waiters();
    }
}

/// The handler's end of a stream. Clones share it; when the last is dropped without a reply, the host gets a RESET.
#[derive(Clone)]
pub struct StreamHandle(Rc<Handle>);

struct Handle {
    id: u32,
    core: Rc<Core>,
    connection: Rc<Connection>,
}

enum Sent {
    Bytes(usize),
    NeedsCredit,
    NeedsRoom,
}

impl StreamHandle {
    pub(super) fn new(id: u32, core: Rc<Core>, connection: Rc<Connection>) -> Self {
        Self(Rc::new(Handle { id, core, connection }))
    }

    /// A stream to nobody: what is sent waits until it is dropped.
    pub fn unheard() -> Self {
        Self::new(1, Core::new(), Rc::default())
    }

    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Whether nothing can be sent any more.
    pub fn is_over(&self) -> bool {
        self.0.core.over.get()
    }

    /// What the host sent next; None after Reset. Asking again says that the last piece is dealt with. May be cancelled.
    pub async fn recv(&self) -> Option<Incoming> {
        let core = &self.0.core;
        self.give_credit(core.handed.take());
        let next = || match core.incoming.borrow_mut().pop_front() {
            None if core.over.get() => Some(None),
            item => item.map(Some),
        };
        let item = super::wait_until(&core.readable, next).await;
        if let Some(Incoming::Data(_, bytes)) = &item {
            core.handed.set(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        item
    }

    fn give_credit(&self, bytes: u32) {
        let core = &self.0.core;
        let taken = core.taken.get() + bytes;
        if taken < CREDIT_STEP || core.over.get() {
            core.taken.set(taken);
            return;
        }
        core.taken.set(0);
        core.window.set(core.window.get() + taken);
        self.0.connection.append(Kind::Credit, 0, self.0.id, &taken.to_le_bytes());
    }

    /// Send all of `data` on a channel, waiting for credit and for the port.
    pub async fn send(&self, channel: u8, mut data: &[u8]) -> Result<(), Gone> {
        let Handle { core, connection, .. } = &*self.0;
        while !data.is_empty() {
            let credit = core.writable.notified();
            let room = connection.room.notified();
            match self.try_send(channel, data)? {
                Sent::Bytes(count) => data = &data[count..],
                Sent::NeedsCredit => credit.await,
                Sent::NeedsRoom => room.await,
            }
        }
        Ok(())
    }

    fn try_send(&self, channel: u8, data: &[u8]) -> Result<Sent, Gone> {
        let Handle { id, core, connection } = &*self.0;
        if core.over.get() {
            return Err(Gone);
        }
        let allowed = usize::try_from(core.credit.get()).unwrap_or(usize::MAX);
        let count = data.len().min(allowed).min(MAX_PAYLOAD);
        if count == 0 {
            return Ok(Sent::NeedsCredit);
        }
        if connection.waiting() >= OUT_HIGH {
            return Ok(Sent::NeedsRoom);
        }
        core.credit.set(core.credit.get() - count as u64);
        connection.append(Kind::Data, channel, *id, &data[..count]);
        Ok(Sent::Bytes(count))
    }

    /// No more DATA follows on this channel. Never waits.
    pub async fn end(&self, channel: u8) -> Result<(), Gone> {
        if self.is_over() {
            return Err(Gone);
        }
        self.0.connection.append(Kind::End, channel, self.0.id, &[]);
        Ok(())
    }

    /// The last word on the stream. Nothing happens if it is over already.
    pub async fn reply(&self, reply: pb::reply::Reply) {
        self.finish_with(reply);
    }

    pub(super) fn finish_with(&self, reply: pb::reply::Reply) {
        let bytes = pb::Reply { reply: Some(reply) }.encode_to_vec();
        if bytes.len() > MAX_MESSAGE {
            self.0.finish(|connection, id| connection.send_reset(id, "the answer is too long"));
        } else {
            self.0.finish(|connection, id| connection.append_message(Kind::Reply, id, &bytes));
        }
    }
}

impl Handle {
    fn finish(&self, say: impl FnOnce(&Connection, u32)) {
        if !self.core.over.replace(true) {
            say(&self.connection, self.id);
            self.connection.streams.borrow_mut().remove(&self.id);
            self.core.readable.notify_waiters();
            self.core.writable.notify_waiters();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.finish(|connection, id| connection.send_reset(id, "the call was given up"));
    }
}
