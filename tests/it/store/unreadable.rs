//! Rows of realms, partners and projects that cannot be read: nothing is decided about what depends on them, and everything else
//! goes on.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;
use pb::verify_request::Target;
use tonic::Code;

use crate::fixtures::{
    Api, Engine, IssuedKey, Service, demo_realm, eventually, issue, issue_request,
    issue_request_with, on_both_engines, verify_request,
};

/// Something whose row a test spoils.
struct Spoiled {
    what: &'static str,
    spoil: &'static str,
    mend: &'static str,
    /// The kind, realm, partner, project and key of an event about it.
    event: &'static str,
}

/// The last of each pair is for SQLite alone: PostgreSQL stores no text that is no text.
fn rows(engine: Engine) -> Vec<Spoiled> {
    let mut rows = vec![
        Spoiled {
            what: "realm",
            spoil: "UPDATE realms SET definition = replace(definition, '\"environments\"', '\"enviroments\"') WHERE id = 'demo'",
            mend: "UPDATE realms SET definition = replace(definition, '\"enviroments\"', '\"environments\"') WHERE id = 'demo'",
            event: "'realm.put', 'demo', NULL, NULL, NULL",
        },
        // As a later version may write it, with a rule that this version does not know.
        Spoiled {
            what: "realm",
            spoil: "UPDATE realms SET definition = replace(definition, '\"scopes\":[{', '\"scopes\":[{\"later\":true,') WHERE id = 'demo'",
            mend: "UPDATE realms SET definition = replace(definition, '\"later\":true,', '') WHERE id = 'demo'",
            event: "'realm.put', 'demo', NULL, NULL, NULL",
        },
        Spoiled {
            what: "project",
            spoil: "UPDATE projects SET partner = '/' WHERE id = 'one'",
            mend: "UPDATE projects SET partner = 'acme' WHERE id = 'one'",
            event: "'project.put', 'demo', 'acme', 'one', NULL",
        },
    ];
    if engine == Engine::Sqlite {
        rows.extend([
            Spoiled {
                what: "partner",
                spoil: "UPDATE partners SET display_name = CAST(x'ff' AS TEXT) WHERE realm = 'demo' AND id = 'acme'",
                mend: "UPDATE partners SET display_name = '' WHERE realm = 'demo' AND id = 'acme'",
                event: "'partner.put', 'demo', 'acme', NULL, NULL",
            },
            Spoiled {
                what: "project",
                spoil: "UPDATE projects SET display_name = CAST(x'ff' AS TEXT) WHERE id = 'one'",
                mend: "UPDATE projects SET display_name = '' WHERE id = 'one'",
                event: "'project.put', 'demo', 'acme', 'one', NULL",
            },
        ]);
    }
    rows
}

/// Appends an event, as a writer of the row would have.
pub(super) async fn append_event(service: &Service, event: &str) {
    let next = format!(
        "INSERT INTO events (revision, stamp, time, peer, kind, realm, partner, project, key_id, detail)
         SELECT revision + 1, stamp + 1, time + 1, '', {event}, '{{}}' FROM events ORDER BY revision DESC LIMIT 1"
    );
    let statements = [
        next.as_str(),
        "UPDATE authority SET revision = revision + 1, clock = clock + 1",
    ];
    service.test_store.execute_sql(&statements).await;
}

/// The verdict about the key, or the code of the error.
async fn verdict(api: &mut Api, request: pb::VerifyRequest) -> Result<Verdict, Code> {
    let answer = api.verify.verify(request).await;
    answer
        .map(|answer| answer.into_inner().verdict())
        .map_err(|status| status.code())
}

struct Keys {
    partner: IssuedKey,
    project: IssuedKey,
    other_project: IssuedKey,
    other_partner: IssuedKey,
    other_realm: IssuedKey,
}

impl Keys {
    async fn issue(api: &mut Api) -> Self {
        let of_project = |project: &'static str| {
            issue_request_with(|request| {
                project.clone_into(&mut request.project);
                request.level = pb::KeyLevel::Project.into();
            })
        };
        Self {
            partner: issue(api, issue_request()).await,
            project: issue(api, of_project("one")).await,
            other_project: issue(api, of_project("two")).await,
            other_partner: issue(
                api,
                issue_request_with(|request| "umbrella".clone_into(&mut request.partner)),
            )
            .await,
            other_realm: issue(
                api,
                issue_request_with(|request| "other".clone_into(&mut request.realm)),
            )
            .await,
        }
    }

    /// What is decided about each of them: of the partner key for itself and for the project, and of all others.
    async fn verdicts(&self, api: &mut Api) -> Vec<Result<Verdict, Code>> {
        let any = |key: &IssuedKey| pb::VerifyRequest {
            target: Some(Target::AnyTarget(true)),
            ..verify_request(&key.plain_key)
        };
        let requests = [
            any(&self.partner),
            pb::VerifyRequest {
                target: Some(Target::Project("one".to_owned())),
                ..verify_request(&self.partner.plain_key)
            },
            any(&self.project),
            any(&self.other_project),
            any(&self.other_partner),
            pb::VerifyRequest {
                realm: "other".to_owned(),
                ..any(&self.other_realm)
            },
        ];
        let mut verdicts = Vec::new();
        for request in requests {
            verdicts.push(verdict(api, request).await);
        }
        verdicts
    }
}

