"""What the holder of a key does with it: reads it, and rotates it."""

import time
import uuid

import keytext
from checks import case, check
from fixture import CLOCK_TOLERANCE_SECONDS, Code, Fixture, from_now, seconds
from wire import must, same

HOUR = 3600

# Which fields the holder does not learn. Of the labels, those of the operator.
HIDDEN = {"external_id", "created_by", "revoke_reason"}


def rotating_realm(fixture: Fixture) -> str:
    realm = fixture.new_realm_message() | {"self_rotation": True}
    put = fixture.operator.call("PutRealm", realm=realm).realm
    must(put.self_rotation, "the realm does not let keys rotate themselves")
    must(fixture.operator.call("GetRealm", realm_id=put.id).realm.self_rotation, "self_rotation was not kept")
    fixture.operator.call("PutPartner", partner={"realm": put.id, "id": "acme"})
    return put.id


def remove(fixture: Fixture, realm: str):
    for key in fixture.operator.every_page("ListKeys", "keys", realm=realm):
        fixture.operator.call("DeleteKey", key_id=key.id)
    fixture.operator.call("DeleteRealm", realm_id=realm)


@check
def whoever_holds_a_key_learns_what_it_is(fixture: Fixture):
    issued = fixture.issue(project="beta", scopes=["read"], labels={"a": "b", "operator/plan": "gold"},
                           external_id=str(uuid.uuid4()), expire_time=from_now(600), allowed_cidrs=["127.0.0.0/8", "::1/128"])
    holder = fixture.operator.with_key(issued.plain_key)
    answer = holder.call("GetSelf")
    key = fixture.operator.call("GetKey", key_id=issued.id).key
    must(answer.revision >= key.revision, "the revision")
    told = {field.name for field, _ in answer.key.ListFields()}
    whole = {field.name for field, _ in key.ListFields()}
    must(HIDDEN & whole >= {"external_id", "created_by"}, "the key has nothing to hide")
    same(told | {"last_used_time"}, whole - HIDDEN | {"last_used_time"}, "what is told")
    same(dict(answer.key.labels), {"a": "b"}, "the labels")
    for field in told - {"labels", "secrets", "last_used_time"}:
        must(getattr(answer.key, field) == getattr(key, field), f"{field} is told otherwise")
    holder.refused("GetKey", Code.PERMISSION_DENIED, key_id=issued.id)
    for caller in (fixture.operator, fixture.operator.with_key(fixture.key_of_the_authority("verify").plain_key)):
        same(caller.call("GetSelf").key.realm, "claviger", "the realm of a caller of the authority's own realm")
    same(fixture.operator.call("GetSelf").key.id, fixture.operator_id, "the operator's own key")
    fixture.operator.call("DisableKey", key_id=issued.id)
    holder.refused("GetSelf", Code.UNAUTHENTICATED)
    elsewhere = fixture.issue(allowed_cidrs=["192.0.2.0/24"])
    fixture.operator.with_key(elsewhere.plain_key).refused("GetSelf", Code.PERMISSION_DENIED)
    forged = fixture.operator.with_key(keytext.with_another_secret(issued.plain_key))
    forged.refused("GetSelf", Code.UNAUTHENTICATED)


@check
def a_key_rotates_itself_if_its_realm_lets_it(fixture: Fixture):
    realm = rotating_realm(fixture)
    issued = fixture.issue_exactly(realm=realm, partner="acme", level="KEY_LEVEL_PARTNER", environment="production",
                                   scopes=["read"])
    old = fixture.operator.with_key(issued.plain_key)
    for what, overlap in (
        ("none", None),
        ("a second less than an hour", {"seconds": HOUR - 1}),
        ("a second more than 366 days", {"seconds": 366 * 24 * HOUR + 1}),
        ("a negative one", {"seconds": -1}),
    ):
        with case(f"refused as the overlap of a self-rotation: {what}"):
            old.refused_field("overlap", "RotateSelf", overlap=overlap)
    request = {"overlap": {"seconds": HOUR}, "request_id": str(uuid.uuid4())}
    first = old.call("RotateSelf", **request)
    must(first.plain_key != issued.plain_key and not first.replayed, "the first answer")
    same((first.key.id, list(first.key.scopes)), (issued.id, ["read"]), "the key")
    end = seconds(first.key.secrets[0].expire_time)
    must(abs(end - time.time() - HOUR) < CLOCK_TOLERANCE_SECONDS, "the overlap")
    must(not first.key.created_by, "the holder learns who issued the key")
    new = fixture.operator.with_key(first.plain_key)
    for caller in (old, new):
        again = caller.call("RotateSelf", **request)
        same((again.replayed, again.plain_key, again.revision), (True, "", first.revision), "the second answer")
        caller.refused_field("request_id", "RotateSelf", **request | {"overlap": {"seconds": HOUR + 1}})
    refusal = old.refused("RotateSelf", Code.FAILED_PRECONDITION, overlap={"seconds": HOUR})
    same(refusal.reason, "OLD_SECRET", "the reason")
    event = fixture.operator.call("ListEvents", key_id=issued.id, page_size=1).events[0]
    same((event.kind, event.actor, event.revision), ("key.rotated", issued.id, first.revision), "the event")
    # Within the overlap the newest secret is replaced, and the oldest one goes on.
    newest = new.call("RotateSelf", overlap={"seconds": 2 * HOUR})
    new.refused("GetSelf", Code.UNAUTHENTICATED)
    for plain_key in (issued.plain_key, newest.plain_key):
        same(fixture.operator.with_key(plain_key).call("GetSelf").key.id, issued.id, "the key")
    remove(fixture, realm)


