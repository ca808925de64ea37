//! Where a call goes, by its path.

/// The part of the server that answers a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `Verify`.
    Verify,
    /// Another method of `KeyVerify`, which may not exist.
    KeyVerify,
    /// `VerifyStream`.
    VerifyStream,
    /// Envoy's `Authorization`.
    Check,
    /// `KeyAdmin`, `RealmAdmin`, `AuthorityAdmin` and `KeyVerify.Explain`.
    Administer,
    /// Health, which needs no key.
    Health,
    /// Reflection, which needs no key.
    Reflect,
}

impl Destination {
    /// Returns the destination of a path `/SERVICE/METHOD`; `None` if there is no such service.
    pub(super) fn of(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        match service {
            "claviger.v1.KeyVerify" => Some(match method {
                "Explain" => Self::Administer,
                "Verify" => Self::Verify,
                "VerifyStream" => Self::VerifyStream,
                _ => Self::KeyVerify,
            }),
            "envoy.service.auth.v3.Authorization" => (method == "Check").then_some(Self::Check),
            "claviger.v1.KeyAdmin" | "claviger.v1.RealmAdmin" | "claviger.v1.AuthorityAdmin" => {
                Some(Self::Administer)
            }
            "grpc.health.v1.Health" => Some(Self::Health),
            _ if service.starts_with("grpc.reflection.") => Some(Self::Reflect),
            _ => None,
        }
    }

    /// Whether the caller needs no key.
    pub(super) fn is_anonymous(self) -> bool {
        matches!(self, Self::Health | Self::Reflect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_destination_of_its_service() {
        for (path, destination) in [
            ("/claviger.v1.KeyVerify/Verify", Some(Destination::Verify)),
            (
                "/claviger.v1.KeyVerify/VerifyBatch",
                Some(Destination::KeyVerify),
            ),
            (
                "/claviger.v1.KeyVerify/VerifyStream",
                Some(Destination::VerifyStream),
            ),
            (
                "/claviger.v1.KeyVerify/Explain",
                Some(Destination::Administer),
            ),
            (
                "/claviger.v1.KeyVerify/Explain/",
                Some(Destination::KeyVerify),
            ),
            (
                "/claviger.v1.KeyAdmin/IssueKey",
                Some(Destination::Administer),
            ),
            (
                "/claviger.v1.RealmAdmin/PutRealm",
                Some(Destination::Administer),
            ),
            (
                "/claviger.v1.AuthorityAdmin/SetLease",
                Some(Destination::Administer),
            ),
            (
                "/claviger.v1.AuthorityAdmin/SetClock",
                Some(Destination::Administer),
            ),
            (
                "/envoy.service.auth.v3.Authorization/Check",
                Some(Destination::Check),
            ),
            ("/grpc.health.v1.Health/Watch", Some(Destination::Health)),
            (
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                Some(Destination::Reflect),
            ),
            ("/claviger.v1.KeyAdmins/IssueKey", None),
            ("//claviger.v1.KeyAdmin/IssueKey", None),
            ("/claviger.v1.KeyAdmin", None),
            ("/", None),
            ("*", None),
            ("", None),
        ] {
            assert_eq!(Destination::of(path), destination, "{path}");
        }
    }
}
