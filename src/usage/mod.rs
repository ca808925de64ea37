//! How keys are used: counted where requests are answered, written down now and then.
//!
//! A [`UsageRecorder`] takes the marks, without a lock and without waiting; the [`Writer`] takes them off it and brings them to the
//! store. Only proven keys leave a record: what proves nothing is nobody's.

mod backlog;
mod recorder;
mod writer;

pub use recorder::UsageRecorder;
pub use writer::{Writer, Writing};