@check
def a_key_does_not_rotate_itself_otherwise(fixture: Fixture):
    overlap = {"overlap": {"seconds": HOUR}}
    issued = fixture.issue()
    fixture.operator.with_key(issued.plain_key).refused("RotateSelf", Code.PERMISSION_DENIED, **overlap)
    fixture.expect("VERDICT_ALLOWED", issued)
    must(fixture.operator.call("GetRealm", realm_id="claviger").realm.self_rotation, "the realm of the authority")
    for scope in ("verify", "read"):
        with case(f"a key with {scope} rotates itself"):
            key = fixture.key_of_the_authority(scope)
            answer = fixture.operator.with_key(key.plain_key).call("RotateSelf", **overlap)
            same(fixture.operator.with_key(answer.plain_key).call("GetSelf").key.id, key.id, "the key")
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage").plain_key)
    for caller in (manager, fixture.operator):
        caller.refused("RotateSelf", Code.PERMISSION_DENIED, **overlap)


@check
def a_reader_reads_and_changes_nothing(fixture: Fixture):
    issued = fixture.issue()
    reader = fixture.operator.with_key(fixture.key_of_the_authority("read").plain_key)
    auditor = fixture.issue_exactly(realm="claviger", scopes=["read"], name="python auditor")
    auditor = fixture.operator.with_key(auditor.plain_key)
    foreign = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme")
    for caller in (reader, auditor):
        same(caller.call("GetKey", key_id=issued.id).key.id, issued.id, "the key")
        same(caller.call("FindKey", plain_key=issued.plain_key).keys[0].id, issued.id, "the found key")
        caller.call("GetKeyScopes", key_id=issued.id)
        caller.call("GetKeyUsage", key_id=issued.id)
        must(caller.call("ListKeys", realm=fixture.realm).keys, "no keys")
        must(caller.call("ListEvents", realm=fixture.realm).events, "no events")
        same(caller.call("GetRealm", realm_id=fixture.realm).realm.id, fixture.realm, "the realm")
        caller.call("GetPartner", realm=fixture.realm, partner="acme")
        must(caller.call("ListPartners", realm=fixture.realm).partners, "no partners")
        caller.call("ListProjects", realm=fixture.realm)
        for method, fields in (
            ("IssueKey", fixture.key_request()),
            ("UpdateKey", {"key_id": issued.id, "update_mask": {"paths": ["name"]}, "name": "read"}),
            ("DisableKey", {"key_id": issued.id}),
            ("RotateKey", {"key_id": issued.id}),
            ("RevokeKey", {"key_id": issued.id}),
            ("RevokeKeys", {"filter": {"realm": fixture.realm}, "dry_run": True}),
            ("DeleteKey", {"key_id": issued.id}),
            ("PutRealm", {"realm": fixture.realm_message()}),
            ("PutPartner", {"partner": {"realm": fixture.realm, "id": "intruder"}}),
            ("DeletePartner", {"realm": fixture.realm, "partner": "acme"}),
            ("PutProject", {"project": {"realm": fixture.realm, "id": "intruder", "partner": "acme"}}),
            ("Verify", fixture.question(issued.plain_key)),
        ):
            with case(f"a reader may not {method}"):
                caller.refused(method, Code.PERMISSION_DENIED, **fields)
    same({realm.id for realm in reader.every_page("ListRealms", "realms")}, {fixture.realm}, "the reader's realms")
    must({"claviger", fixture.realm, fixture.plain_realm}
         <= {realm.id for realm in auditor.every_page("ListRealms", "realms")}, "the auditor's realms")
    reader.refused("GetKey", Code.NOT_FOUND, key_id=foreign.id)
    reader.refused("ListReplicas", Code.PERMISSION_DENIED)
    same(auditor.call("GetKey", key_id=foreign.id).key.id, foreign.id, "a key of another realm")
    auditor.call("ListReplicas")
    must(auditor.call("ListEvents").events, "no events of all realms")
    fixture.expect("VERDICT_ALLOWED", issued)
    # Who reads every realm holds nothing else.
    fixture.operator.refused_field("partner", "IssueKey", realm="claviger", scopes=["read", "verify"])
