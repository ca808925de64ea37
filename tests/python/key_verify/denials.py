"""Each denial."""

import ipaddress
import time
import uuid

import keytext
from checks import case, check
from fixture import PROVEN_NOTHING, Code, Fixture, from_now, seconds, until, without_use
from wire import must, same


@check
def what_cannot_be_a_key_is_malformed(fixture: Fixture):
    issued = fixture.issue()
    text = issued.plain_key
    prefix, tag, _ = text.split("_")
    wide_id = "z" * keytext.ID_WIDTH + "0" * keytext.SECRET_WIDTH
    wide_secret = "0" * keytext.ID_WIDTH + "z" * keytext.SECRET_WIDTH
    for what, bad in (
        ("nothing at all", ""),
        ("513 bytes", "x" * 513),
        ("60,000 bytes", "x" * 60_000),
        ("a letter beyond ASCII", "ключ"),
        ("a NUL", "abc\0def"),
        ("a line break", "abc\n"),
        ("a DEL", "abc\x7f"),
        ("a space", "abc def"),
        ("a comma", "abc,def"),
        ("a key and a space", text + " "),
        ("a key after a space", " " + text),
        ("a key and a line break", text + "\n"),
        ("two keys with a comma", f"{text},{text}"),
        ("a key with its last character missing", text[:-1]),
        ("a key with one character more", text + "0"),
        ("a prefix and nothing else", f"{prefix}_"),
        ("a prefix and a tag and nothing else", f"{prefix}_{tag}_"),
        ("a key with a character changed in its id", keytext.with_one_character_changed(text, -70)),
        ("a key with a character changed in its secret", keytext.with_one_character_changed(text, -30)),
        ("a key with a character changed in its checksum", keytext.with_one_character_changed(text, -1)),
        ("an id beyond 128 bits", keytext.with_checksum(f"{prefix}_{tag}_{wide_id}")),
        ("a secret beyond 256 bits", keytext.with_checksum(f"{prefix}_{tag}_{wide_secret}")),
        ("another realm's prefix with a wrong body", f"{fixture.plain_prefix}_m_" + "0" * 71),
    ):
        with case(f"malformed: {what}"):
            fixture.expect("VERDICT_MALFORMED", bad, any_target=True)


@check
def any_one_wrong_character_of_a_key_is_malformed(fixture: Fixture):
    text = fixture.issue().plain_key
    wrong = [keytext.with_one_character_changed(text, position) for position in range(-71, 0)]
    batch = fixture.operator.call("VerifyBatch", requests=[fixture.question(bad, any_target=True) for bad in wrong])
    for result in batch.results:
        same(fixture.verdict(result.response), "VERDICT_MALFORMED", "the verdict on a typing error")


@check
def who_proves_nothing_is_unknown(fixture: Fixture):
    issued = fixture.issue()
    stranger = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme")
    for what, text in (
        ("a foreign text", "sk_foreign_0123456789abcdef"),
        ("a foreign text of 512 bytes", "~" * 512),
        ("one character", "x"),
        ("a wrong secret with a good checksum", keytext.with_another_secret(issued.plain_key)),
        ("an id that never was with a good checksum", keytext.with_another_id(issued.plain_key, uuid.uuid4())),
        ("another realm's key", stranger.plain_key),
        ("a key of this authority's operator", fixture.operator_text),
    ):
        with case(f"unknown: {what}"):
            fixture.expect("VERDICT_UNKNOWN", text, any_target=True)
    fixture.expect("VERDICT_UNKNOWN", issued, realm=fixture.plain_realm, environment="")
    fixture.expect("VERDICT_ALLOWED", issued)


@check
def a_wrong_secret_is_not_told_apart_from_no_such_key(fixture: Fixture):
    issued = fixture.issue()
    revoked = fixture.issue()
    fixture.operator.call("RevokeKey", key_id=revoked.id)
    answers = [
        fixture.expect("VERDICT_UNKNOWN", text)
        for text in (
            keytext.with_another_secret(issued.plain_key),
            keytext.with_another_secret(revoked.plain_key),
            keytext.with_another_id(issued.plain_key, uuid.uuid4()),
        )
    ]
    same(len({seconds(answer.cache_for) for answer in answers}), 1, "the number of different spans to keep the answer")


@check
def a_key_under_another_heading_is_not_that_key(fixture: Fixture):
    issued = fixture.issue()
    for prefix, tag in ((fixture.prefix, "test"), (fixture.plain_prefix, "m"), (fixture.prefix, "nosuch")):
        text = keytext.under_another_heading(issued.plain_key, prefix, tag)
        for environment in ("production", "staging"):
            answer = fixture.verify(text, environment=environment, any_target=True)
            # One canonical text per key: whether the other is malformed or unknown is left open.
            must(fixture.verdict(answer) in PROVEN_NOTHING, "a second text of the same key was taken")
            fixture.holds_of_every_answer(answer)


