//! Calls whose client does not wait for the answer.

use claviger::domain::clock::Clock;
use claviger::pb::claviger::v1 as pb;
use pb::Verdict;

use crate::fixtures::{Engine, NOW, Service, TestStore, eventually, on_both_engines, settled};

on_both_engines! {
    /// Seen red with the work awaited in `Admin::run` instead of spawned: the revocation then ends with its caller.
    async fn a_mutation_that_nobody_waits_for_any_more_still_runs_to_its_end(engine: Engine) {
        // The feed waits to be poked: only the mutation itself can bring its change into force, and each access is counted.
        let test_store = TestStore::on(engine);
        let flags = ["--poll-interval", "1h", "--usage-interval", "0s"];
        let service = Service::start_with(test_store, Clock::system(), "", &flags).await;
        let mut api = service.api();
        api.make_demo().await;
        let issued = api.issue().await;
        let id = issued.key.unwrap().id;
        settled(&service).await;

        // The test holds the one writer, so that the call is stopped in its middle for as long as it takes.
        let writer = service.store.change(NOW).await.unwrap();
        let before = service.store.sessions();
        let mut hasty = api.clone();
        let call = tokio::spawn(async move { hasty.revoke(&id).await });
        eventually("the call waits for the writer", async || {
            (service.store.sessions() > before).then_some(())
        })
        .await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        // On the same connection, so that the server has heard of the cancellation before it answers these.
        for _ in 0..20 {
            assert_eq!(api.verdict(&issued.plain_key).await, Verdict::Allowed);
        }
        drop(writer);
        eventually("the revocation is in force", async || {
            (api.verdict(&issued.plain_key).await == Verdict::Revoked).then_some(())
        })
        .await;
        api.issue().await;
        service.stop().await;
    }
}
