//! Clients that abuse the transport, frame by frame, or a call, against the real program, beside a client that only wants its
//! answers.

mod floods;
mod hoards;
mod realms;
mod siege;

use siege::Siege;

/// Every abuser in turn against one and the same process: each is closed or bounded, the process grows by 64 MiB at the most
/// in all, and whoever asks properly meanwhile, from another address, is answered rightly each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_abuser_takes_the_server_from_those_who_use_it() {
    let mut siege = Siege::begin().await;
    siege.under("silence", hoards::silence).await;
    siege.under("a slow preface", hoards::slow_preface).await;
    siege.under("no SETTINGS", hoards::no_settings).await;
    siege.under("many connections", hoards::connections).await;
    siege.under("watches of health", hoards::watches).await;
    siege.under("bodies that never come", hoards::bodies).await;
    siege.under("answers not read", hoards::unread).await;
    siege
        .under_repeated("10,000 streams", floods::streams)
        .await;
    siege
        .under_repeated("rapid reset", floods::rapid_reset)
        .await;
    siege
        .under_repeated("MadeYouReset", floods::made_you_reset)
        .await;
    siege
        .under_repeated("CONTINUATION", floods::continuation)
        .await;
    siege
        .under_repeated("huge headers", floods::huge_headers)
        .await;
    siege.under_repeated("SETTINGS", floods::settings).await;
    siege.under_repeated("PING", floods::pings).await;
    siege.under_repeated("empty DATA", floods::empty_data).await;
    siege
        .under_repeated("WINDOW_UPDATE", floods::window_updates)
        .await;
    siege.end();
}