@check
def a_key_lives_through_disable_enable_revoke_and_delete(fixture: Fixture):
    issued = fixture.issue(name="a whole life")
    kinds = ["key.issued"]
    revisions = [fixture.operator.revision]

    def change(method: str, kind: str, state: str, **fields):
        response = fixture.operator.call(method, key_id=issued.id, **fields)
        must(response.revision > revisions[-1], f"{method} does not raise the revision")
        kinds.append(kind)
        revisions.append(response.revision)
        same((response.key.id, fixture.state_of(response.key)), (issued.id, state), f"the key after {method}")
        return response

    def repeat(method: str, **fields):
        before = fixture.operator.call("GetKey", key_id=issued.id).key
        response = fixture.operator.call(method, key_id=issued.id, **fields)
        must(without_use(response.key) == without_use(before), f"{method} again changed something")

    fixture.expect("VERDICT_ALLOWED", issued)
    change("DisableKey", "key.disabled", "KEY_STATE_DISABLED")
    fixture.expect("VERDICT_DISABLED", issued)
    repeat("DisableKey")
    change("EnableKey", "key.enabled", "KEY_STATE_ACTIVE")
    fixture.expect("VERDICT_ALLOWED", issued)
    repeat("EnableKey")

    revoked = change("RevokeKey", "key.revoked", "KEY_STATE_REVOKED", reason="lost ☂", wait="WAIT_EVERYWHERE").key
    same(revoked.revoke_reason, "lost ☂", "the reason")
    must(abs(time.time() - seconds(revoked.revoke_time)) < 60, "revoked another day")
    fixture.expect("VERDICT_REVOKED", issued)
    repeat("RevokeKey", reason="another reason")
    same(fixture.operator.call("GetKey", key_id=issued.id).key.revoke_reason, "lost ☂", "the first reason")
    for method in ("DisableKey", "EnableKey"):
        fixture.operator.refused(method, Code.FAILED_PRECONDITION, key_id=issued.id)
    fixture.expect("VERDICT_REVOKED", issued)

    change("DeleteKey", "key.deleted", "KEY_STATE_REVOKED")
    answer = fixture.expect("VERDICT_UNKNOWN", issued)
    must(not answer.HasField("key"), "a deleted key is told of")
    for method in ("GetKey", "GetKeyScopes", "DeleteKey", "EnableKey", "DisableKey", "RevokeKey"):
        fixture.operator.refused(method, Code.NOT_FOUND, key_id=issued.id)

    # The audit trail has it all, and nothing of what was only repeated.
    events = fixture.operator.every_page("ListEvents", "events", realm=fixture.realm, key_id=issued.id, page_size=2)
    same([event.kind for event in reversed(events)], kinds, "the life in the audit trail")
    same([event.revision for event in reversed(events)], revisions, "the revisions in the audit trail")
    for event in events:
        same((event.actor, event.realm, event.partner, event.key_id),
             (fixture.operator_id, fixture.realm, "acme", issued.id), f"who did {event.kind} to what")
        must(event.peer, f"{event.kind} came from nowhere")
        must(abs(time.time() - seconds(event.time)) < 60, f"{event.kind} was done another day")
    reasons = [event for event in events if event.kind == "key.revoked"]
    must("lost ☂" in reasons[0].detail.values(), "the reason is not in the audit trail")


@check
def an_active_key_can_be_deleted_at_once(fixture: Fixture):
    issued = fixture.issue()
    fixture.operator.call("DeleteKey", key_id=issued.id)
    fixture.expect("VERDICT_UNKNOWN", issued)


@check
def a_key_expires_at_its_time(fixture: Fixture):
    issued = fixture.issue(expire_time=from_now(1.2))
    end = seconds(issued.key.expire_time)

    def expired():
        asked = time.time()
        answer = fixture.verify(issued.plain_key)
        fixture.holds_of_every_answer(answer)
        same(answer.key.id, issued.id, "the proven key")
        if fixture.verdict(answer) == "VERDICT_EXPIRED":
            must(time.time() >= end - 0.01, "expired before its time")
            return answer
        same(fixture.verdict(answer), "VERDICT_ALLOWED", "the verdict before the end")
        must(asked <= end + 0.01, "allowed after its time")
        must(seconds(answer.cache_for) <= end - asked + 0.01, "cache_for goes beyond the expiry")
        return None

    until(expired, "the expiry of a key")
    got = fixture.operator.call("GetKey", key_id=issued.id).key
    same(fixture.state_of(got), "KEY_STATE_EXPIRED", "the state")
    listed = fixture.operator.every_page("ListKeys", "keys", realm=fixture.realm, states=["KEY_STATE_EXPIRED"])
    must(issued.id in [key.id for key in listed], "it is not listed as expired")
    active = fixture.operator.every_page("ListKeys", "keys", realm=fixture.realm, states=["KEY_STATE_ACTIVE"])
    must(issued.id not in [key.id for key in active], "it is still listed as active")

    # The order of decision: disabled before expired, revoked before both.
    fixture.operator.call("DisableKey", key_id=issued.id)
    fixture.expect("VERDICT_DISABLED", issued)
    fixture.operator.call("EnableKey", key_id=issued.id)
    fixture.expect("VERDICT_EXPIRED", issued)
    fixture.operator.call("RevokeKey", key_id=issued.id)
    fixture.expect("VERDICT_REVOKED", issued)


