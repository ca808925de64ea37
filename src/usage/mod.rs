//! Usage counting: how often each key was presented, and when it was last used.
//!
//! The [`UsageRecorder`] counts each answer without a lock and without waiting. The [`Writer`] regularly takes the counts and
//! writes them to the store. Only proven keys are counted, because a string that proves no key belongs to nobody.

mod backlog;
mod recorder;
mod writer;

pub use recorder::UsageRecorder;
pub use writer::{Writer, WriterHandle};
