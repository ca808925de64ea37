//! The proto's own description of its messages, so that no list of fields is kept a second time.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::{Serialize, Serializer};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(crate::pb::DESCRIPTORS).expect("the build has compiled these")
});

/// The description of a message of `claviger.v1`.
///
/// # Panics
/// If there is none of this name: it is a constant of the caller.
pub(super) fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("claviger.v1.{name}"))
        .unwrap_or_else(|| panic!("no message {name} in the proto"))
}

/// A message that says of itself what its fields are called. It serializes with the proto's names, times as RFC 3339 and
/// 64-bit integers as numbers.
pub(super) struct Described {
    message: DynamicMessage,
    with_defaults: bool,
}

impl Described {
    /// With every field, also those that hold their default.
    pub(super) fn whole(name: &str, message: &impl Message) -> Self {
        Self::new(name, message, true)
    }

    /// With the fields that say something.
    pub(super) fn terse(name: &str, message: &impl Message) -> Self {
        Self::new(name, message, false)
    }

    fn new(name: &str, message: &impl Message, with_defaults: bool) -> Self {
        let mut described = DynamicMessage::new(descriptor(name));
        described
            .transcode_from(message)
            .expect("the message and its description are of one proto");
        Self {
            message: described,
            with_defaults,
        }
    }
}

impl Serialize for Described {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options = SerializeOptions::new()
            .use_proto_field_name(true)
            .skip_default_fields(!self.with_defaults)
            .stringify_64_bit_integers(false);
        self.message.serialize_with_options(serializer, &options)
    }
}
