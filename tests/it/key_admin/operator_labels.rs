//! Labels of the operator: those whose names begin with `operator/`. A server behind a gateway may trust them, so a partner's own key
//! neither sets nor changes nor removes them.

use std::collections::BTreeMap;

use tonic::{Code, Status};

use super::delegation::delegate;
use crate::fixtures::{
    Api, Engine, authority_key_request, delegating_service, get, issue, on_both_engines, refused,
    rotate, update,
};

fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    labels.iter().map(owned).collect()
}

async fn label(
    api: &mut Api,
    key_id: &str,
    with: &[(&str, &str)],
) -> Result<BTreeMap<String, String>, Status> {
    let answer = update(api, key_id, &["labels"], |request| {
        request.labels = labels(with);
    })
    .await?;
    Ok(answer.key.unwrap().labels)
}

on_both_engines! {
    /// Seen red without the check of an issue, without that of an update, and with labels that an update drops.
    async fn a_partner_keeps_what_the_operator_set(engine: Engine) {
        let (service, mut root) = delegating_service(engine).await;
        let own = issue(&mut root, delegate(|_| {})).await;
        let mut partner = service.api_as(&own.plain_key);
        let manager = issue(&mut root, authority_key_request("manage", "demo")).await;
        let mut manager = service.api_as(&manager.plain_key);

        let asked = |with: &[(&str, &str)]| {
            let labels = labels(with);
            super::delegation::delegate(move |request| {
                request.labels = labels;
                request.scopes = vec!["write".to_owned()];
            })
        };
        let plan = [("operator/plan", "gold"), ("team", "a")];
        for with in [&plan[..], &[("operator/", "")]] {
            let refusal = refused(partner.keys.issue_key(asked(with)).await);
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::PermissionDenied, "NOT_ALLOWED"));
        }
        let team = issue(&mut partner, asked(&[("team", "a"), ("operator", "x"), ("Operator/plan", "y")])).await;
        let key = issue(&mut manager, asked(&plan)).await;
        assert_eq!(get(&mut root, &key.id).await.labels, labels(&plan));

        // Left out or repeated it stays; another value is refused, and nothing changes.
        let both = [("operator/plan", "gold"), ("team", "b")];
        assert_eq!(label(&mut partner, &key.id, &[("team", "b")]).await.unwrap(), labels(&both));
        assert_eq!(label(&mut partner, &key.id, &both).await.unwrap(), labels(&both));
        for with in [&[("operator/plan", "free")][..], &[("operator/plan", "gold"), ("operator/tier", "1")]] {
            let refusal = refused(label(&mut partner, &key.id, with).await);
            assert_eq!(refusal.code, Code::PermissionDenied);
        }
        let refusal = refused(label(&mut partner, &team.id, &[("operator/plan", "gold")]).await);
        assert_eq!(refusal.code, Code::PermissionDenied);
        assert_eq!(label(&mut partner, &key.id, &[]).await.unwrap(), labels(&[("operator/plan", "gold")]));
        let many: Vec<_> = (0..16).map(|number| format!("l{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        let refusal = refused(label(&mut partner, &key.id, &many).await);
        assert_eq!((refusal.code, refusal.fields), (Code::InvalidArgument, vec!["labels".to_owned()]));
        assert_eq!(label(&mut partner, &key.id, &many[1..]).await.unwrap().len(), 16);
        rotate(&mut partner, &key.id, 0).await.unwrap();
        assert_eq!(get(&mut root, &key.id).await.labels.len(), 16);

        // Operators and managers replace all of them.
        assert_eq!(label(&mut manager, &key.id, &[("operator/plan", "free")]).await.unwrap().len(), 1);
        assert_eq!(label(&mut root, &key.id, &[]).await.unwrap().len(), 0);
        service.stop().await;
    }
}
