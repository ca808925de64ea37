//! What attackers of each role cost an operator and a gateway: the times of both without attackers and beside them.
//!
//! The cores and the clients are those of the isolation. The attackers make the most expensive calls of their role without a pause.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1 as pb;
use pb::key_admin_client::KeyAdminClient;
use pb::realm_admin_client::RealmAdminClient;
use prost::Message;
use rustix::thread::sched_setaffinity;
use tonic::Request;

use super::clients::{AdminCall, AdminLoad, Administered, Client, Measured, OperatorLoad, WARM_UP};
use super::{
    Cores, IMPORT_KEYS, IMPORTS, LARGEST_MESSAGE, LIST_EVENTS, MOST, Outcome, PUT_REALM, Running,
    Server, VERIFY_BATCH, import_file, largest_realms, put, write_imports,
};
use crate::questions::{BATCH, question};
use crate::seed::{Database, Seeded, seed};
use crate::slices::{median, number};

/// The number of calls of a role that are in progress, as many as one connection has room for.
const CALLS: usize = 90;

/// The number of keys that a manager issues at once, and of the connections for that.
const ISSUED_AT_ONCE: usize = 665;
const CONNECTIONS: usize = 8;

const GET_KEY: &str = "KeyAdmin/GetKey";
const ISSUE_KEY: &str = "KeyAdmin/IssueKey";
const LIST_KEYS: &str = "KeyAdmin/ListKeys";
const REVOKE_KEYS: &str = "KeyAdmin/RevokeKeys";

/// A role, and its pairs of times without attackers and beside them.
struct Role {
    name: &'static str,
    /// The calls of each list are made one after the other, the lists at the same time.
    lists: Vec<Vec<AdminCall>>,
    pairs: Vec<(Times, Times)>,
    attacked: Administered,
    seconds: f64,
}

struct Times {
    operator: Measured,
    gateway: Measured,
}

/// Measures an operator and a gateway beside the attackers of each role.
pub(crate) async fn measure(keys: usize, quick: bool) -> Outcome<()> {
    let (rounds, time) = if quick {
        (1, Duration::from_millis(500))
    } else {
        (3, Duration::from_secs(5))
    };
    let cores = Cores::of_this_process()?;
    // The children inherit it.
    sched_setaffinity(None, &cores.others)?;
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data");
    fs::create_dir(&data)?;
    let database = Database::Sqlite(data.join("claviger.db"));
    let seeded = seed(&database, &data.join("pepper.toml"), keys).await?;
    let server = Server::start(&data, &cores)?;
    let mut roles = roles(dir.path(), &server.process.address, &seeded).await?;
    drop(server);
    for round in 0..rounds {
        for role in &mut roles {
            write_imports(dir.path(), round)?;
            let server = Server::start(&data, &cores)?;
            let pair = role.measure(&server, &seeded, time);
            pair.map_err(|error| format!("{}: {error}", role.name))?;
        }
    }
    println!(
        "An operator and a gateway beside attackers: medians of {rounds} pairs of slices, without attackers and beside them, of {} s.\n\
         The operator issues a key and revokes it, one after the other. The latencies contain the time for which the clients wait for\n\
         their core, which they share with each other, the attackers and the administration.\n",
        time.as_secs_f64()
    );
    report(&roles);
    Ok(())
}

