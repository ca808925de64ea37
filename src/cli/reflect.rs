//! The descriptors of the proto's messages, so that no field is listed a second time.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor, SerializeOptions, Value,
};
use serde::{Serialize, Serializer};

use super::failure::Failure;

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

/// Returns the descriptor of a method of `RealmAdmin`.
///
/// # Panics
/// If the service has no method of this name, which is a constant of the caller.
pub(super) fn realm_method(name: &str) -> MethodDescriptor {
    let service = POOL.get_service_by_name("claviger.v1.RealmAdmin");
    service
        .and_then(|service| service.methods().find(|method| method.name() == name))
        .unwrap_or_else(|| panic!("no method {name} in the proto"))
}

/// Converts a generated message to a message with its descriptor.
pub(super) fn dynamic(name: &str, message: &impl Message) -> DynamicMessage {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    dynamic
        .transcode_from(message)
        .expect("the message and its description are of one proto");
    dynamic
}

/// Whether the message, or a message in it, has a field that this program does not know.
pub(super) fn has_unknown_fields(message: &DynamicMessage) -> bool {
    fn is_unknown(value: &Value) -> bool {
        match value {
            Value::Message(message) => has_unknown_fields(message),
            Value::List(values) => values.iter().any(is_unknown),
            Value::Map(values) => values.values().any(is_unknown),
            _ => false,
        }
    }
    message.unknown_fields().next().is_some()
        || message.fields().any(|(_, value)| is_unknown(value))
}

/// Converts a message to the generated message, without the fields that this program does not know.
pub(super) fn generated<M: Message + Default>(message: &DynamicMessage) -> Result<M, Failure> {
    message
        .transcode_to()
        .map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))
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
        Self {
            message: dynamic(name, message),
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
