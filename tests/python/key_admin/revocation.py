"""Revocations: of one key, of many at once, and by the holder."""

import contextlib
import time
import uuid

import grpc

import keytext
from calls import entry, import_keys, import_one, old_text, realm_of_its_own, refused_by_state, rotate, time_of
from checks import case, check
from fixture import Code, IssuedKey, Fixture, from_now, letters, seconds
from wire import Caller, must, same


def expect_each(fixture: Fixture, realm: str, ended: set[str], keys: dict[str, IssuedKey],
                caller: Caller | None = None):
    """That those are ended which are named, and no others: by verdict, by state and in the list."""
    states = {}
    for state in ("KEY_STATE_ACTIVE", "KEY_STATE_REVOKED"):
        for key in fixture.operator.every_page("ListKeys", "keys", realm=realm, states=[state]):
            states[key.id] = state
    for name, issued in keys.items():
        verdict, state = "VERDICT_ALLOWED", "KEY_STATE_ACTIVE"
        if name in ended:
            verdict, state = "VERDICT_REVOKED", "KEY_STATE_REVOKED"
        environment = issued.key.environment
        answer = fixture.verify(issued.plain_key, caller, realm=realm, environment=environment, any_target=True)
        same(fixture.verdict(answer), verdict, f"the verdict on the key {name!r}")
        same(fixture.state_of(fixture.operator.call("GetKey", key_id=issued.id).key), state, f"the state of {name!r}")
        same(states.get(issued.id), state, f"the list in which {name!r} stands")


@check
def many_keys_are_ended_at_once_at_each_level(fixture: Fixture):
    def everything(name):
        return True

    for what, filters, belongs in (
        ("a realm", {}, everything),
        ("a partner", {"partner": "acme"}, lambda name: "acme" in name),
        ("a project", {"project": "one"}, lambda name: "one" in name),
        ("a partner's project", {"partner": "acme", "project": "two"}, lambda name: "two" in name),
        ("an environment", {"environment": "staging"}, lambda name: "staging" in name),
        ("a partner's environment", {"partner": "acme", "environment": "production"},
         lambda name: "acme" in name and "production" in name),
    ):
        with case(f"the keys of {what} are ended at once"):
            realm = realm_of_its_own(fixture)
            keys = {}
            owners = (("acme", None), ("acme", "one"), ("acme", "two"), ("umbrella", None), ("umbrella", "three"))
            for partner, project in owners:
                for environment in ("production", "staging"):
                    bound = {"project": project} if project else {}
                    issued = fixture.issue(realm=realm, partner=partner, environment=environment, **bound)
                    keys[f"{partner} {project or 'whole'} {environment}"] = issued
            imported = old_text()
            [key_id] = import_keys(fixture, entry(fixture, imported), realm=realm)
            keys["acme imported production"] = IssuedKey(fixture.operator.call("GetKey", key_id=key_id).key, imported)
            ended = {name for name in keys if belongs(name)}
            request = {"realm": realm, "reason": f"all of {what}"} | filters

            look = fixture.operator.call("RevokeKeys", **request, dry_run=True)
            same(look.would_revoke, len(ended), "how many would be ended")
            same({key.id for key in look.examples} <= {keys[name].id for name in ended}, True, "the examples")
            same(len(look.examples), min(10, len(ended)), "the number of examples")
            ids = [key.id for key in look.examples]
            same(ids, sorted(ids, reverse=True), "the newest first")
            expect_each(fixture, realm, set(), keys)

            done = fixture.operator.call("RevokeKeys", **request, wait="WAIT_EVERYWHERE")
            same((done.would_revoke, len(done.examples)), (0, 0), "what a look alone tells")
            same((done.confirmed, done.replayed), (True, False), "the answer")
            expect_each(fixture, realm, ended, keys)
            told = fixture.operator.call("GetKey", key_id=keys[min(ended)].id).key
            same(told.revoke_reason, f"all of {what}", "the reason")
            must(abs(time.time() - seconds(told.revoke_time)) < 60, "revoked another day")
            [event] = fixture.operator.every_page("ListEvents", "events", realm=realm, kind="keys.revoked")
            same(event.revision, done.revision, "the revision in the audit trail")
            must(f"all of {what}" in event.detail.values(), "the reason is not in the audit trail")

            # What is issued afterwards is not affected.
            later = {"later": fixture.issue(realm=realm, partner="acme"),
                     "later one": fixture.issue(realm=realm, partner="acme", project="one", environment="staging")}
            expect_each(fixture, realm, ended, keys | later)
            left = [name for name in ("acme production", "acme one staging") if belongs(name)]
            look = fixture.operator.call("RevokeKeys", **request, dry_run=True)
            same(look.would_revoke, len(left), "how many are left to end")
            for method, fields in (("RotateKey", {}), ("EnableKey", {}), ("DisableKey", {}),
                                   ("UpdateKey", {"update_mask": {"paths": ["name"]}})):
                refused_by_state(fixture, method, key_id=keys[min(ended)].id, **fields)


