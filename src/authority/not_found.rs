//! The messages of [`Refusal::NotFound`](super::Refusal::NotFound).

pub(super) const REALM: &str = "the realm does not exist: check the realm id";

pub(super) const SCOPE: &str = "the realm has no such scope: check the name in `scope`";

pub(super) const RENAMED_SCOPE: &str = "the realm has no such scope, but one with the name in `new_name`: if the scope was renamed already, there is nothing left to do";

pub(super) const PARTNER: &str = "the partner does not exist in this realm: check the partner id";

/// For keys of the built-in realm, whose partners are the other realms.
pub(super) const SERVED_REALM: &str =
    "the partner does not exist: set `partner` to the id of the realm that the key serves";

pub(super) const PROJECT: &str = "the project does not exist in this realm: check the project id";

pub(super) const PROJECT_OF_PARTNER: &str =
    "the project does not exist, or belongs to another partner: check both ids";

/// The same whether or not the key exists.
pub(super) const KEY: &str =
    "the key does not exist, or the caller may not administer it: check the key id";

/// The same whether or not the API key is one of this authority.
pub(super) const PLAIN_KEY: &str = "no key that the caller may administer has this API key: check it for typing errors, or look for its last four characters";

pub(super) const ENVIRONMENT_OF_KEY: &str =
    "the environment of the key does not exist: add the environment to the realm again";