fn report(roles: &[Role]) {
    println!(
        "{:<16} {:>44} {:>44}",
        "", "issue and revoke: p50 ms x, p99 ms x, calls", "Verify: p50 us x, p99 us x, calls"
    );
    for role in roles {
        let column = |of: fn(&Times) -> &Measured, value: fn(&Measured) -> f64| {
            let calm = role.pairs.iter().map(|(calm, _)| value(of(calm)));
            let ratios = role
                .pairs
                .iter()
                .map(|(calm, beside)| value(of(beside)) / value(of(calm)));
            (
                median(&calm.collect::<Vec<_>>()),
                median(&ratios.collect::<Vec<_>>()),
            )
        };
        let both = |of: fn(&Times) -> &Measured, unit: f64| {
            let (p50, p50_ratio) = column(of, |measured| measured.p50);
            let (p99, p99_ratio) = column(of, |measured| measured.p99);
            let calls = role.pairs.iter().map(|(_, beside)| of(beside).calls);
            let calls: usize = calls.sum();
            format!(
                "{:>8.1} {p50_ratio:>6.2} {:>8.1} {p99_ratio:>6.2} {calls:>8}",
                p50 / unit,
                p99 / unit
            )
        };
        println!(
            "{:<16} {:>44} {:>44}",
            role.name,
            both(|times| &times.operator, 1e3),
            both(|times| &times.gateway, 1.0)
        );
    }
    println!("\nAnswers to the attackers per second, by method and gRPC status:");
    for role in roles {
        let rates = role
            .attacked
            .iter()
            .map(|(answer, &count)| format!("{answer} {:.1}", number(count) / role.seconds));
        println!("{:<16} {}", role.name, rates.collect::<Vec<_>>().join(", "));
    }
}

impl Role {
    fn measure(&mut self, server: &Server, seeded: &Seeded, time: Duration) -> Outcome<()> {
        let calm = times(server, seeded, time)?;
        let began = Instant::now();
        let load = AdminLoad {
            address: server.process.address.clone(),
            lists: self.lists.clone(),
            connections: CONNECTIONS,
        };
        let attackers = Running::start(Client::Administer, &load)?;
        std::thread::sleep(WARM_UP);
        let beside = times(server, seeded, time)?;
        let attacked: Administered = attackers.stop()?;
        self.seconds += began.elapsed().as_secs_f64();
        for (answer, count) in attacked {
            *self.attacked.entry(answer).or_default() += count;
        }
        self.pairs.push((calm, beside));
        Ok(())
    }
}

/// The times of an operator and a gateway at the same time. A call that fails is an error.
fn times(server: &Server, seeded: &Seeded, time: Duration) -> Outcome<Times> {
    let load = OperatorLoad {
        address: server.process.address.clone(),
        bearer: seeded.operator_key.clone(),
        issue: issue_request("partner-1", "write").encode_to_vec(),
        time,
    };
    let operator = Running::start(Client::Operate, &load)?;
    let gateway = server.gateway(seeded, time)?;
    Ok(Times {
        operator: operator.stop()?,
        gateway: gateway.stop()?,
    })
}

fn issue_request(partner: &str, scope: &str) -> pb::IssueKeyRequest {
    pb::IssueKeyRequest {
        realm: "demo".to_owned(),
        partner: partner.to_owned(),
        level: pb::KeyLevel::Partner.into(),
        environment: "production".to_owned(),
        scopes: vec![scope.to_owned()],
        ..Default::default()
    }
}

