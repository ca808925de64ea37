//! Traits of the response messages: their proto names, pages of a list, and the effect of a change.

use prost::Message;
use prost_types::Timestamp;

use super::text;
use crate::pb::claviger::v1::{
    AcceptHistoryResponse, ApplyResponse, DeleteKeyResponse, DeleteKeysResponse,
    DeletePartnerResponse, DeleteProjectResponse, DeleteRealmResponse, DisableKeyResponse,
    EnableKeyResponse, EndRotationResponse, Event, ExplainResponse, FindKeyResponse,
    GetKeyResponse, GetKeyScopesResponse, GetKeyUsageResponse, GetPartnerResponse,
    GetRealmResponse, GetSelfResponse, GetUsageResponse, ImportKeysResponse, IssueKeyResponse, Key,
    ListEventsResponse, ListKeysResponse, ListPartnersResponse, ListProjectsResponse,
    ListRealmsResponse, ListReplicasResponse, Partner, Project, PutPartnerResponse,
    PutProjectResponse, PutRealmResponse, Realm, RenameScopeResponse, RevokeKeyResponse,
    RevokeKeysResponse, RevokeSelfResponse, RotateKeyResponse, RotateSelfResponse,
    SetClockResponse, SetLeaseResponse, UpdateKeyResponse, VerifyResponse,
};

/// A response message that can be shown as JSON.
pub(super) trait Response: Message {
    /// The name of the message in the proto.
    const NAME: &'static str;
}

/// A response with one page of a list.
pub(super) trait PageResponse: Response {
    /// The type of the listed items.
    type Item;

    /// The items of this page.
    fn items(&self) -> &[Self::Item];

    /// The token of the next page; empty on the last page.
    fn next(&self) -> &str;

    /// How many items there are on all pages, if the server counted them.
    fn total(&self) -> Option<Total> {
        None
    }

    /// Appends a later page. The revision of the first page stays: the list has every change up to that revision.
    fn extend(&mut self, later: Self);
}

/// The number of items on all pages of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Total {
    /// How many were counted.
    pub(super) count: u64,
    /// Whether there are more.
    pub(super) is_more: bool,
}

/// A response to a change.
pub(super) trait ChangeResponse: Response {
    /// Since when the change is in force on every server, for people.
    fn effect(&self) -> String;

    /// Says that the change was made, in one sentence. `what` is the sentence without its full stop. If the change is not in force
    /// on every server yet, the sentence says from when it will be.
    fn done(&self, what: &str) -> String;
}

