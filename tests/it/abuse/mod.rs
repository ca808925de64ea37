//! Clients that abuse the transport, frame by frame, or a call, against the real program, beside a client that only wants its
//! answers.

mod attacked_server;
mod connection;
mod floods;
mod held_resources;
mod isolation;
mod lists;
mod realm_definitions;
mod starvation;
mod statements;

use attacked_server::AttackedServer;

/// Every abuser in turn against one and the same process: each is closed or bounded, the process grows by at most 64 MiB
/// in all, and a proper client at another address gets the right answer each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_abuser_takes_the_server_from_those_who_use_it() {
    let mut server = AttackedServer::start().await;
    server.under("silence", held_resources::silence).await;
    server
        .under("a slow preface", held_resources::slow_preface)
        .await;
    server
        .under("no SETTINGS", held_resources::no_settings)
        .await;
    server
        .under("many connections", held_resources::connections)
        .await;
    server
        .under("watches of health", held_resources::watches)
        .await;
    server
        .under("bodies that never come", held_resources::bodies)
        .await;
    server
        .under("answers not read", held_resources::unread)
        .await;
    server
        .under_repeated("10,000 streams", floods::streams)
        .await;
    server
        .under_repeated("rapid reset", floods::rapid_reset)
        .await;
    server
        .under_repeated("MadeYouReset", floods::made_you_reset)
        .await;
    server
        .under_repeated("CONTINUATION", floods::continuation)
        .await;
    server
        .under_repeated("huge headers", floods::huge_headers)
        .await;
    server.under_repeated("SETTINGS", floods::settings).await;
    server.under_repeated("PING", floods::pings).await;
    server
        .under_repeated("empty DATA", floods::empty_data)
        .await;
    server
        .under_repeated("WINDOW_UPDATE", floods::window_updates)
        .await;
    server.end();
}
