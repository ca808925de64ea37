//! The keys of the canary that must be deleted before it ends.

use std::collections::VecDeque;

use tonic::Status;

use crate::cli::client::Client;
use crate::cli::connect::Server;
use crate::cli::failure::Failure;
use crate::cli::request_id;
use crate::pb::claviger::v1::{
    DeleteKeyRequest, IssueKeyRequest, IssueKeyResponse, RevokeKeyRequest,
};

/// How many keys that cannot be deleted are remembered. Older ones are left to their expiry.
const MAX_KEYS: usize = 100;

/// The keys that were issued and are not deleted yet. A key is here before it exists, so that a canary that is stopped at any
/// moment leaves none behind.
#[derive(Debug, Default)]
pub(super) struct OpenKeys {
    /// The requests without an answer: their keys may exist.
    unanswered: VecDeque<IssueKeyRequest>,
    keys: VecDeque<OpenKey>,
}

/// A key that is not deleted yet.
#[derive(Debug)]
pub(super) struct OpenKey {
    pub(super) id: String,
    pub(super) is_revoked: bool,
}

impl OpenKeys {
    /// Issues a key.
    pub(super) async fn issue(
        &mut self,
        client: &Client,
        request: IssueKeyRequest,
    ) -> Result<IssueKeyResponse, Failure> {
        push(&mut self.unanswered, request.clone());
        let answer = client.change(client.keys().issue_key(request)).await;
        match &answer {
            Ok(answer) => {
                self.unanswered.pop_back();
                self.add(answer);
            }
            Err(failure) if !failure.is_outcome_unknown() => drop(self.unanswered.pop_back()),
            Err(_) => {}
        }
        answer
    }

    fn add(&mut self, answer: &IssueKeyResponse) {
        if let Some(key) = &answer.key {
            let id = key.id.clone();
            let is_revoked = false;
            push(&mut self.keys, OpenKey { id, is_revoked });
        }
    }

    /// Notes that a key is revoked.
    pub(super) fn set_revoked(&mut self, id: &str) {
        for key in self.keys.iter_mut().filter(|key| key.id == id) {
            key.is_revoked = true;
        }
    }

    /// Deletes all keys, by the first server that does. A key that no server deletes is at least revoked, if possible. Returns the
    /// last failure if a key remains.
    pub(super) async fn delete_all<'a>(
        &mut self,
        servers: impl IntoIterator<Item = &'a Server>,
    ) -> Result<(), Failure> {
        let mut last = None;
        for server in servers {
            if self.is_empty() {
                return Ok(());
            }
            if let Err(failure) = self.delete_by(&server.client()).await {
                last = Some(failure);
            }
        }
        match last {
            Some(failure) if !self.is_empty() => Err(failure),
            _ => Ok(()),
        }
    }

    async fn delete_by(&mut self, client: &Client) -> Result<(), Failure> {
        while let Some(request) = self.unanswered.front().cloned() {
            // The request with the same id issues no second key, and returns the id of the first.
            match client.change(client.keys().issue_key(request)).await {
                Ok(answer) => self.add(&answer),
                Err(failure) if failure.is_final() => {}
                Err(failure) => return Err(failure),
            }
            self.unanswered.pop_front();
        }
        while let Some(key) = self.keys.front_mut() {
            match delete(client, &key.id).await {
                Err(failure) if !failure.is_not_found() => {
                    if failure.is_final() && !key.is_revoked {
                        key.is_revoked = revoke(client, &key.id).await.is_ok();
                    }
                    return Err(failure);
                }
                _ => drop(self.keys.pop_front()),
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.unanswered.is_empty() && self.keys.is_empty()
    }

    /// The keys that could not be deleted.
    pub(super) fn remaining(&self) -> impl Iterator<Item = &OpenKey> {
        self.keys.iter()
    }

    /// Whether there may be a key whose id is unknown, because no answer came.
    pub(super) fn may_have_unknown(&self) -> bool {
        !self.unanswered.is_empty()
    }
}

/// Appends an entry. The oldest ones are forgotten.
fn push<T>(queue: &mut VecDeque<T>, entry: T) {
    if queue.len() == MAX_KEYS {
        queue.pop_front();
    }
    queue.push_back(entry);
}

async fn delete(client: &Client, id: &str) -> Result<(), Failure> {
    let request = DeleteKeyRequest {
        key_id: id.to_owned(),
        request_id: request_id::fresh(),
        ..DeleteKeyRequest::default()
    };
    let call = async { done(client.keys().delete_key(request).await) };
    client.change(call).await
}

async fn revoke(client: &Client, id: &str) -> Result<(), Failure> {
    let request = RevokeKeyRequest {
        key_id: id.to_owned(),
        reason: "the canary could not delete it".to_owned(),
        request_id: request_id::fresh(),
        ..RevokeKeyRequest::default()
    };
    let call = async { done(client.keys().revoke_key(request).await) };
    client.change(call).await
}

fn done<T>(answer: Result<tonic::Response<T>, Status>) -> Result<tonic::Response<()>, Status> {
    answer.map(|answer| answer.map(drop))
}
