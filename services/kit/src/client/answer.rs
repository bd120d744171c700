//! Answers of HTTP/1.1, read from the bytes that a connection brought.

use httparse::{EMPTY_HEADER, Response, Status};

/// Most headers of an answer.
const HEADERS: usize = 64;
/// Most bytes of an answer before its body.
const HEAD: usize = 32 * 1024;

/// Why bytes are no answer.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Its head is not of HTTP's form.
    #[error("no head of HTTP")]
    Head(#[from] httparse::Error),
    /// Its length, or that of a chunk, is no number.
    #[error("no length")]
    Length,
    /// It is longer than any answer that is waited for.
    #[error("too long")]
    TooLong,
}

/// An answer, as long as its connection holds it.
#[derive(Debug)]
pub struct Answer<'a> {
    /// The status code.
    pub status: u16,
    /// What it says.
    pub body: &'a [u8],
    head: &'a [u8],
}

impl Answer<'_> {
    /// The value of a header, by its name in any case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut lines = self.head.split(|byte| *byte == b'\n').skip(1);
        lines.find_map(|line| {
            let (found, value) = line.split_at(line.iter().position(|byte| *byte == b':')?);
            found.eq_ignore_ascii_case(name.as_bytes()).then(|| value[1..].trim_ascii())
        })
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Framing {
    Length(usize),
    Chunks,
    /// It ends with the connection.
    Rest,
}

/// What stands before the body.
#[derive(Debug)]
pub(super) struct Head {
    status: u16,
    length: usize,
    framing: Framing,
    keeps: bool,
}

impl Head {
    /// `None` where it has not arrived whole.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut headers = [EMPTY_HEADER; HEADERS];
        let mut response = Response::new(&mut headers);
        let Status::Complete(length) = response.parse(bytes)? else {
            return if bytes.len() > HEAD { Err(Malformed::TooLong) } else { Ok(None) };
        };
        let status = response.code.unwrap_or_default();
        let mut keeps = response.version == Some(1);
        let mut framing = Framing::Rest;
        for header in response.headers {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunks {
                framing = Framing::Length(number(value, 10).ok_or(Malformed::Length)?);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                framing = if value.eq_ignore_ascii_case(b"chunked") { Framing::Chunks } else { Framing::Rest };
            } else if header.name.eq_ignore_ascii_case("connection") {
                keeps = !value.eq_ignore_ascii_case(b"close");
            }
        }
        if matches!(status, 100..=199 | 204 | 304) {
            framing = Framing::Length(0);
        }
        Ok(Some(Self { status, length, framing, keeps }))
    }

    /// Whether the answer itself is still to come.
    pub fn is_informational(&self) -> bool {
        (100..200).contains(&self.status)
    }

    /// Bytes of the head.
    pub fn length(&self) -> usize {
        self.length
    }

    pub fn ends_with_connection(&self) -> bool {
        self.framing == Framing::Rest
    }

    /// Whether the whole answer is among these bytes.
    pub fn is_whole(&self, bytes: &[u8]) -> Result<bool, Malformed> {
        Ok(match self.framing {
            Framing::Length(length) => bytes.len() - self.length >= length,
            Framing::Chunks => chunks(&bytes[self.length..], |_| ())?.is_some(),
            Framing::Rest => false,
        })
    }

    /// Whether the connection brings a further answer; one with bytes behind its answer is out of step.
    pub fn keeps(&self, bytes: &[u8]) -> bool {
        let body = &bytes[self.length..];
        self.keeps
            && match self.framing {
                Framing::Length(length) => body.len() == length,
                Framing::Chunks => chunks(body, |_| ()).is_ok_and(|end| end == Some(body.len())),
                Framing::Rest => false,
            }
    }

    /// The answer, which is among these bytes whole.
    pub fn answer<'a>(&self, bytes: &'a mut Vec<u8>) -> Result<Answer<'a>, Malformed> {
        if self.framing == Framing::Chunks {
            let mut body = Vec::new();
            chunks(&bytes[self.length..], |chunk| body.extend_from_slice(chunk))?;
            bytes.truncate(self.length);
            bytes.append(&mut body);
        }
        let (head, body) = bytes.split_at(self.length);
        let body = if let Framing::Length(length) = self.framing { &body[..length] } else { body };
        Ok(Answer { status: self.status, body, head })
    }
}

/// Hands each chunk to `take`; where the last one ends, `None` where it has not arrived.
fn chunks<'a>(bytes: &'a [u8], mut take: impl FnMut(&'a [u8])) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    loop {
        let Some(line) = bytes[at..].iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let size = bytes[at..at + line].split(|byte| *byte == b';').next().unwrap_or_default();
        let size = number(size.trim_ascii(), 16).ok_or(Malformed::Length)?;
        at += line + 1;
        if size == 0 {
            return Ok(trailers(&bytes[at..]).map(|end| at + end));
        }
        let Some(chunk) = bytes.get(at..).and_then(|rest| rest.get(..size)) else { return Ok(None) };
        take(chunk);
        at += size + 2; // its line ends, too
        if at > bytes.len() {
            return Ok(None);
        }
    }
}

/// Where the empty line behind the last chunk ends, past trailers that nobody reads.
fn trailers(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes[at..].iter().position(|byte| *byte == b'\n')?;
        let is_empty = bytes[at..at + line].trim_ascii().is_empty();
        at += line + 1;
        if is_empty {
            return Some(at);
        }
    }
}

/// A length, at most some gigabytes.
fn number(digits: &[u8], radix: u32) -> Option<usize> {
    let plain = !digits.is_empty() && digits.iter().all(|byte| char::from(*byte).is_digit(radix));
    let number = u32::from_str_radix(std::str::from_utf8(digits).ok().filter(|_| plain)?, radix).ok()?;
    usize::try_from(number).ok()
}
