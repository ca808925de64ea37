//! The owner of a new key, which the request names itself or by the project.

use claviger::pb::claviger::v1 as pb;
use pb::KeyLevel;
use sha2::{Digest, Sha256};
use tonic::{Code, Status};

use crate::fixtures::{
    DemoService, Engine, delegating_realm, get, hex_of, import, import_entry_of, issue,
    issue_request, issue_request_with, on_both_engines, refused_field, strings,
};

fn told(status: &Status) -> (Code, String, Vec<u8>) {
    let (message, details) = (status.message().to_owned(), status.details().to_vec());
    (status.code(), message, details)
}

/// Asks for a key of this project, without a partner.
fn of_project(project: &str) -> pb::IssueKeyRequest {
    issue_request_with(|request| {
        request.partner.clear();
        request.level = KeyLevel::Unspecified.into();
        project.clone_into(&mut request.project);
    })
}

on_both_engines! {
    /// Seen red with a partner that is required, and with a delegate who may name any project.
    async fn a_project_names_the_owner_of_its_keys(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_realm(delegating_realm()).await;
        let issued = issue(root, of_project("one")).await;
        assert_eq!(get(root, &issued.id).await.partner, "acme");
        let unknown = root.keys.issue_key(of_project("unknown")).await.err().unwrap();
        assert_eq!(unknown.code(), Code::NotFound);
        refused_field(root.keys.issue_key(of_project("")).await, "partner");

        let hash = hex_of(&Sha256::digest("an old key"));
        let entry = pb::ImportEntry {
            partner: String::new(),
            project: "one".to_owned(),
            level: KeyLevel::Unspecified.into(),
            ..import_entry_of(pb::import_entry::Secret::Sha256(hash))
        };
        let imported = import(root, vec![entry]).await.remove(0).unwrap();
        assert_eq!(get(root, &imported).await.partner, "acme");

        // A delegate can only mean its own partner, and learns nothing about the projects of others.
        let delegate = issue_request_with(|request| request.scopes = strings(&["keys", "write"]));
        let delegate = issue(root, delegate).await;
        let mut api = root.with_key(&delegate.plain_key);
        let issued = issue(&mut api, of_project("one")).await;
        assert_eq!(get(&mut api, &issued.id).await.partner, "acme");
        let of_another = api.keys.issue_key(of_project("three")).await.err().unwrap();
        let unknown = api.keys.issue_key(of_project("unknown")).await.err().unwrap();
        assert_eq!(of_another.code(), Code::NotFound);
        assert_eq!(told(&of_another), told(&unknown));
        let no_project = pb::IssueKeyRequest { partner: String::new(), ..issue_request() };
        let refused = api.keys.issue_key(no_project).await.err().unwrap();
        assert_eq!(refused.code(), Code::PermissionDenied);
        demo.service.stop().await;
    }
}
