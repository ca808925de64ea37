//! Keys of other systems, which their holders go on presenting as they are.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE};
use claviger::domain::ids::{KeyId, Prefix, Tag};
use claviger::domain::key_text::{PlainKey, SecretBytes};
use claviger::pb::claviger::v1 as pb;
use pb::import_entry::Secret;
use pb::verify_request::Target;
use pb::{KeepSecret, KeyState, Verdict};
use sha2::{Digest, Sha256};
use tonic::Code;

use crate::fixtures::{
    Api, DemoService, Engine, Refusal, SECOND, Service, after, authority_key_request, demo_realm,
    end_rotation, envoy_check, events_of, get, header_source, hex_of, import, import_entry,
    import_entry_of, import_into, import_outcome, issue, issue_request, list_in_states,
    on_both_engines, parse_time, refused, refused_field, rotate, strings, time, verify_request,
};

/// As Peaka's are today: a public part, a dot, and 32 characters.
const PEAKA: &str = "TtgGcQFq.s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU";

fn sha256(plain_key: &str) -> [u8; 32] {
    Sha256::digest(plain_key.as_bytes()).into()
}

fn by_hash(hash: String) -> pb::ImportEntry {
    import_entry_of(Secret::Sha256(hash))
}

/// A key of another system, hard to guess, and with 22 characters just long enough.
fn old_key(n: usize) -> String {
    format!("s3fzXw8Rk2VbN5yLm9Qp{n:02}")
}

async fn imported(api: &mut Api, entry: pb::ImportEntry) -> String {
    import(api, vec![entry]).await.remove(0).unwrap()
}

async fn not_imported(api: &mut Api, entry: pb::ImportEntry) -> Refusal {
    import(api, vec![entry]).await.remove(0).unwrap_err()
}