macro_rules! responses {
    ($($name:ident),* $(,)?) => {
        $(impl Response for $name {
            const NAME: &'static str = stringify!($name);
        })*

        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

macro_rules! pages {
    ($($name:ident { $items:ident: $item:ident $(, $total:ident, $more:ident)? }),* $(,)?) => {
        $(impl PageResponse for $name {
            type Item = $item;

            fn items(&self) -> &[$item] {
                &self.$items
            }

            fn next(&self) -> &str {
                &self.next_page_token
            }

            $(fn total(&self) -> Option<Total> {
                let count = self.$total?;
                Some(Total { count, is_more: self.$more })
            })?

            fn extend(&mut self, later: Self) {
                self.$items.extend(later.$items);
                self.next_page_token = later.next_page_token;
            }
        })*
    };
}

macro_rules! changes {
    ($($name:ident),* $(,)?) => {
        $(impl ChangeResponse for $name {
            fn effect(&self) -> String {
                effect(self.revision, self.effective_everywhere_time.as_ref(), self.confirmed)
            }

            fn done(&self, what: &str) -> String {
                done(what, self.effective_everywhere_time.as_ref(), self.confirmed)
            }
        })*
    };
}

responses!(
    ExplainResponse,
    PutRealmResponse,
    RenameScopeResponse,
    GetRealmResponse,
    ListRealmsResponse,
    DeleteRealmResponse,
    PutPartnerResponse,
    GetPartnerResponse,
    ListPartnersResponse,
    DeletePartnerResponse,
    PutProjectResponse,
    ListProjectsResponse,
    DeleteProjectResponse,
    IssueKeyResponse,
    GetKeyResponse,
    FindKeyResponse,
    ListKeysResponse,
    GetKeyScopesResponse,
    DisableKeyResponse,
    EnableKeyResponse,
    UpdateKeyResponse,
    RotateKeyResponse,
    EndRotationResponse,
    RevokeKeyResponse,
    RevokeKeysResponse,
    GetSelfResponse,
    RotateSelfResponse,
    RevokeSelfResponse,
    DeleteKeyResponse,
    DeleteKeysResponse,
    ImportKeysResponse,
    GetKeyUsageResponse,
    GetUsageResponse,
    ListEventsResponse,
    VerifyResponse,
    ListReplicasResponse,
    SetLeaseResponse,
    AcceptHistoryResponse,
    SetClockResponse,
    ApplyResponse,
);

pages!(
    ListRealmsResponse { realms: Realm },
    ListPartnersResponse { partners: Partner },
    ListProjectsResponse { projects: Project },
    ListKeysResponse {
        keys: Key,
        total,
        more_than_total
    },
    ListEventsResponse { events: Event },
);

changes!(
    PutRealmResponse,
    RenameScopeResponse,
    DeleteRealmResponse,
    PutPartnerResponse,
    DeletePartnerResponse,
    PutProjectResponse,
    DeleteProjectResponse,
    IssueKeyResponse,
    DisableKeyResponse,
    EnableKeyResponse,
    UpdateKeyResponse,
    RotateKeyResponse,
    EndRotationResponse,
    RevokeKeyResponse,
    RevokeKeysResponse,
    RotateSelfResponse,
    RevokeSelfResponse,
    DeleteKeyResponse,
    DeleteKeysResponse,
    ImportKeysResponse,
    SetLeaseResponse,
    AcceptHistoryResponse,
    SetClockResponse,
    ApplyResponse,
);

fn effect(revision: u64, everywhere: Option<&Timestamp>, confirmed: bool) -> String {
    match everywhere {
        _ if confirmed => format!("in force on every server, revision {revision}"),
        Some(time) => format!(
            "in force on every server from {} on, revision {revision}",
            text::time(&rounded_up(time))
        ),
        None => format!("in force on the server that answered, revision {revision}"),
    }
}

fn done(what: &str, everywhere: Option<&Timestamp>, confirmed: bool) -> String {
    match everywhere {
        _ if confirmed => format!("{what}."),
        Some(time) => {
            let time = text::time(&rounded_up(time));
            format!("{what}: in force on every server from {time} on.")
        }
        None => format!("{what}: in force on the server that answered."),
    }
}

/// The time to a whole second, because that is what is shown. Rounded up, because the time is a promise.
fn rounded_up(time: &Timestamp) -> Timestamp {
    Timestamp {
        seconds: time.seconds.saturating_add(i64::from(time.nanos > 0)),
        nanos: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::reflect;

    #[test]
    fn the_proto_has_every_response() {
        for name in NAMES {
            assert_eq!(reflect::descriptor(name).name(), *name);
        }
    }

    #[test]
    fn a_change_says_since_when_it_holds() {
        let time = Timestamp {
            seconds: 1_800_000_000,
            nanos: 999_999_999,
        };
        assert_eq!(
            effect(7, Some(&time), true),
            "in force on every server, revision 7"
        );
        assert_eq!(
            effect(7, Some(&time), false),
            "in force on every server from 2027-01-15T08:00:01Z on, revision 7",
            "rounded up: it is a promise"
        );
        assert_eq!(done("Deleted it", Some(&time), true), "Deleted it.");
        assert_eq!(
            done("Deleted it", Some(&time), false),
            "Deleted it: in force on every server from 2027-01-15T08:00:01Z on."
        );
    }

    #[test]
    fn merged_pages_keep_the_first_revision_and_the_last_token() {
        let page = |id: &str, next: &str, revision| ListKeysResponse {
            keys: vec![Key {
                id: id.to_owned(),
                ..Key::default()
            }],
            next_page_token: next.to_owned(),
            revision,
            ..ListKeysResponse::default()
        };
        let mut merged = page("b", "more", 5);
        merged.extend(page("a", "", 6));

        let ids: Vec<_> = merged.items().iter().map(|key| key.id.as_str()).collect();
        assert_eq!((ids.as_slice(), merged.next()), (&["b", "a"][..], ""));
        assert_eq!(merged.revision, 5);
    }
}
