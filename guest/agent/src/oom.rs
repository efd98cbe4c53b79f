//! Tells the host about every process that the kernel ended for lack of memory, from the kernel's log.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use tokio::io::Interest;

use crate::boot;
use crate::channel::EventLog;
use crate::error::reason;
use crate::pb;
use crate::sys::files;

/// One record of /dev/kmsg is no longer than this.
const RECORD: usize = 8_192;

/// Watches the kernel's log for ever.
pub async fn watch(events: EventLog) {
    if let Err(error) = follow(&events).await {
        boot::say(&format!(
            "the kernel's log cannot be watched, so lack of memory is not reported: {}",
            reason(&error)
        ));
    }
}

async fn follow(events: &EventLog) -> io::Result<()> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    file.seek(SeekFrom::End(0))?;
    let log = files::watch(file.into(), Interest::READABLE)?;
    let mut record = [0u8; RECORD];
    loop {
        let mut ready = log.readable().await?;
        match ready.try_io(|log| files::read(log.get_ref().as_fd(), &mut record)) {
            Ok(Ok(count)) => {
                if let Some(event) = parse(&String::from_utf8_lossy(&record[..count])) {
                    events.push(pb::event::Event::Oom(event)).await;
                }
            }
            // EPIPE: records were overwritten before they were read; the next read goes on behind them.
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

/// The kernel's summary of a kill: `…;oom-kill:constraint=…,task_memcg=/pod/web.0,task=python3,pid=42,uid=0`.
fn parse(record: &str) -> Option<pb::OutOfMemory> {
    let (_, message) = record.split_once(';')?;
    let summary = message.lines().next()?.strip_prefix("oom-kill:")?;
    let value = |key: &str| summary.split(',').find_map(|field| field.strip_prefix(key));
    let container = value("task_memcg=").and_then(|group| group.strip_prefix("/pod/")).and_then(|group| {
        let own = group.split('/').next()?;
        let (name, attempt) = own.rsplit_once('.')?;
        Some((name.to_owned(), attempt.parse().ok()?))
    });
    let (name, attempt) = container.unwrap_or_default();
    let process = value("task=").unwrap_or_default().to_owned();
    Some(pb::OutOfMemory { name, attempt, pid: value("pid=")?.parse().ok()?, process })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_names_its_container_attempt_and_process() {
        let record = "4,612,1000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web.2,mems_allowed=0,\
            oom_memcg=/pod/web.2,task_memcg=/pod/web.2/inner,task=python3,pid=42,uid=0\n SUBSYSTEM=x\n";
        let expected = pb::OutOfMemory { name: "web".into(), attempt: 2, pid: 42, process: "python3".into() };
        assert_eq!(parse(record), Some(expected));
    }

    #[test]
    fn a_kill_outside_of_containers_is_the_whole_guest_s() {
        let record = "4,1,1,-;oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/,task=x,pid=7,uid=0";
        assert_eq!(parse(record).unwrap().name, "");
    }

    #[test]
    fn other_records_are_none() {
        for record in ["", "6,1,1,-;usb: x", "6,1,1,-;oom-kill:", "oom-kill:pid=1", "1;oom-kill:pid=x"] {
            assert_eq!(parse(record), None, "{record}");
        }
    }
}
