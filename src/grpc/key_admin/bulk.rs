//! `RevokeKeys` and `DeleteKeys`.

use tonic::Status;

use super::KeyAdminService;
use super::request::{self, Revoked};
use crate::auth::AuthorizedCaller;
use crate::authority::{BulkOutcome, ChangeRequest, ChangeResult, DryRun, EndOfKeys, Read};
use crate::grpc::encode;
use crate::pb::claviger::v1 as pb;
use crate::store::KeyFilter;

impl KeyAdminService {
    pub(super) async fn revoke_all(
        &self,
        caller: AuthorizedCaller,
        request: pb::RevokeKeysRequest,
        fingerprint: [u8; 32],
    ) -> Result<pb::RevokeKeysResponse, Status> {
        let is_dry_run = request.dry_run;
        let (revoked, change, reason) = request::bulk_revocation(request, self.clock.now())?;
        match revoked {
            Revoked::Rule(selection) if is_dry_run => {
                let read = self.admin.run(move |authority| async move {
                    authority.dry_run_revoke_keys(&caller, selection).await
                });
                let Read { value, revision } = read.await?;
                Ok(pb::RevokeKeysResponse {
                    would_revoke: value.count,
                    examples: self.keys(value.examples),
                    revision: revision.as_u64(),
                    ..pb::RevokeKeysResponse::default()
                })
            }
            Revoked::Rule(selection) => {
                let made = self.admin.run(move |authority| async move {
                    authority
                        .revoke_keys(&caller, &change, selection, reason, fingerprint)
                        .await
                });
                let made = made.await?;
                Ok(pb::RevokeKeysResponse {
                    revision: made.revision.as_u64(),
                    effective_everywhere_time: Some(encode::time(made.effective_at)),
                    confirmed: made.is_everywhere,
                    replayed: made.value,
                    ..pb::RevokeKeysResponse::default()
                })
            }
            Revoked::Matching(filter) if is_dry_run => {
                let end = EndOfKeys::Revocation(reason);
                let Read {
                    value: (found, more),
                    revision,
                } = self.would_end(caller, *filter, end).await?;
                Ok(pb::RevokeKeysResponse {
                    would_revoke: found.count,
                    examples: self.keys(found.examples),
                    revision: revision.as_u64(),
                    more,
                    ..pb::RevokeKeysResponse::default()
                })
            }
            Revoked::Matching(filter) => {
                let end = EndOfKeys::Revocation(reason);
                let made = self.end(caller, change, *filter, end, fingerprint).await?;
                Ok(pb::RevokeKeysResponse {
                    revision: made.revision.as_u64(),
                    effective_everywhere_time: Some(encode::time(made.effective_at)),
                    confirmed: made.is_everywhere,
                    replayed: made.value.replayed,
                    revoked: made.value.count,
                    more: made.value.more,
                    ..pb::RevokeKeysResponse::default()
                })
            }
        }
    }

    pub(super) async fn delete_all(
        &self,
        caller: AuthorizedCaller,
        request: pb::DeleteKeysRequest,
        fingerprint: [u8; 32],
    ) -> Result<pb::DeleteKeysResponse, Status> {
        let is_dry_run = request.dry_run;
        let (filter, change) = request::bulk_deletion(request, self.clock.now())?;
        let end = EndOfKeys::Deletion;
        if is_dry_run {
            let Read {
                value: (found, more),
                revision,
            } = self.would_end(caller, filter, end).await?;
            return Ok(pb::DeleteKeysResponse {
                would_delete: found.count,
                examples: self.keys(found.examples),
                revision: revision.as_u64(),
                more,
                ..pb::DeleteKeysResponse::default()
            });
        }
        let made = self.end(caller, change, filter, end, fingerprint).await?;
        Ok(pb::DeleteKeysResponse {
            revision: made.revision.as_u64(),
            effective_everywhere_time: Some(encode::time(made.effective_at)),
            confirmed: made.is_everywhere,
            replayed: made.value.replayed,
            deleted: made.value.count,
            more: made.value.more,
            ..pb::DeleteKeysResponse::default()
        })
    }

    async fn would_end(
        &self,
        caller: AuthorizedCaller,
        filter: KeyFilter,
        end: EndOfKeys,
    ) -> Result<Read<(DryRun, bool)>, Status> {
        let found = self.admin.run(move |authority| async move {
            authority
                .dry_run_end_matching_keys(&caller, filter, &end)
                .await
        });
        found.await
    }

    async fn end(
        &self,
        caller: AuthorizedCaller,
        request: ChangeRequest,
        filter: KeyFilter,
        end: EndOfKeys,
        fingerprint: [u8; 32],
    ) -> Result<ChangeResult<BulkOutcome>, Status> {
        let made = self.admin.run(move |authority| async move {
            authority
                .end_matching_keys(&caller, &request, filter, end, fingerprint)
                .await
        });
        made.await
    }
}
