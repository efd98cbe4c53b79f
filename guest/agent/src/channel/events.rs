//! Events that the host has not acknowledged yet: numbered, bounded, sent again after a reconnect.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use tokio::sync::Notify;

use crate::pb;

/// Unacknowledged events that are kept at most.
pub const CAPACITY: usize = 1_024;

/// A handle to the one log; clones share it.
#[derive(Clone, Default)]
pub struct EventLog(Rc<Inner>);

#[derive(Default)]
struct Inner {
    state: RefCell<State>,
    room: Notify,
}

#[derive(Default)]
struct State {
    kept: VecDeque<(u64, Vec<u8>)>,
    last: u64,
    sent: u64,
    muted: bool,
    waker: Option<Waker>,
}

impl EventLog {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn has_room(&self) -> bool {
        self.0.state.borrow().kept.len() < CAPACITY
    }

    /// Wait until there is room. Whoever makes events (the reaper, probes) waits here before it makes one.
    pub async fn wait_room(&self) {
        super::wait_until(&self.0.room, || self.has_room().then_some(())).await;
    }

    /// Number, stamp and keep an event, waiting for room. Gives its number.
    pub async fn push(&self, event: pb::event::Event) -> u64 {
        self.wait_room().await;
        self.append(event)
    }

    /// As `push`, without waiting: the event comes back if there is no room.
    pub fn try_push(&self, event: pb::event::Event) -> Result<u64, pb::event::Event> {
        if self.has_room() { Ok(self.append(event)) } else { Err(event) }
    }

    /// While muted, events get their numbers and nobody hears of them.
    pub fn mute(&self, muted: bool) {
        self.0.state.borrow_mut().muted = muted;
    }

    fn append(&self, event: pb::event::Event) -> u64 {
        let mut state = self.0.state.borrow_mut();
        state.last += 1;
        let number = state.last;
        let event = pb::Event { number, unix_ns: unix_ns(), event: Some(event) };
        let bytes = event.encode_to_vec();
        if state.muted {
            return number;
        }
        state.kept.push_back((number, bytes));
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        number
    }

    /// Number of the newest event ever made; 0: none.
    pub fn last(&self) -> u64 {
        self.0.state.borrow().last
    }

    /// Number of the oldest unacknowledged event; 0: none.
    pub fn first(&self) -> u64 {
        self.0.state.borrow().kept.front().map_or(0, |(number, _)| *number)
    }

    /// All events up to this number are safe with the host. Numbers not made yet mean nothing.
    pub(super) fn acknowledge(&self, number: u64) {
        let mut state = self.0.state.borrow_mut();
        while state.kept.front().is_some_and(|(first, _)| *first <= number) {
            state.kept.pop_front();
        }
        drop(state);
        self.0.room.notify_waiters();
    }

    /// A new connection: send every kept event again.
    pub(super) fn rewind(&self) {
        self.0.state.borrow_mut().sent = 0;
    }

    /// The next event not sent on this connection, encoded.
    pub(super) fn next_unsent(&self) -> Option<Vec<u8>> {
        let mut state = self.0.state.borrow_mut();
        let first = state.kept.front()?.0;
        let index = usize::try_from(state.sent.saturating_add(1).saturating_sub(first)).ok()?;
        let (number, bytes) = state.kept.get(index)?.clone();
        state.sent = number;
        Some(bytes)
    }

    pub(super) fn has_unsent(&self) -> bool {
        let state = self.0.state.borrow();
        state.kept.back().is_some_and(|(last, _)| *last > state.sent)
    }

    /// Whom to wake when there is a new event.
    pub(super) fn wake_on_push(&self, waker: &Waker) {
        self.0.state.borrow_mut().waker = Some(waker.clone());
    }
}

fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn warning() -> pb::event::Event {
        pb::event::Event::Warning(pb::Warning { message: "w".into() })
    }

    fn unsent(log: &EventLog) -> usize {
        std::iter::from_fn(|| log.next_unsent()).count()
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again() {
        let log = EventLog::new();
        for _ in 0..5 {
            log.try_push(warning()).unwrap();
        }
        assert_eq!(unsent(&log), 5);
        assert_eq!(unsent(&log), 0);
        log.acknowledge(2);
        log.rewind();
        assert_eq!((log.first(), log.last(), unsent(&log)), (3, 5, 3));
    }

    #[test]
    fn nobody_hears_of_what_happens_while_it_is_muted() {
        let log = EventLog::new();
        log.mute(true);
        log.try_push(warning()).unwrap();
        assert_eq!((log.first(), log.last(), unsent(&log)), (0, 1, 0));
        log.mute(false);
        log.try_push(warning()).unwrap();
        assert_eq!((log.first(), log.last(), unsent(&log)), (2, 2, 1));
    }

    #[test]
    fn a_full_log_refuses_until_something_is_acknowledged() {
        let log = EventLog::new();
        for _ in 0..CAPACITY {
            log.try_push(warning()).unwrap();
        }
        assert!(log.try_push(warning()).is_err());
        log.acknowledge(u64::MAX);
        assert_eq!(log.first(), 0);
        assert_eq!(log.try_push(warning()), Ok(CAPACITY as u64 + 1));
        assert_eq!(unsent(&log), 1);
    }
}