@check
def a_key_is_good_in_its_own_environment_only(fixture: Fixture):
    production, staging = fixture.issue(), fixture.issue(environment="staging")
    fixture.expect("VERDICT_ALLOWED", staging, environment="staging")
    fixture.expect("VERDICT_ENVIRONMENT_MISMATCH", production, environment="staging")
    fixture.expect("VERDICT_ENVIRONMENT_MISMATCH", staging, environment="production")


@check
def a_key_is_good_for_its_own_partner_only(fixture: Fixture):
    issued = fixture.issue()
    fixture.expect("VERDICT_ALLOWED", issued, partner="acme")
    for other in ("globex", "Acme", "nobody", "acme ", "acme\0", "партнёр", "x" * 1000):
        with case(f"a request in the name of {other[:12]!r} is denied"):
            fixture.expect("VERDICT_PARTNER_MISMATCH", issued, partner=other)


@check
def a_suspended_partner_has_no_access_until_it_is_let_in_again(fixture: Fixture):
    issued = fixture.issue(partner="sleepy", project="night")
    other = fixture.issue()
    partner = {"realm": fixture.realm, "id": "sleepy", "display_name": "Sleepy"}
    fixture.expect("VERDICT_ALLOWED", issued, project="night")
    fixture.operator.call("PutPartner", partner=partner | {"suspended": True})
    answer = fixture.expect("VERDICT_PARTNER_SUSPENDED", issued, project="night")
    same(answer.key.partner, "sleepy", "the partner of the proven key")
    fixture.expect("VERDICT_ALLOWED", other)
    # To put the partner without saying so does not let it in.
    fixture.operator.call("PutPartner", partner=partner)
    fixture.expect("VERDICT_PARTNER_SUSPENDED", issued, project="night")
    fixture.operator.call("PutPartner", partner=partner | {"suspended": False})
    fixture.expect("VERDICT_ALLOWED", issued, project="night")


@check
def a_key_reaches_its_own_targets_only(fixture: Fixture):
    keys = {"a partner key": fixture.issue(), "a project key": fixture.issue(project="mtKDhe1U")}
    allowed, denied = "VERDICT_ALLOWED", "VERDICT_PROJECT_MISMATCH"
    for target, fields, for_partner, for_project in (
        ("what is partner-wide", {}, allowed, denied),
        ("the key's project", {"project": "mtKDhe1U"}, allowed, allowed),
        ("another project of the partner", {"project": "beta"}, allowed, denied),
        ("another partner's project", {"project": "gamma"}, denied, denied),
        ("an unknown project", {"project": "nothing"}, denied, denied),
        ("a project in other case", {"project": "MTKDHE1U"}, denied, denied),
        ("a project without a name", {"project": ""}, denied, denied),
        ("a project beyond ASCII", {"project": "проект\0"}, denied, denied),
        ("a project of 1,000 bytes", {"project": "x" * 1000}, denied, denied),
        ("the key's own project", {"own_project": True}, denied, allowed),
        ("a target of either level", {"any_target": True}, allowed, allowed),
    ):
        for (who, issued), verdict in zip(keys.items(), (for_partner, for_project)):
            with case(f"{target} is {'open' if verdict == allowed else 'closed'} to {who}"):
                answer = fixture.expect(verdict, issued, **fields)
                same(answer.key.project, issued.key.project, "the project that the answer names")