/// Issues the keys of the roles, and writes the messages of their calls into a directory.
async fn roles(dir: &Path, address: &str, seeded: &Seeded) -> Outcome<Vec<Role>> {
    let [deep, wide] = largest_realms(address, &seeded.operator_key)
        .await?
        .map(|realm| pb::Realm {
            admin_scope: "admin".to_owned(),
            ..realm
        });
    let mut realms = RealmAdminClient::connect(format!("http://{address}")).await?;
    let delegating = pb::PutRealmRequest {
        realm: Some(deep.clone()),
        ..Default::default()
    };
    realms.put_realm(as_operator(delegating, seeded)?).await?;
    let mut keys = KeyAdminClient::connect(format!("http://{address}")).await?;
    let request = issue_request("partner-0", "admin");
    let delegate = keys.issue_key(as_operator(request, seeded)?).await?;
    let request = pb::IssueKeyRequest {
        realm: "claviger".to_owned(),
        partner: "demo".to_owned(),
        scopes: vec!["manage".to_owned()],
        ..Default::default()
    };
    let manager = keys.issue_key(as_operator(request, seeded)?).await?;
    let (delegate, manager) = (delegate.into_inner(), manager.into_inner());
    let key_id = delegate.key.ok_or("no key")?.id;

    write_messages(dir, seeded, key_id, [deep, wide])?;

    let unproven = [
        (VERIFY_BATCH, "batch"),
        (GET_KEY, "get"),
        (PUT_REALM, "deep"),
        (IMPORT_KEYS, "no-message"),
    ];
    let of_gateway = [(VERIFY_BATCH, "batch"), (REVOKE_KEYS, "dry-run-")];
    let of_delegate = [
        (REVOKE_KEYS, "dry-run-partner-0"),
        (LIST_KEYS, "list-partner-0"),
        (ISSUE_KEY, "issue"),
        (GET_KEY, "get"),
    ];
    let of_manager = [
        (PUT_REALM, "deep"),
        (LIST_KEYS, "list-"),
        (LIST_EVENTS, "events"),
        (REVOKE_KEYS, "dry-run-"),
        (PUT_REALM, "wide"),
    ];
    let calls = |bearer: Option<&str>, calls: &[(&str, &str)]| -> Vec<AdminCall> {
        let call = |(method, name): &(&str, &str)| AdminCall {
            method: (*method).to_owned(),
            bearer: bearer.map(str::to_owned),
            message: dir.join(name),
        };
        calls.iter().map(call).collect()
    };
    let role = |name, bearer, made: &[(&str, &str)]| Role {
        name,
        lists: vec![calls(bearer, made); if made.is_empty() { 0 } else { CALLS }],
        pairs: Vec::new(),
        attacked: BTreeMap::new(),
        seconds: 0.0,
    };
    let bearer = Some(manager.plain_key.as_str());
    let mut manage = role("manage", bearer, &of_manager);
    let issue = calls(bearer, &[(ISSUE_KEY, "issue")]);
    manage.lists.extend(vec![issue; ISSUED_AT_ONCE]);
    let imports: Vec<_> = (0..IMPORTS).map(import_file).collect();
    let imports: Vec<_> = imports
        .iter()
        .map(|file| (IMPORT_KEYS, file.as_str()))
        .collect();
    manage.lists.push(calls(bearer, &imports));
    Ok(vec![
        // Against itself: its distance from 1.00 is the error of the other ratios.
        role("nobody", None, &[]),
        role("no credential", None, &unproven),
        role("wrong key", Some(seeded.unknown[0].as_str()), &unproven),
        role("verify", Some(seeded.gateway_key.as_str()), &of_gateway),
        role("delegate", Some(delegate.plain_key.as_str()), &of_delegate),
        manage,
    ])
}

/// Writes the messages of all calls.
fn write_messages(
    dir: &Path,
    seeded: &Seeded,
    key_id: String,
    [deep, wide]: [pb::Realm; 2],
) -> Outcome<()> {
    let write = |name: &str, message: Vec<u8>| fs::write(dir.join(name), message);
    let batch = pb::VerifyBatchRequest {
        requests: vec![question(seeded.plain_keys[0].clone()); BATCH],
    };
    let get = pb::GetKeyRequest {
        key_id,
        ..Default::default()
    };
    let page = pb::ListEventsRequest {
        page_size: MOST as i32,
        ..Default::default()
    };
    write("batch", batch.encode_to_vec())?;
    write("get", get.encode_to_vec())?;
    write("events", page.encode_to_vec())?;
    write("issue", issue_request("partner-0", "write").encode_to_vec())?;
    write("deep", put(deep))?;
    write("wide", put(wide))?;
    write("no-message", vec![0; LARGEST_MESSAGE])?;
    for partner in ["", "partner-0"] {
        let filter = pb::KeyFilter {
            realm: "demo".to_owned(),
            partner: partner.to_owned(),
            ..Default::default()
        };
        let list = pb::ListKeysRequest {
            filter: Some(filter.clone()),
            page_size: MOST as i32,
            ..Default::default()
        };
        let dry_run = pb::RevokeKeysRequest {
            filter: Some(filter),
            dry_run: true,
            ..Default::default()
        };
        write(&format!("list-{partner}"), list.encode_to_vec())?;
        write(&format!("dry-run-{partner}"), dry_run.encode_to_vec())?;
    }
    Ok(())
}

fn as_operator<T>(message: T, seeded: &Seeded) -> Outcome<Request<T>> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {}", seeded.operator_key).parse()?;
    request.metadata_mut().insert("authorization", bearer);
    Ok(request)
}