@check
def many_keys_are_ended_that_were_issued_before_a_time(fixture: Fixture):
    realm = realm_of_its_own(fixture)
    keys = {name: fixture.issue(realm=realm) for name in ("first", "second", "third")}
    border = keys["second"].key.create_time
    request = {"realm": realm, "issued_before": time_of(border)}
    same(fixture.operator.call("RevokeKeys", **request, dry_run=True).would_revoke, 1, "how many would be ended")
    fixture.operator.call("RevokeKeys", **request)
    expect_each(fixture, realm, {"first"}, keys)
    for what, leaf, fields in (
        ("a time to come", "issued_before", {"issued_before": from_now(3600)}),
        ("what is no time", "issued_before", {"issued_before": {"seconds": 2**62, "nanos": -1}}),
        ("a reason of 257 characters", "reason", {"reason": "é" * 257}),
        ("a reason with a control character", "reason", {"reason": "a\x1bb"}),
        ("no realm", "realm", {"realm": ""}),
    ):
        with case(f"refused in RevokeKeys: {what}"):
            fixture.operator.refused_field(leaf, "RevokeKeys", **{"realm": realm} | fields)
    fixture.operator.refused("RevokeKeys", Code.NOT_FOUND, realm=f"py-{letters(10)}")
    # What does not exist is no word for everything. The contract names no code for this.
    for fields in ({"partner": "nobody"}, {"project": "nosuch"}, {"partner": "acme", "project": "three"},
                   {"environment": "nowhere"}):
        with case(f"nothing is ended by {fields}"):
            with contextlib.suppress(grpc.RpcError):
                fixture.operator.call("RevokeKeys", realm=realm, **fields)
            expect_each(fixture, realm, {"first"}, keys)
    expect_each(fixture, realm, {"first"}, keys)


@check
def a_repeated_end_of_many_spares_what_was_issued_since(fixture: Fixture):
    realm = realm_of_its_own(fixture)
    keys = {"old": fixture.issue(realm=realm)}
    request = {"realm": realm, "reason": "leaked", "request_id": str(uuid.uuid4())}
    first = fixture.operator.call("RevokeKeys", **request)
    keys["new"] = fixture.issue(realm=realm)
    again = fixture.operator.call("RevokeKeys", **request)
    same((again.replayed, again.revision), (True, first.revision), "the second answer")
    expect_each(fixture, realm, {"old"}, keys)
    for other in ({"partner": "acme"}, {"reason": "other"}, {"issued_before": from_now(-1)}):
        fixture.operator.refused_field("request_id", "RevokeKeys", **request | other)
    expect_each(fixture, realm, {"old"}, keys)