on_both_engines! {
    /// Seen red with the error of such a row as an error of the poll, with the row taken for deleted, with one at a start left out,
    /// and without a full load when it can be read again.
    async fn nothing_is_decided_about_what_depends_on_it_and_everything_else_goes_on(engine: Engine) {
        const NO: Result<Verdict, Code> = Err(Code::Internal);
        const OK: Result<Verdict, Code> = Ok(Verdict::Allowed);
        for row in rows(engine) {
            let service = Service::start(engine).await;
            let operator = service.operator.clone();
            let mut api = service.api();
            api.make_demo().await;
            api.put_realm(pb::Realm { id: "other".to_owned(), prefix: "other".to_owned(), ..demo_realm() }).await;
            let acme = pb::Partner { realm: "other".to_owned(), id: "acme".to_owned(), ..Default::default() };
            let put = pb::PutPartnerRequest { partner: Some(acme), ..Default::default() };
            api.realms.put_partner(put).await.unwrap();
            let keys = Keys::issue(&mut api).await;
            assert_eq!(keys.verdicts(&mut api).await, [OK; 6], "{}", row.what);
            let expected = match row.what {
                "realm" => [NO, NO, NO, NO, NO, OK],
                "partner" => [NO, NO, NO, NO, OK, OK],
                _ => [OK, NO, NO, OK, OK, OK],
            };

            service.test_store.execute_sql(&[row.spoil]).await;
            append_event(&service, row.event).await;
            eventually("the row is taken for unreadable", async || {
                (keys.verdicts(&mut api).await == expected).then_some(())
            })
            .await;
            // Changes of everything else are applied, and only those that need the row are refused.
            let other = pb::IssueKeyRequest { realm: "other".to_owned(), ..issue_request() };
            let more = issue(&mut api, other).await;
            api.revoke(&more.id).await.unwrap();
            let revoked = pb::VerifyRequest { realm: "other".to_owned(), ..verify_request(&more.plain_key) };
            assert_eq!(verdict(&mut api, revoked).await, Ok(Verdict::Revoked));

            let test_store = service.stop().await;
            let service = Service::start_with(test_store, Clock::system(), &operator, &[]).await;
            let mut api = service.api();
            assert_eq!(keys.verdicts(&mut api).await, expected, "{} after a restart", row.what);
            service.test_store.execute_sql(&[row.mend]).await;
            append_event(&service, row.event).await;
            eventually("the row is read again", async || {
                (keys.verdicts(&mut api).await == [OK; 6]).then_some(())
            })
            .await;
            service.stop().await;
        }
    }

    /// Seen red with a column that cannot be decoded as an error of the poll.
    async fn an_event_with_a_spoiled_column_does_not_stop_the_feed(engine: Engine) {
        let service = Service::start(engine).await;
        let mut api = service.api();
        api.make_demo().await;
        // PostgreSQL stores only what can be decoded.
        if engine == Engine::Sqlite {
            append_event(&service, "CAST(x'ff' AS TEXT), 'demo', NULL, NULL, NULL").await;
            append_event(&service, "'key.revoked', 'demo', NULL, NULL, NULL").await;
            let key = "UPDATE events SET key_id = x'00' WHERE revision = (SELECT max(revision) FROM events)";
            service.test_store.execute_sql(&[key]).await;
        }
        let key = issue(&mut api, issue_request()).await;
        api.revoke(&key.id).await.unwrap();
        assert_eq!(api.verdict(&key.plain_key).await, Verdict::Revoked);
        service.stop().await;
    }
}

/// PostgreSQL stores no text that is no text. Seen red with facts that are decoded as text, in the poll and in the load.
#[tokio::test]
async fn a_key_whose_row_is_no_text_stops_neither_the_feed_nor_the_start() {
    let service = Service::start(Engine::Sqlite).await;
    let mut api = service.api();
    api.make_demo().await;
    let spoiled = issue(&mut api, issue_request()).await;
    let other = issue(&mut api, issue_request()).await;
    let id = spoiled.id.replace('-', "");
    let spoil = format!(
        "UPDATE keys SET facts = CAST(replace(facts, 'production', CAST(x'ff' AS TEXT)) AS TEXT) WHERE id = x'{id}'"
    );
    service.test_store.execute_sql(&[&spoil]).await;
    append_event(
        &service,
        &format!("'key.updated', 'demo', 'acme', NULL, x'{id}'"),
    )
    .await;
    eventually("the row is taken for unreadable", async || {
        let answer = verdict(&mut api, verify_request(&spoiled.plain_key)).await;
        (answer == Err(Code::Internal)).then_some(())
    })
    .await;
    api.revoke(&other.id).await.unwrap();
    assert_eq!(api.verdict(&other.plain_key).await, Verdict::Revoked);

    let operator = service.operator.clone();
    let test_store = service.stop().await;
    let service = Service::start_with(test_store, Clock::system(), &operator, &[]).await;
    let mut api = service.api();
    let answer = verdict(&mut api, verify_request(&spoiled.plain_key)).await;
    assert_eq!(answer, Err(Code::Internal));
    assert_eq!(api.verdict(&other.plain_key).await, Verdict::Revoked);
    service.stop().await;
}
