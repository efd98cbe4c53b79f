//! Attaching to a container: its output from now on or from its start, and its standard input.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Container;
use super::history::Piece;
use super::io::Port;
use crate::channel::{Incoming, StreamHandle};
use crate::error::Outcome;
use crate::pb;

/// Reads that wait for one listener at most; then the container's output waits for it.
const WAITING: usize = 8;
/// While a process does not read its input, this often the host is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Serves one attachment to its end. The container stays whatever happens here.
pub async fn attach(container: Rc<Container>, call: pb::Attach, stream: StreamHandle) -> Outcome<()> {
    let history = if call.history { container.history.take() } else { None };
    if history.is_none() {
        container.require_running()?;
    }
    // Who listens to a container that has ended hears the end at once: the sender is dropped.
    let (sender, pieces) = mpsc::channel(WAITING);
    container.listeners.borrow_mut().extend(Some(sender).filter(|_| container.is_running()));
    let stdin = container.stdin.borrow().clone().filter(|_| call.stdin);
    tokio::select! {
        () = tell(&container, &call, &stream, history.unwrap_or_default(), pieces) => {}
        () = feed(&stream, stdin, || close_stdin(&container)) => {}
    }
    if call.stdin {
        close_stdin(&container);
    }
    Ok(())
}

/// Sends what was written, what is being written, and how it ended. Ends early when nobody is there.
async fn tell(
    container: &Container,
    call: &pb::Attach,
    stream: &StreamHandle,
    history: VecDeque<Piece>,
    mut pieces: mpsc::Receiver<(u8, Bytes)>,
) {
    let send = async |channel: u8, bytes: &[u8]| {
        let wanted = if channel == 2 { call.stderr } else { call.stdout };
        !wanted || stream.send(channel, bytes).await.is_ok()
    };
    for (channel, bytes) in history {
        if !send(channel, &bytes).await {
            return;
        }
    }
    while let Some((channel, bytes)) = pieces.recv().await {
        if !send(channel, &bytes).await {
            return;
        }
    }
    let mut ended = container.ended.subscribe();
    // The sender lives in the container, which lives here.
    let _ = ended.wait_for(|ended| *ended).await;
    let exit = container.exit.borrow().clone().unwrap_or_default();
    stream.reply(pb::reply::Reply::Exit(exit)).await;
}

fn close_stdin(container: &Container) {
    if container.call.stdin_once {
        container.stdin.take();
    }
}

/// False when the input takes no more. A process that does not read must not hide that the host has gone.
async fn write(stream: &StreamHandle, port: &Port, bytes: &[u8]) -> bool {
    let write = port.write_all(bytes);
    tokio::pin!(write);
    loop {
        tokio::select! {
            result = &mut write => return result.is_ok(),
            () = tokio::time::sleep(LOOK_AGAIN) => if stream.is_over() { return false },
        }
    }
}

/// Writes what the host sends to standard input until the host is gone. `ended` is called at the end of the input.
pub async fn feed(stream: &StreamHandle, mut stdin: Option<Rc<Port>>, ended: impl Fn()) {
    loop {
        match stream.recv().await {
            Some(Incoming::Data(_, bytes)) => {
                let taken = match &stdin {
                    Some(port) => write(stream, port, &bytes).await,
                    None => true,
                };
                if !taken {
                    stdin = None;
                }
            }
            Some(Incoming::End(_)) => {
                stdin = None;
                ended();
            }
            Some(Incoming::Reset) | None => return,
        }
    }
}