/// Peaka's realm, near enough: a partner key reaches everything, and the key stands behind `Bearer`.
fn peaka() -> pb::Realm {
    pb::Realm {
        id: "peaka".to_owned(),
        prefix: "peaka".to_owned(),
        environments: vec![pb::Environment {
            name: "production".to_owned(),
            tag: "live".to_owned(),
        }],
        unscoped_keys: pb::UnscopedKeys::FullAccess.into(),
        credentials: Some(pb::Credentials {
            sources: vec![header_source("authorization", "Bearer")],
            partner_header: String::new(),
        }),
        routes: vec![pb::Route {
            path: "/api/v1/**".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Whether a gateway lets a request through that presents this.
async fn passes(service: &Service, gateway: &str, authorization: &str) -> bool {
    let address = service.address.to_string();
    let headers = [("authorization", authorization)];
    let path = "/api/v1/organizations";
    let answer = envoy_check(&address, gateway, "peaka", path, &headers).await;
    let status = answer.unwrap().status;
    status.is_some_and(|status| status.code == 0)
}

on_both_engines! {
    /// Peaka's own keys go on at Peaka's own gateway.
    async fn a_key_of_peaka_goes_on_with_the_text_that_its_partner_has(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_realm(peaka()).await;
        let partner = pb::Partner {
            realm: "peaka".to_owned(),
            id: "acme".to_owned(),
            ..Default::default()
        };
        let request = pb::PutPartnerRequest {
            partner: Some(partner),
            ..Default::default()
        };
        root.realms.put_partner(request).await.unwrap();
        let gateway = issue(root, authority_key_request("verify", "peaka"))
        .await;
        let entry = pb::ImportEntry {
            name: "production".to_owned(),
            environment: String::new(),
            scopes: Vec::new(),
            ..import_entry(PEAKA)
        };
        let id = import_into(root, "peaka", vec![entry]).await.remove(0).unwrap();
        let key = get(root, &id).await;
        assert!(key.full_access, "as the realm says of keys without scopes");
        assert_eq!((key.partner.as_str(), key.name.as_str()), ("acme", "production"));
        assert!(key.hint.ends_with(&PEAKA[PEAKA.len() - 4..]) && key.hint.len() < 20, "{}", key.hint);
        assert!(matches!(key.secrets.as_slice(), [secret] if secret.imported));

        for restart in [false, true] {
            if restart {
                demo = demo.restarted().await;
            }
            let service = &demo.service;
            assert!(passes(service, &gateway.plain_key, &format!("Bearer {PEAKA}")).await);
            for wrong in [
                "Bearer TtgGcQFq.s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aV".to_owned(),
                "Bearer TtgGcQFq".to_owned(),
                format!("Bearer {}", &PEAKA["TtgGcQFq.".len()..]),
                PEAKA.to_owned(),
            ] {
                assert!(!passes(service, &gateway.plain_key, &wrong).await, "{wrong}");
            }
        }
        demo.service.stop().await;
    }

    /// Seen red with the hash of a hash, with base64 read as one alphabet only, and with a root made at a Verify.
    async fn a_text_is_proven_by_itself_whichever_way_it_was_told_and_without_a_slow_hash(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        // Between them their hashes hold every character in which the two alphabets of base64 differ.
        let plain_keys: Vec<_> = (0..40).map(old_key).collect();
        let joined: String = plain_keys.iter().map(|plain_key| BASE64_STANDARD.encode(sha256(plain_key))).collect();
        assert!(joined.contains('+') && joined.contains('/'));
        let forms: [fn(&str) -> pb::ImportEntry; 5] = [
            import_entry,
            |plain_key| by_hash(hex_of(&sha256(plain_key))),
            |plain_key| by_hash(hex_of(&sha256(plain_key)).to_uppercase()),
            |plain_key| by_hash(BASE64_STANDARD.encode(sha256(plain_key))),
            |plain_key| by_hash(BASE64_URL_SAFE.encode(sha256(plain_key))),
        ];
        let entries = plain_keys.iter().enumerate().map(|(i, plain_key)| forms[i % 5](plain_key));
        let before = demo.service.roots.made();
        let ids = import(root, entries.collect()).await;
        let made = demo.service.roots.made();
        assert_eq!(made - before, plain_keys.len() as u64, "each has a root");
        for (plain_key, id) in plain_keys.iter().zip(ids) {
            let answer = root.ask(plain_key).await;
            assert_eq!(answer.verdict(), Verdict::Allowed);
            assert_eq!(answer.key.unwrap().id, id.unwrap());
            // Neither the hash nor another spelling is the key.
            for wrong in [
                hex_of(&sha256(plain_key)),
                plain_key.to_uppercase(),
                format!("{plain_key}0"),
                plain_key[1..].to_owned(),
            ] {
                assert_eq!(root.verdict(&wrong).await, Verdict::Unknown, "{wrong}");
            }
        }
        assert_eq!(demo.service.roots.made(), made, "Verify makes none");
        demo.service.stop().await;
    }

    /// Somebody who reads hints, but has no pepper, cannot test guesses of a weak API key with them. Seen red with the digits of the
    /// SHA-256 in the hint.
    async fn a_hint_shows_no_part_of_a_short_key_or_of_a_hash(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let weak = "Summer2024!";
        let short = old_key(0);
        let entries = [by_hash(hex_of(&sha256(weak))), import_entry(&short)];
        for (plain_key, entry) in [weak, &short].into_iter().zip(entries) {
            let id = imported(root, entry).await;
            let key = get(root, &id).await;
            let expected = demo.service.test_store.digest_hint(plain_key);
            assert_eq!(key.hint, expected);
            assert_eq!(key.secrets[0].hint, expected);
            let request = pb::ListEventsRequest { key_id: id, ..Default::default() };
            let events = root.keys.list_events(request).await.unwrap().into_inner().events;
            assert_eq!(events[0].detail["hint"], expected);
            let digits = &hex_of(&sha256(plain_key))[..8];
            assert!(!format!("{key:?} {events:?}").contains(digits));
        }
        demo.service.stop().await;
    }

    /// Seen red with keys looked for by realm only where they are imported, and not where they are verified.
    async fn a_text_is_one_key_in_one_realm(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        root.put_realm(pb::Realm {
            id: "other".to_owned(),
            prefix: "other".to_owned(),
            ..demo_realm()
        })
        .await;
        let partner = pb::Partner {
            realm: "other".to_owned(),
            id: "acme".to_owned(),
            ..Default::default()
        };
        let request = pb::PutPartnerRequest {
            partner: Some(partner),
            ..Default::default()
        };
        root.realms.put_partner(request).await.unwrap();
        let id = imported(root, import_entry(PEAKA)).await;
        for realm in ["demo", "other"] {
            for again in [import_entry(PEAKA), by_hash(hex_of(&sha256(PEAKA)))] {
                let refusal = import_into(root, realm, vec![again]).await.remove(0).unwrap_err();
                let told = (refusal.code, refusal.reason.as_str());
                assert_eq!(told, (Code::AlreadyExists, "ALREADY_IMPORTED"), "into {realm}");
                assert_eq!(refusal.metadata.get("key_id"), Some(&id), "the operator may know");
            }
        }
        // A manager of the other realm learns that it is taken, and no more.
        let manager = issue(root, authority_key_request("manage", "other"))
        .await;
        let mut manager = demo.service.api_as(&manager.plain_key);
        let refusal = import_into(&mut manager, "other", vec![import_entry(PEAKA)]).await.remove(0).unwrap_err();
        assert_eq!(refusal.reason, "ALREADY_IMPORTED");
        assert!(!refusal.metadata.values().any(|value| *value == id), "{refusal:?}");

        let elsewhere = pb::VerifyRequest {
            realm: "other".to_owned(),
            ..verify_request(PEAKA)
        };
        let answer = root.verify.verify(elsewhere).await.unwrap().into_inner();
        assert_eq!((answer.verdict(), answer.key), (Verdict::Unknown, None));
        assert_eq!(root.verdict(PEAKA).await, Verdict::Allowed);
        assert_eq!(list_in_states(root, "demo", &[]).await, [id]);
        assert!(list_in_states(root, "other", &[]).await.is_empty());
        demo.service.stop().await;
    }

    /// Seen red with the key forgotten at the revocation or the rotation, and with it kept at the deletion.
    async fn a_text_is_free_again_when_its_key_is_deleted_unless_it_was_revoked(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let first = imported(root, import_entry(PEAKA)).await;
        rotate(root, &first, 0).await.unwrap();
        assert_eq!(root.verdict(PEAKA).await, Verdict::Unknown);
        assert_eq!(not_imported(root, import_entry(PEAKA)).await.reason, "ALREADY_IMPORTED");
        root.delete(&first).await.unwrap();
        assert_eq!(root.verdict(PEAKA).await, Verdict::Unknown);

        let second = imported(root, import_entry(PEAKA)).await;
        assert_ne!(first, second, "an id is not used again");
        let answer = root.ask(PEAKA).await;
        assert_eq!(answer.verdict(), Verdict::Allowed);
        assert_eq!(answer.key.unwrap().id, second);
        let mut demo = demo.restarted().await;
        assert_eq!(demo.root.verdict(PEAKA).await, Verdict::Allowed);

        // Whoever sends the list again does not bring back what was revoked.
        let root = &mut demo.root;
        let state = |refusal: Refusal| refusal.metadata.get("state").cloned();
        assert_eq!(state(not_imported(root, import_entry(PEAKA)).await), None);
        root.revoke(&second).await.unwrap();
        let refusal = not_imported(root, import_entry(PEAKA)).await;
        assert_eq!(refusal.reason, "ALREADY_IMPORTED");
        assert_eq!(state(refusal).as_deref(), Some("KEY_STATE_REVOKED"));
        root.delete(&second).await.unwrap();
        assert_eq!(not_imported(root, import_entry(PEAKA)).await.reason, "ALREADY_IMPORTED");
        assert_eq!(root.verdict(PEAKA).await, Verdict::Unknown);
        demo.service.stop().await;
    }

    /// An imported key is found by its digest at every moment, also while it is changed. Seen red with the digest taken out and
    /// put back at each change.
    async fn an_imported_key_is_good_while_it_is_changed(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let id = imported(root, import_entry(PEAKA)).await;
        let mirror = std::sync::Arc::clone(&demo.service.mirror);
        let peppers = claviger::hashing::Peppers::load(&demo.service.test_store.pepper()).unwrap().unwrap();
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stops = std::sync::Arc::clone(&stop);
        let presenting = std::thread::spawn(move || {
            let (mut asked, mut denied) = (0_u64, 0_u64);
            while !stops.load(std::sync::atomic::Ordering::Relaxed) {
                let index = mirror.index();
                let view = index.view();
                let proof = claviger::verify::prove(PEAKA, &view, &peppers).unwrap();
                denied += u64::from(!matches!(proof, claviger::verify::Proof::Key(..)));
                asked += 1;
            }
            (asked, denied)
        });
        for change in 0..200 {
            let request = pb::UpdateKeyRequest {
                key_id: id.clone(),
                update_mask: Some(prost_types::FieldMask { paths: strings(&["name"]) }),
                name: format!("name {change}"),
                ..Default::default()
            };
            root.keys.update_key(request).await.unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (asked, denied) = presenting.join().unwrap();
        println!("{asked} questions, {denied} denied");
        assert!(asked > 1_000);
        assert_eq!(denied, 0, "of {asked}");
        demo.service.stop().await;
    }

    /// Seen red with the old digest looked up by the key's id like one of a secret made here.
    async fn an_imported_key_is_rotated_to_a_text_of_clavigers_own(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let id = imported(root, import_entry(PEAKA)).await;
        let rotated = rotate(root, &id, 60).await.unwrap();
        let (new, key) = (rotated.plain_key, rotated.key.unwrap());
        let own = claviger::domain::key_text::parse(&new);
        assert!(own.is_ok() && new.starts_with("demo_live_"), "the new key is of the contract's form");
        let [old, newest] = key.secrets.as_slice() else {
            panic!("{} secrets", key.secrets.len());
        };
        assert!(old.imported && !newest.imported);
        let end = parse_time(old.expire_time.as_ref().unwrap());
        let same = root.ask(PEAKA).await.key;
        assert_eq!(same.as_ref().unwrap().id, id);
        for (moment, verdict) in [(end.as_micros() - 1, Verdict::Allowed), (end.as_micros(), Verdict::Expired)] {
            demo.clock.set(claviger::domain::time::Timestamp::from_micros(moment));
            for (plain_key, verdict) in [(PEAKA, verdict), (new.as_str(), Verdict::Allowed)] {
                let answer = root.ask(plain_key).await;
                assert_eq!(answer.verdict(), verdict);
                assert_eq!(answer.key, same, "both are secrets of one key");
            }
        }

        // Ended early, either way.
        let mut ended = Vec::new();
        for (n, keep, expected) in [
            (1, KeepSecret::New, [Verdict::Unknown, Verdict::Allowed]),
            (2, KeepSecret::Old, [Verdict::Allowed, Verdict::Unknown]),
        ] {
            let plain_key = old_key(n);
            let id = imported(root, import_entry(&plain_key)).await;
            let new = rotate(root, &id, 60).await.unwrap().plain_key;
            end_rotation(root, &id, keep).await.unwrap();
            assert_eq!([root.verdict(&plain_key).await, root.verdict(&new).await], expected);
            ended.push((plain_key, new, expected));
        }
        let mut demo = demo.restarted().await;
        let root = &mut demo.root;
        for (plain_key, new, expected) in ended {
            let found = [root.verdict(&plain_key).await, root.verdict(&new).await];
            assert_eq!(found, expected, "after a restart");
        }
        demo.service.stop().await;
    }

    /// Seen red with a key's form checked before it is looked up among those that were imported.
    async fn an_imported_text_may_look_like_one_of_clavigers_own(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        // As another authority with the same words would have issued it.
        let foreign = PlainKey::new(
            &Prefix::parse("demo").unwrap(),
            &Tag::parse("live").unwrap(),
            KeyId::parse("0192f0c1-2345-7abc-8def-0123456789ab").unwrap(),
            &SecretBytes::new([7; 32]),
        );
        let plain_keys = [
            "demo_live_s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU",
            "demo_s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU",
            "claviger_main_s3fzXw8Rk2VbN5yLm9Qp4TdHj7CgE1aU",
            foreign.expose(),
        ];
        for plain_key in plain_keys {
            let before = root.verdict(plain_key).await;
            assert!(matches!(before, Verdict::Malformed | Verdict::Unknown), "{before:?}");
            let id = imported(root, import_entry(plain_key)).await;
            let answer = root.ask(plain_key).await;
            assert_eq!(answer.verdict(), Verdict::Allowed);
            assert_eq!(answer.key.unwrap().id, id);
        }
        // A typing error in one of claviger's own stays one.
        let own = root.issue().await.plain_key;
        assert_eq!(root.verdict(&own[..own.len() - 1]).await, Verdict::Malformed);
        demo.service.stop().await;
    }

    /// Seen red with a transaction for each entry, and with a bad entry that fails the call.
    async fn a_bad_entry_hurts_only_itself(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let unlike = |change: fn(&mut pb::ImportEntry), n: usize| {
            let mut entry = import_entry(&old_key(n));
            change(&mut entry);
            entry
        };
        let of_three = |entry: &mut pb::ImportEntry| {
            entry.level = 0;
            "three".clone_into(&mut entry.project);
        };
        let with_host_bits = |entry: &mut pb::ImportEntry| entry.allowed_cidrs = strings(&["10.0.0.1/8"]);
        let long = "s3fzXw8Rk2VbN5yL".repeat(32);
        let bad: Vec<(&str, pb::ImportEntry, Code, &str)> = vec![
            ("21 characters", import_entry(&PEAKA[..21]), Code::InvalidArgument, "plain_key"),
            ("513 characters", import_entry(&format!("{long}0")), Code::InvalidArgument, "plain_key"),
            ("nothing", import_entry(""), Code::InvalidArgument, "plain_key"),
            ("a space", import_entry("s3fzXw8Rk2VbN5 yLm9Qp4TdHj7C"), Code::InvalidArgument, "plain_key"),
            ("a comma", import_entry("s3fzXw8Rk2VbN5,yLm9Qp4TdHj7C"), Code::InvalidArgument, "plain_key"),
            ("a colon", import_entry("s3fzXw8Rk2VbN5:yLm9Qp4TdHj7C"), Code::InvalidArgument, "plain_key"),
            ("beyond ASCII", import_entry("s3fzXw8Rk2VbN5éyLm9Qp4TdHj7C"), Code::InvalidArgument, "plain_key"),
            ("a sign of the end amidst", import_entry("s3fzXw8Rk2VbN5=yLm9Qp4TdHj7C"), Code::InvalidArgument, "plain_key"),
            ("one character only", import_entry(&"a".repeat(40)), Code::InvalidArgument, "plain_key"),
            ("two characters only", import_entry(&"ab".repeat(20)), Code::InvalidArgument, "plain_key"),
            ("63 digits", by_hash(hex_of(&sha256("a"))[1..].to_owned()), Code::InvalidArgument, "sha256"),
            ("what is no digit", by_hash("g".repeat(64)), Code::InvalidArgument, "sha256"),
            ("31 bytes of base64", by_hash(BASE64_STANDARD.encode([7; 31])), Code::InvalidArgument, "sha256"),
            ("an empty hash", by_hash(String::new()), Code::InvalidArgument, "sha256"),
            ("no secret", unlike(|entry| entry.secret = None, 50), Code::InvalidArgument, ""),
            ("no partner", unlike(|entry| entry.partner.clear(), 51), Code::InvalidArgument, "partner"),
            ("an unknown partner", unlike(|entry| "nobody".clone_into(&mut entry.partner), 52), Code::NotFound, ""),
            ("another partner's project", unlike(of_three, 53), Code::NotFound, ""),
            ("no environment", unlike(|entry| entry.environment.clear(), 54), Code::InvalidArgument, "environment"),
            ("an unknown scope", unlike(|entry| entry.scopes = strings(&["ghost"]), 55), Code::InvalidArgument, "scopes"),
            ("host bits", unlike(with_host_bits, 56), Code::InvalidArgument, "allowed_cidrs"),
            ("a past end", unlike(|entry| entry.expire_time = time(-SECOND), 57), Code::InvalidArgument, "expire_time"),
            ("a control character", unlike(|entry| "a\nb".clone_into(&mut entry.name), 58), Code::InvalidArgument, "name"),
        ];
        let by_sha256 = by_hash(hex_of(&sha256(PEAKA)));
        let good = [import_entry(&long), import_entry(&old_key(0)), import_entry("s3fzXw8Rk2VbN5yLm9Qp=="), by_sha256];
        // The bad ones stand between the good ones, and at the end a good one once more.
        let (head, tail) = good.split_at(2);
        let mut entries = head.to_vec();
        entries.extend(bad.iter().map(|(_, entry, _, _)| entry.clone()));
        entries.extend_from_slice(tail);
        entries.push(import_entry(PEAKA));
        let is_good = |entry: &pb::ImportEntry| good.contains(entry);
        let expected: Vec<_> = entries.iter().map(is_good).collect();

        let request = |dry_run| pb::ImportKeysRequest {
            realm: "demo".to_owned(),
            entries: entries.clone(),
            dry_run,
            ..Default::default()
        };
        let looked = root.keys.import_keys(request(true)).await.unwrap().into_inner();
        assert_eq!(looked.effective_everywhere_time, None);
        assert!(list_in_states(root, "demo", &[]).await.is_empty(), "it only looked");
        let looked: Vec<_> = looked.results.into_iter().map(import_outcome).collect();
        let done = root.keys.import_keys(request(false)).await.unwrap().into_inner();
        let done: Vec<_> = done.results.into_iter().map(import_outcome).collect();
        for (i, is_good) in expected.iter().enumerate() {
            assert_eq!(looked[i].is_ok(), *is_good, "entry {i} in the look: {:?}", looked[i]);
            assert_eq!(done[i].is_ok(), *is_good, "entry {i}: {:?}", done[i]);
            if let Ok(id) = &looked[i] {
                assert!(id.is_empty(), "there is no key yet");
            }
            let Some((what, _, code, field)) = bad.iter().find(|(_, bad, _, _)| *bad == entries[i]) else {
                continue;
            };
            for outcome in [&looked[i], &done[i]] {
                let refusal = outcome.as_ref().unwrap_err();
                assert_eq!(refusal.code, *code, "{what}: {refusal:?}");
                assert!(field.is_empty() || refusal.names_field(field), "{what}: {refusal:?}");
            }
        }
        // The last one is the hash of before, by its key.
        let last = done.last().unwrap().as_ref().unwrap_err();
        assert_eq!((last.code, last.reason.as_str()), (Code::AlreadyExists, "ALREADY_IMPORTED"));

        let mut ids: Vec<_> = done.into_iter().flatten().collect();
        for plain_key in [long.as_str(), &old_key(0), "s3fzXw8Rk2VbN5yLm9Qp==", PEAKA] {
            assert_eq!(root.verdict(plain_key).await, Verdict::Allowed);
        }
        for n in 50..60 {
            assert_eq!(root.verdict(&old_key(n)).await, Verdict::Unknown);
        }
        for id in &ids {
            assert_eq!(events_of(root, id).await, ["key.imported"]);
            assert_eq!(get(root, id).await.state(), KeyState::Active);
        }
        let mut found = list_in_states(root, "demo", &[]).await;
        found.sort();
        ids.sort();
        assert_eq!(found, ids, "there are these and no others");

        // Sent again after a break, nothing is done twice.
        let again = import(root, entries.clone()).await;
        assert!(again.iter().all(Result::is_err));
        assert_eq!(list_in_states(root, "demo", &[]).await.len(), good.len());
        demo.service.stop().await;
    }

    async fn an_imported_key_is_all_that_its_entry_says(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let entry = pb::ImportEntry {
            project: "one".to_owned(),
            level: 0,
            name: "told".to_owned(),
            scopes: strings(&["read"]),
            labels: [("from".to_owned(), "before".to_owned())].into(),
            allowed_cidrs: strings(&["10.0.0.0/8"]),
            expire_time: time(60 * SECOND),
            ..import_entry(PEAKA)
        };
        let id = imported(root, entry).await;
        let question = |environment: &str| pb::VerifyRequest {
            environment: environment.to_owned(),
            target: Some(Target::OwnProject(true)),
            scopes: strings(&["read"]),
            client_ip: "10.1.1.1".to_owned(),
            ..verify_request(PEAKA)
        };
        let answer = root.verify.verify(question("production")).await.unwrap().into_inner();
        assert_eq!(answer.verdict(), Verdict::Allowed);
        let key = answer.key.unwrap();
        assert_eq!((key.id, key.project.as_str(), key.name.as_str()), (id.clone(), "one", "told"));
        assert_eq!(key.labels, [("from".to_owned(), "before".to_owned())].into());
        assert_eq!(root.verdict(PEAKA).await, Verdict::ProjectMismatch);
        let other = root.verify.verify(question("staging")).await.unwrap().into_inner();
        assert_eq!(other.verdict(), Verdict::EnvironmentMismatch);
        demo.clock.set(after(60 * SECOND));
        let late = root.verify.verify(question("production")).await.unwrap().into_inner();
        assert_eq!(late.verdict(), Verdict::Expired);
        demo.service.stop().await;
    }

    async fn what_cannot_be_an_import_is_refused_whole(engine: Engine) {
        let mut demo = DemoService::on(engine).await;
        let root = &mut demo.root;
        let request = |realm: &str, entries: usize| pb::ImportKeysRequest {
            realm: realm.to_owned(),
            entries: vec![import_entry(PEAKA); entries],
            ..Default::default()
        };
        refused_field(root.keys.import_keys(request("demo", 1_001)).await, "entries");
        let unknown = root.keys.import_keys(request("nothing", 1)).await;
        assert_eq!(refused(unknown).code, Code::NotFound);
        // Those who run the API are not taken over from elsewhere.
        if let Ok(answer) = root.keys.import_keys(request("claviger", 1)).await {
            let result = answer.into_inner().results.remove(0);
            assert!(import_outcome(result).is_err());
        }
        assert_eq!(root.verdict(PEAKA).await, Verdict::Unknown);

        let gateway = issue(root, authority_key_request("verify", "demo"))
        .await;
        let mut gateway = demo.service.api_as(&gateway.plain_key);
        let refusal = refused(gateway.keys.import_keys(request("demo", 1)).await);
        assert_eq!(refusal.code, Code::PermissionDenied);
        let plain = issue(root, issue_request()).await;
        let mut plain = demo.service.api_as(&plain.plain_key);
        assert!(plain.keys.import_keys(request("demo", 1)).await.is_err());
        assert_eq!(root.verdict(PEAKA).await, Verdict::Unknown);
        demo.service.stop().await;
    }
}