@check
def nobody_ends_with_many_what_is_not_theirs(fixture: Fixture):
    realm = realm_of_its_own(fixture, admin_scope="admin")
    keys = {"own": fixture.issue(realm=realm), "foreign": fixture.issue(realm=realm, partner="umbrella"),
            "staging": fixture.issue(realm=realm, environment="staging"),
            "project": fixture.issue(realm=realm, project="one", partner="acme")}
    elsewhere = fixture.issue()
    gateway_key = fixture.key_of_the_authority("verify", realm)
    gateway = fixture.operator.with_key(gateway_key.plain_key)
    gateway.refused("RevokeKeys", Code.PERMISSION_DENIED, realm=realm)
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage", realm).plain_key)
    for other in (fixture.realm, "claviger"):
        manager.refused("RevokeKeys", Code.PERMISSION_DENIED, Code.NOT_FOUND, realm=other)
    delegate_key = fixture.issue(realm=realm, scopes=["admin"])
    delegate = fixture.operator.with_key(delegate_key.plain_key)
    own_realm = {"realm": fixture.realm}
    for fields in ({"partner": "umbrella"}, {"partner": "nobody"}, {"environment": "staging"}, own_realm):
        delegate.refused("RevokeKeys", Code.PERMISSION_DENIED, **{"realm": realm} | fields)
    plain = fixture.operator.with_key(keys["own"].plain_key)
    plain.refused("RevokeKeys", Code.PERMISSION_DENIED, Code.UNAUTHENTICATED, realm=realm)
    expect_each(fixture, realm, set(), keys)

    same(delegate.call("RevokeKeys", realm=realm, dry_run=True).would_revoke, 3, "what a partner's own key would end")
    delegate.call("RevokeKeys", realm=realm, reason="by its partner")
    expect_each(fixture, realm, {"own", "project", "delegate"}, keys | {"delegate": delegate_key})
    for method, fields in (("RevokeKeys", {"realm": realm}), ("ListKeys", {"realm": realm}),
                           ("IssueKey", fixture.key_request(realm=realm))):
        delegate.refused(method, Code.UNAUTHENTICATED, **fields)

    # A manager ends all of its realm; neither itself nor its gateways are of it.
    manager.call("RevokeKeys", realm=realm)
    expect_each(fixture, realm, {"own", "foreign", "staging", "project"}, keys, caller=gateway)
    # An operator ends those of a realm's gateways and managers.
    fixture.operator.call("RevokeKeys", realm="claviger", partner=realm)
    gateway.refused("Verify", Code.UNAUTHENTICATED, **fixture.question(elsewhere.plain_key, realm=realm))
    manager.refused("ListKeys", Code.UNAUTHENTICATED, realm=realm)
    fixture.expect("VERDICT_ALLOWED", elsewhere)


@check
def the_keys_that_match_a_filter_are_ended_one_by_one(fixture: Fixture):
    realm = realm_of_its_own(fixture)
    keys = {name: fixture.issue(realm=realm, name=name, labels={"team": team})
            for name, team in (("robot one", "a"), ("Robot two", "b"), ("person", "b"), ("robot three", "b"))}
    gone = keys.pop("robot three")
    fixture.operator.call("RevokeKey", key_id=gone.id)
    for what, filters, ended in (
        ("a name and a label", {"name": "ROBOT", "labels": {"team": "b"}}, {"Robot two"}),
        ("a creator", {"created_by": keys["person"].key.created_by, "name": "robot"}, {"robot one", "Robot two"}),
    ):
        with case(f"revoked by {what}"):
            request = {"realm": realm, "reason": what} | filters
            look = fixture.operator.call("RevokeKeys", **request, dry_run=True)
            left = [name for name in ended
                    if fixture.state_of(fixture.operator.call("GetKey", key_id=keys[name].id).key) != "KEY_STATE_REVOKED"]
            same((look.would_revoke, look.revoked, look.more), (len(left), 0, False), "what would be ended")
            done = fixture.operator.call("RevokeKeys", **request)
            same((done.revoked, done.would_revoke, done.more), (len(left), 0, False), "what was ended")
            expect_each(fixture, realm, ended, keys)
            [event] = fixture.operator.call("ListEvents", key_id=keys[left[0]].id, page_size=1).events
            same((event.kind, event.detail["reason"]), ("key.revoked", what), "the event")
    request = {"realm": realm, "states": ["KEY_STATE_REVOKED"], "request_id": str(uuid.uuid4())}
    look = fixture.operator.call("DeleteKeys", **request, dry_run=True)
    same((look.would_delete, look.deleted, len(look.examples)), (3, 0, 3), "what would be deleted")
    done = fixture.operator.call("DeleteKeys", **request)
    same((done.deleted, done.would_delete, done.more, done.replayed), (3, 0, False, False), "what was deleted")
    again = fixture.operator.call("DeleteKeys", **request)
    same((again.deleted, again.replayed, again.revision), (3, True, done.revision), "the second answer")
    for issued in (gone, keys["robot one"], keys["Robot two"]):
        fixture.operator.refused("GetKey", Code.NOT_FOUND, key_id=issued.id)
    fixture.operator.refused_field("states", "RevokeKeys", realm=realm, states=["KEY_STATE_REVOKED"])
    expect_each(fixture, realm, set(), {"person": keys["person"]})


