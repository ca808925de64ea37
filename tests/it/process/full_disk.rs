//! A disk that is nearly full: what takes access away is still made, everything else is refused with a reason, and nothing is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use claviger::pb::claviger::v1 as pb;
use pb::{KeyState, Verdict};
use tonic::{Code, Status};

use crate::fixtures::{
    Api, Engine, IssuedKey, Program, Refusal, TestStore, demo_realm, eventually, get, issue,
    issue_request, issue_request_with, request_id, revoke_keys, update,
};

/// The size of the file system, in MiB. The default reserve is 64.
const DISK_MIB: usize = 128;

/// The file that fills the disk.
struct Filler(PathBuf);

impl Filler {
    /// Leaves so many MiB of the disk, which are seen from within the server's mount namespace.
    fn leave(&self, mib: usize) {
        let _ = fs::remove_file(&self.0);
        let disk = rustix::fs::statvfs(self.0.parent().unwrap()).unwrap();
        let free = usize::try_from(disk.f_bavail * disk.f_frsize).unwrap();
        let bytes = free.saturating_sub(mib << 20);
        fs::write(&self.0, vec![1; bytes]).unwrap();
    }

    fn remove(&self) {
        fs::remove_file(&self.0).unwrap();
    }
}

#[track_caller]
fn refused_for_the_disk<T>(answer: Result<T, Status>) {
    let refusal = Refusal::of(&answer.err().expect("a refusal"));
    assert_eq!(
        (refusal.code, refusal.reason.as_str()),
        (Code::ResourceExhausted, "DISK_NEARLY_FULL")
    );
}

/// Everything that may grant something, or is for people only.
async fn all_else_is_refused(api: &mut Api, key: &IssuedKey) {
    refused_for_the_disk(api.keys.issue_key(issue_request()).await);
    refused_for_the_disk(
        update(api, &key.id, &["name"], |key| {
            "new".clone_into(&mut key.name);
        })
        .await,
    );
    let enable = pb::EnableKeyRequest {
        key_id: key.id.clone(),
        ..Default::default()
    };
    refused_for_the_disk(api.keys.enable_key(enable).await);
    let put = pb::PutRealmRequest {
        realm: Some(demo_realm()),
        ..Default::default()
    };
    refused_for_the_disk(api.realms.put_realm(put).await);
}

async fn uses(api: &mut Api, key: &IssuedKey) -> u64 {
    let request = pb::GetKeyUsageRequest {
        key_id: key.id.clone(),
        ..Default::default()
    };
    let usage = api.keys.get_key_usage(request).await.unwrap().into_inner();
    usage.totals.iter().map(|total| total.count).sum()
}

async fn events(api: &mut Api) -> Vec<u64> {
    let mut revisions = Vec::new();
    let mut request = pb::ListEventsRequest {
        page_size: 1_000,
        ..Default::default()
    };
    loop {
        let page = api
            .keys
            .list_events(request.clone())
            .await
            .unwrap()
            .into_inner();
        revisions.extend(page.events.iter().map(|event| event.revision));
        if page.next_page_token.is_empty() {
            return revisions;
        }
        request.page_token = page.next_page_token;
    }
}

/// Seen red without `check_room`, with it for every change, with usage written in any case, and with the room checked before a
/// repetition is looked up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearly_full_disk_takes_revocations_and_loses_nothing() {
    let test_store = TestStore::on(Engine::Sqlite);
    fs::create_dir_all(test_store.data()).unwrap();
    let flags = ["--usage-interval=200ms"];
    let mut program = Program::serve_on_a_disk(&test_store, DISK_MIB, &flags);
    let disk = program.own_path(&test_store.data());
    let filler = Filler(disk.join("filler"));
    let mut api = Api::new(&program.address, &operator(&disk));
    api.make_demo().await;
    let mut keys = Vec::new();
    for _ in 0..300 {
        keys.push(issue(&mut api, issue_request()).await);
    }
    let good = issue(&mut api, issue_request()).await;
    let of_umbrella = issue_request_with(|request| "umbrella".clone_into(&mut request.partner));
    let of_umbrella = issue(&mut api, of_umbrella).await;

    filler.leave(40);
    all_else_is_refused(&mut api, &good).await;
    for (n, key) in keys.iter().enumerate() {
        match n % 3 {
            0 => api.revoke(&key.id).await.map(drop).unwrap(),
            1 => api.delete(&key.id).await.map(drop).unwrap(),
            _ => {
                let disable = pb::DisableKeyRequest {
                    key_id: key.id.clone(),
                    ..Default::default()
                };
                api.keys.disable_key(disable).await.map(drop).unwrap();
            }
        }
    }
    api.put_partner("umbrella", true).await;
    let staging = revoke_keys(&mut api, |keys| {
        "staging".clone_into(&mut keys.filter.get_or_insert_default().environment);
    });
    let name = request_id();
    let staging = staging.await.unwrap();
    assert!(!staging.replayed);
    // A repetition is answered, although it takes nothing more away.
    for replayed in [false, true] {
        let in_bulk = revoke_keys(&mut api, |keys| {
            keys.request_id.clone_from(&name);
            "umbrella".clone_into(&mut keys.filter.get_or_insert_default().partner);
        });
        assert_eq!(in_bulk.await.unwrap().replayed, replayed);
    }
    all_else_is_refused(&mut api, &good).await;
    for _ in 0..50 {
        assert_eq!(api.verdict(&good.plain_key).await, Verdict::Allowed);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(uses(&mut api, &good).await, 0, "usage waits in memory");
    let log = String::from_utf8_lossy(&program.log.lock().unwrap()).into_owned();
    assert!(log.contains("disk nearly full"), "{log}");

    filler.remove();
    eventually("usage is written", async || {
        (uses(&mut api, &good).await == 50).then_some(())
    })
    .await;
    let last = issue(&mut api, issue_request()).await;
    let mut revisions = events(&mut api).await;
    revisions.reverse();
    let all: Vec<u64> = (1..=revisions.last().copied().unwrap()).collect();
    assert!(revisions == all, "an event is lost");

    // The file system ends with the process that it was made for, so the data is copied before.
    program.kill_after(|| {
        let copy = test_store.data();
        for entry in fs::read_dir(&disk).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
    });
    let program = Program::serve(&test_store, &[]);
    let mut api = program.api();
    for (n, key) in keys.iter().enumerate() {
        let expected = [Verdict::Revoked, Verdict::Unknown, Verdict::Disabled][n % 3];
        assert_eq!(api.verdict(&key.plain_key).await, expected, "{n}");
    }
    assert_eq!(api.verdict(&of_umbrella.plain_key).await, Verdict::Revoked);
    for key in [&good, &last] {
        assert_eq!(api.verdict(&key.plain_key).await, Verdict::Allowed);
        assert_eq!(get(&mut api, &key.id).await.state(), KeyState::Active);
    }
}

fn operator(disk: &Path) -> String {
    fs::read_to_string(disk.join("operator.key"))
        .unwrap()
        .trim()
        .to_owned()
}
