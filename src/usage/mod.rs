//! Usage counting: how often each key was presented, and when it was last used.
//!
//! Each thread that answers has a [`UsageRecorder`], which counts each answer without waiting. The [`Writer`] regularly takes the
//! counts of all recorders and writes them to the store. Only proven keys are counted, because a string that proves no key belongs
//! to nobody.

mod backlog;
mod recorder;
mod writer;

pub use recorder::UsageRecorder;
pub use writer::{BacklogSize, Writer, WriterHandle};
