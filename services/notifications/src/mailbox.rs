//! The local mailbox, with which a platform on one machine shows its mail: an SMTP server that takes mail for everybody,
//! sends none, and keeps each message as a file, one of each `Message-ID`.

mod folder;
mod server;

pub use folder::{Letter, Summary, list, newest, read};
pub use server::Mailbox;
