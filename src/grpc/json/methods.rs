//! The methods that can be called with JSON, from the descriptors of the proto.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, MessageDescriptor};
use prost_types::FileDescriptorSet;

use crate::grpc::services::{MAX_ADMIN_MESSAGE, MAX_VERIFY_MESSAGE};
use crate::pb::DESCRIPTORS;

/// The package of the services that can be called with JSON.
const PACKAGE: &str = "claviger.v1";

/// The messages of the services and of error details.
pub(super) static MESSAGES: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut pool = DescriptorPool::decode(DESCRIPTORS).expect("the build has compiled these");
    pool.add_file_descriptor_set(error_details())
        .expect("they need only the types of Google");
    pool
});

static METHODS: LazyLock<HashMap<String, JsonMethod>> = LazyLock::new(|| {
    let services = MESSAGES
        .services()
        .filter(|service| service.package_name() == PACKAGE);
    let methods = services.flat_map(|service| {
        let max_request = match service.name() {
            "KeyVerify" => MAX_VERIFY_MESSAGE,
            _ => MAX_ADMIN_MESSAGE,
        };
        let methods: Vec<_> = service.methods().collect();
        methods.into_iter().map(move |method| {
            let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
            let method = JsonMethod {
                request: method.input(),
                response: method.output(),
                is_unary: !method.is_client_streaming() && !method.is_server_streaming(),
                max_request,
            };
            (path, method)
        })
    });
    methods.collect()
});

/// A method of the services.
pub(super) struct JsonMethod {
    pub(super) request: MessageDescriptor,
    pub(super) response: MessageDescriptor,
    /// Whether it has one request and one response.
    pub(super) is_unary: bool,
    /// The largest request, in bytes.
    pub(super) max_request: usize,
}

impl JsonMethod {
    /// Finds the method of a path `/SERVICE/METHOD`.
    pub(super) fn find(path: &str) -> Option<&'static Self> {
        METHODS.get(path)
    }

    /// All methods with their paths.
    #[cfg(test)]
    pub(super) fn all() -> impl Iterator<Item = (&'static String, &'static Self)> {
        METHODS.iter()
    }
}

/// Reads the descriptors, so that no call has to wait for it.
pub(super) fn prepare() {
    LazyLock::force(&METHODS);
}

/// The descriptors of the messages in error details, so that a client can decode them. `google.rpc.Status` itself is in
/// [`DESCRIPTORS`].
pub fn error_details() -> FileDescriptorSet {
    let mut files = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("tonic-types contains valid descriptors");
    files
        .file
        .retain(|file| file.name().ends_with("error_details.proto"));
    files
}
