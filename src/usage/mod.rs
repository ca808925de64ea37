//! How keys are used: counted where requests are answered, written down now and then.
//!
//! A [`Board`] takes the marks, without a lock and without waiting; the [`Writer`] takes them off it and brings them to the
//! store. Only proven keys leave a mark: what proves nothing is nobody's.

mod backlog;
mod board;
mod writer;

pub use board::Board;
pub use writer::{Writer, Writing};
