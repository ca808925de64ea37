//! The descriptors of the proto's messages, so that no field is listed a second time.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use serde::{Serialize, Serializer};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(crate::pb::DESCRIPTORS).expect("the build has compiled these")
});

/// Returns the descriptor of a message of `claviger.v1`.
///
/// # Panics
/// If the proto has no message of this name, which is a constant of the caller.
pub(super) fn descriptor(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("claviger.v1.{name}"))
        .unwrap_or_else(|| panic!("no message {name} in the proto"))
}

/// A message with its descriptor. It serializes with the field names of the proto, times in RFC 3339 and 64-bit integers as
/// numbers.
pub(super) struct Described {
    message: DynamicMessage,
    with_defaults: bool,
}

impl Described {
    /// Describes a message with every field, also those with their default value.
    pub(super) fn whole(name: &str, message: &impl Message) -> Self {
        Self::new(name, message, true)
    }

    /// Describes a message without the fields that have their default value.
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