@check
def an_operator_does_not_lock_itself_out(fixture: Fixture):
    refused_by_state(fixture, "RevokeKeys", "LOCKS_OUT_CALLER", realm="claviger")
    same(fixture.operator.call("GetRealm", realm_id="claviger").realm.id, "claviger", "the operator's answer")


@check
def whoever_holds_a_key_can_end_it(fixture: Fixture):
    suspended = {"realm": fixture.realm, "id": "sleepy"}
    keys = {
        "one without scopes": fixture.issue(name="told to nobody", labels={"a": "b"}),
        "one of a project": fixture.issue(project="beta", scopes=["read"]),
        "one that is good elsewhere only": fixture.issue(allowed_cidrs=["192.0.2.0/24"]),
        "a disabled one": fixture.issue(),
        "one of a suspended partner": fixture.issue(partner="sleepy"),
        "an imported one": import_one(fixture, old_text()),
    }
    fixture.operator.call("DisableKey", key_id=keys["a disabled one"].id)
    fixture.operator.call("PutPartner", partner=suspended | {"suspended": True})
    for what, issued in keys.items():
        with case(f"{what} ends itself"):
            holder = fixture.operator.with_key(issued.plain_key)
            for leaf, fields in (("reason", {"reason": "é" * 257}), ("reason", {"reason": "a\nb"})):
                holder.refused_field(leaf, "RevokeSelf", **fields)
            answer = holder.call("RevokeSelf", reason="found on the street ☂")
            told = {field.name for field, _ in answer.key.ListFields()}
            same(told, {"id", "realm", "state", "create_time", "revoke_time"}, "what is told")
            same((answer.key.id, answer.key.realm), (issued.id, fixture.realm), "the key")
            same(fixture.state_of(answer.key), "KEY_STATE_REVOKED", "the state")
            key = fixture.operator.call("GetKey", key_id=issued.id).key
            same(key.revoke_reason, "found on the street ☂", "the reason")
            fixture.expect("VERDICT_REVOKED", issued, any_target=True)
            again = holder.call("RevokeSelf", reason="another reason")
            must(again.key == answer.key, "to repeat it changed something")
            event = fixture.operator.call("ListEvents", key_id=issued.id, page_size=1).events[0]
            same((event.kind, event.actor, event.revision), ("key.revoked", issued.id, answer.revision), "the event")
    fixture.operator.call("PutPartner", partner=suspended | {"suspended": False})
    # Either text of a rotation is one of the key.
    old = fixture.issue()
    new = rotate(fixture, old, 600)
    fixture.operator.with_key(old.plain_key).call("RevokeSelf")
    fixture.expect("VERDICT_REVOKED", new)
    # What proves nothing ends nothing.
    issued = fixture.issue()
    forged = keytext.with_another_secret(issued.plain_key)
    for header in (None, "Bearer garbage", f"Basic {issued.plain_key}", f"Bearer {forged}"):
        fixture.operator.with_header(header).refused("RevokeSelf", Code.UNAUTHENTICATED)
    fixture.expect("VERDICT_ALLOWED", issued)
