//! One kind of failure for every call: what the host is told.

use std::fmt;
use std::io;

use crate::pb;
pub use crate::pb::error::Code;

/// Why a call failed: a code for programs, a sentence for people, and the errno if a system call was the cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    pub errno: i32,
}

pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), errno: 0 }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message)
    }

    /// `what` failed because of `error`; lack of space or memory gets a code of its own.
    pub fn system(what: &str, error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(0);
        let code = match errno {
            libc::ENOSPC | libc::EDQUOT => Code::NoSpace,
            libc::ENOMEM => Code::NoMemory,
            _ => Code::Failed,
        };
        Self { code, message: format!("{what}: {}", reason(error)), errno }
    }

    pub fn into_reply(self) -> pb::reply::Reply {
        let error = pb::Error { code: self.code.into(), message: self.message, errno: self.errno };
        pb::reply::Reply::Error(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The error's text without Rust's "(os error N)".
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

/// Says what was tried when a system call fails.
pub trait Context<T> {
    fn context(self, what: &str) -> Outcome<T>;
    fn context_with(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &str) -> Outcome<T> {
        self.map_err(|error| Failure::system(what, &error))
    }

    fn context_with(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::system(&what(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_space_is_told_apart_and_the_sentence_says_what_was_tried() {
        let failure = Failure::system("mounting the image", &crate::sys::errno(libc::ENOSPC));
        assert_eq!(failure.code, Code::NoSpace);
        assert_eq!(failure.message, "mounting the image: no space left on device");
        assert_eq!(failure.errno, libc::ENOSPC);
    }
}
