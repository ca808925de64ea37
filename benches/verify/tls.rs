//! TLS beside plain text.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::connect::Certificate;
use crate::handshakes::Flood;
use crate::load::Shape;
use crate::questions::Kinds;
use crate::seed::{Database, Seeded, seed};
use crate::servers::{ServerProcess, in_dir};
use crate::slices::{Subject, measure_alternately, number};
use crate::{Effort, Outcome, USUAL, copy, report};

/// Starts the usual server over TLS, with a certificate that is made in a directory.
pub(crate) fn start(data: &Path, dir: &Path) -> Result<ServerProcess, Box<dyn Error>> {
    let flags = in_dir(data).into_iter().chain(USUAL.map(OsStr::new));
    ServerProcess::claviger_over_tls(&flags.collect::<Vec<_>>(), Certificate::make(dir)?)
}

/// Creates an authority in SQLite, and measures two servers of it, one over TLS.
pub(crate) async fn measure_alone(effort: &Effort) -> Outcome {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let database = Database::Sqlite(data.join("claviger.db"));
    let seeded = seed(&database, &data.join("pepper.toml"), effort.keys).await?;
    let kinds = Kinds::write(dir.path(), &seeded)?;
    let copy = copy(&data, &dir.path().join("copy"))?;
    let tls = start(&copy, dir.path())?;
    let flags = in_dir(&data).into_iter().chain(USUAL.map(OsStr::new));
    let (plain, _) = ServerProcess::claviger(&flags.collect::<Vec<_>>())?;
    measure(&tls, &plain, &seeded, &kinds, effort)?;
    drop(plain);
    let other = dir.path().join("other");
    fs::create_dir(&other)?;
    let quiet = start(&data, &other)?;
    measure_beside_handshakes(&tls, &quiet, &seeded, &kinds, effort)
}

/// Measures a server while an address does nothing but handshakes with it, beside one with which none does.
fn measure_beside_handshakes(
    flooded: &ServerProcess,
    quiet: &ServerProcess,
    seeded: &Seeded,
    kinds: &Kinds,
    effort: &Effort,
) -> Outcome {
    let subject =
        |name, server| Subject::new(name, server, seeded, kinds.hot.clone(), effort.calls);
    let names = ["Verify beside handshakes", "the same alone, against itself"];
    let began = Instant::now();
    let flood = Flood::start(flooded)?;
    let costs = measure_alternately(
        &subject(names[1], quiet),
        &[subject(names[0], flooded), subject(names[1], quiet)],
        effort.rounds,
    )?;
    let rate = number(flood.stop()?) / began.elapsed().as_secs_f64();
    println!(
        "\nOver TLS 1.3, while another address begins handshakes without a pause, 64 at once, of which {rate:.0} a second are\n\
         completed. Their cost is part of the slice.\n"
    );
    report("x alone", &costs);
    Ok(())
}

/// Measures TLS 1.3: a server that serves it and one in plain, on a copy of the same authority.
pub(crate) fn measure(
    tls: &ServerProcess,
    plain: &ServerProcess,
    seeded: &Seeded,
    kinds: &Kinds,
    effort: &Effort,
) -> Outcome {
    let mut costs = Vec::new();
    for (names, questions, shape, calls) in [
        (
            [
                "Verify, 1,000 hot keys",
                "the same in plain, against itself",
            ],
            &kinds.hot,
            Shape::USUAL,
            effort.calls,
        ),
        (
            ["forward-auth, 64 x 1", "the same in plain, against itself"],
            &kinds.forward_auth,
            Shape {
                connections: 64,
                in_flight: 1,
            },
            effort.calls / 5,
        ),
    ] {
        let subject = |name, server| Subject {
            shape,
            ..Subject::new(name, server, seeded, questions.clone(), calls)
        };
        let [over_tls, in_plain] = names;
        costs.extend(measure_alternately(
            &subject(in_plain, plain),
            &[subject(over_tls, tls), subject(in_plain, plain)],
            effort.rounds,
        )?);
    }
    println!(
        "\nThe cost of TLS 1.3: the same slices, alternating with those in plain. The handshakes, one for each connection, are\n\
         part of the slice.\n"
    );
    report("x in plain", &costs);
    Ok(())
}
