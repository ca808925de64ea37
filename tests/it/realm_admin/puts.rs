//! What a put of a partner or a project keeps, and what it refuses.

use std::sync::atomic::{AtomicU32, Ordering};

use claviger::pb::claviger::v1 as pb;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Builder;

use crate::fixtures::{Api, Engine, Service, from_env, refused_by_state};

fn partner_request(id: &str, suspended: Option<bool>) -> pb::PutPartnerRequest {
    pb::PutPartnerRequest {
        partner: Some(pb::Partner {
            realm: "demo".to_owned(),
            id: id.to_owned(),
            suspended,
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Puts a partner as a sequence says, each time under another display name, and compares its suspension with the last one that
/// was stated.
async fn put_as_planned(
    api: &mut Api,
    id: &str,
    plan: &[Option<bool>],
) -> Result<(), TestCaseError> {
    let mut expected = false;
    for (step, suspended) in plan.iter().enumerate() {
        expected = suspended.unwrap_or(expected);
        let mut request = partner_request(id, *suspended);
        let display_name = format!("step {step}");
        let partner = request.partner.as_mut().unwrap();
        partner.display_name.clone_from(&display_name);
        let put = api.realms.put_partner(request).await.unwrap().into_inner();
        let get = pb::GetPartnerRequest {
            realm: "demo".to_owned(),
            partner: id.to_owned(),
        };
        let got = api.realms.get_partner(get).await.unwrap().into_inner();
        for partner in [put.partner.unwrap(), got.partner.unwrap()] {
            prop_assert_eq!(partner.suspended, Some(expected), "step {}", step);
            prop_assert_eq!(&partner.display_name, &display_name);
        }
    }
    Ok(())
}

/// Seen red with an absent `suspended` taken for `false`.
fn a_put_that_does_not_name_the_suspension_keeps_it(engine: Engine) {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let service = runtime.block_on(async {
        let service = Service::start(engine).await;
        service.api().make_demo().await;
        service
    });
    let mut runner = TestRunner::new(Config {
        cases: u32::try_from(from_env("CLAVIGER_TEST_PUTS", 24)).unwrap(),
        failure_persistence: None,
        ..Config::default()
    });
    // Each case has a partner of its own.
    let number = AtomicU32::new(0);
    let plan = proptest::collection::vec(any::<Option<bool>>(), 1..6);
    let outcome = runner.run(&plan, |plan| {
        let id = format!("p{}", number.fetch_add(1, Ordering::Relaxed));
        runtime.block_on(async { put_as_planned(&mut service.api(), &id, &plan).await })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    runtime.block_on(service.stop());
}

mod sqlite {
    #[test]
    fn a_put_that_does_not_name_the_suspension_keeps_it() {
        super::a_put_that_does_not_name_the_suspension_keeps_it(super::Engine::Sqlite);
    }
}

mod postgres {
    #[test]
    fn a_put_that_does_not_name_the_suspension_keeps_it() {
        super::a_put_that_does_not_name_the_suspension_keeps_it(super::Engine::Postgres);
    }
}

/// A project's partner can never change, so a put with another revision cannot help.
///
/// Seen red with the revision checked before the partner.
#[tokio::test]
async fn a_project_of_another_partner_is_refused_at_any_revision() {
    let service = Service::start(Engine::Sqlite).await;
    let mut api = service.api();
    api.make_demo().await;
    for if_revision in [None, Some(0), Some(1)] {
        let request = pb::PutProjectRequest {
            project: Some(pb::Project {
                realm: "demo".to_owned(),
                id: "one".to_owned(),
                partner: "umbrella".to_owned(),
                ..Default::default()
            }),
            if_revision,
            ..Default::default()
        };
        let refusal = refused_by_state(api.realms.put_project(request).await);
        assert_eq!(
            refusal.reason, "PROJECT_OF_ANOTHER_PARTNER",
            "{if_revision:?}"
        );
    }
    service.stop().await;
}