@check
def a_key_is_good_from_its_own_addresses_only(fixture: Fixture):
    issued = fixture.issue(allowed_cidrs=["10.1.0.0/16", "2001:db8::/32"])
    for address, verdict in (
        ("10.1.0.0", "VERDICT_ALLOWED"),
        ("10.1.255.255", "VERDICT_ALLOWED"),
        ("::ffff:10.1.2.3", "VERDICT_ALLOWED"),
        ("::ffff:a01:203", "VERDICT_ALLOWED"),
        ("2001:db8::1", "VERDICT_ALLOWED"),
        ("2001:0DB8:0:0::1", "VERDICT_ALLOWED"),
        ("10.2.0.0", "VERDICT_ADDRESS_DENIED"),
        ("10.0.255.255", "VERDICT_ADDRESS_DENIED"),
        ("::ffff:10.2.0.1", "VERDICT_ADDRESS_DENIED"),
        ("2001:db9::1", "VERDICT_ADDRESS_DENIED"),
        ("", "VERDICT_ADDRESS_DENIED"),
    ):
        with case(f"from {address or 'an address that is not told'}: {verdict}"):
            fixture.expect(verdict, issued, client_ip=address)
    free = fixture.issue()
    fixture.expect("VERDICT_ALLOWED", free)
    fixture.expect("VERDICT_ALLOWED", free, client_ip="203.0.113.9")


@check
def a_range_of_mapped_addresses_is_stored_as_the_v4_range(fixture: Fixture):
    issued = fixture.issue(allowed_cidrs=["::ffff:192.0.2.0/120", "198.51.100.7/32"])
    stored = {ipaddress.ip_network(cidr) for cidr in issued.key.allowed_cidrs}
    same(stored, {ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("198.51.100.7/32")}, "the ranges")
    for address, verdict in (
        ("192.0.2.200", "VERDICT_ALLOWED"),
        ("::ffff:192.0.2.200", "VERDICT_ALLOWED"),
        ("198.51.100.7", "VERDICT_ALLOWED"),
        ("198.51.100.8", "VERDICT_ADDRESS_DENIED"),
    ):
        fixture.expect(verdict, issued, client_ip=address)


@check
def a_missing_scope_is_named(fixture: Fixture):
    reader = fixture.issue(scopes=["read"])
    nothing = fixture.issue()
    for who, issued, fields, missing in (
        ("a reader", reader, {"scopes": ["write"]}, {"write"}),
        ("a reader", reader, {"scopes": ["read", "admin"]}, {"admin"}),
        ("a reader", reader, {"scopes": ["admin", "write", "read"]}, {"admin", "write"}),
        ("a reader", reader, {"any_scopes": ["write", "admin"]}, {"admin", "write"}),
        ("a reader", reader, {"scopes": ["write"], "any_scopes": ["read"]}, {"write"}),
        ("a reader", reader, {"scopes": ["read"], "any_scopes": ["admin"]}, {"admin"}),
        ("who holds nothing", nothing, {"scopes": ["read"]}, {"read"}),
        ("who holds nothing", nothing, {"any_scopes": ["read"]}, {"read"}),
    ):
        with case(f"{who} asked for {fields} lacks {sorted(missing)}"):
            answer = fixture.expect("VERDICT_SCOPE_MISSING", issued, **fields)
            same(set(answer.missing_scopes), missing, f"the missing scopes with {fields}")
    fixture.expect("VERDICT_ALLOWED", reader, any_scopes=["admin", "read"])
    fixture.expect("VERDICT_ALLOWED", reader, scopes=["read"], any_scopes=["admin", "read"])
    fixture.expect("VERDICT_ALLOWED", nothing)


@check
def the_first_reason_in_the_order_of_decision_is_told(fixture: Fixture):
    issued = fixture.issue(partner="sleepy", project="night", scopes=["read"], allowed_cidrs=["10.0.0.0/8"])
    partner = {"realm": fixture.realm, "id": "sleepy"}
    # All of it is wrong; then one thing after the other is put right.
    wrong = {"environment": "staging", "partner": "acme", "project": "beta", "client_ip": "192.0.2.1"}
    wrong["scopes"] = ["admin"]
    fixture.operator.call("PutPartner", partner=partner | {"suspended": True})
    fixture.operator.call("DisableKey", key_id=issued.id)
    fixture.expect("VERDICT_DISABLED", issued, **wrong)
    fixture.operator.call("EnableKey", key_id=issued.id)
    fixture.expect("VERDICT_ENVIRONMENT_MISMATCH", issued, **wrong)
    wrong["environment"] = "production"
    fixture.expect("VERDICT_PARTNER_MISMATCH", issued, **wrong)
    wrong["partner"] = "sleepy"
    fixture.expect("VERDICT_PARTNER_SUSPENDED", issued, **wrong)
    fixture.operator.call("PutPartner", partner=partner | {"suspended": False})
    fixture.expect("VERDICT_PROJECT_MISMATCH", issued, **wrong)
    wrong["project"] = "night"
    fixture.expect("VERDICT_ADDRESS_DENIED", issued, **wrong)
    wrong["client_ip"] = "10.0.0.1"
    fixture.expect("VERDICT_SCOPE_MISSING", issued, **wrong)
    wrong["scopes"] = ["read"]
    fixture.expect("VERDICT_ALLOWED", issued, **wrong)
