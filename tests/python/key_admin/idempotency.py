"""Requests that are sent again."""

import uuid

from calls import rotate
from checks import case, check
from fixture import Fixture, from_now, letters
from wire import must, same


@check
def every_change_takes_a_request_id_and_refuses_what_is_none(fixture: Fixture):
    # By what reflection lists, so that a method which comes later is in it by itself.
    plain = fixture.operator.with_key(fixture.issue().plain_key)
    count = 0
    for method in fixture.schema.methods:
        names = fixture.schema.request(method).DESCRIPTOR.fields_by_name
        same("request_id" in names, "wait" in names, f"{method} is a change")
        if "request_id" not in names:
            continue
        count += 1
        # If it were answered after all, not with the operator's own key.
        caller = plain if method == "RevokeSelf" else fixture.operator
        for bad in ("not-a-uuid", "x" * 36, f"{uuid.uuid4()}0", "00000000-0000-4000-8000-00000000000g"):
            with case(f"{method} refuses the request_id {bad[:12]}"):
                caller.refused_field("request_id", method, request_id=bad)
        with case(f"{method} refuses an unknown way to wait"):
            caller.refused_field("wait", method, wait=99)
    must(count >= 17, f"only {count} methods take a request_id")
    plain.call("RevokeSelf")


@check
def a_request_id_is_kept_in_the_audit_trail(fixture: Fixture):
    issued = fixture.issue()
    for method, kind, fields in (
        ("UpdateKey", "key.updated", {"update_mask": {"paths": ["name"]}, "name": "kept"}),
        ("DisableKey", "key.disabled", {}),
        ("EnableKey", "key.enabled", {}),
        ("RotateKey", "key.rotated", {"overlap": {"seconds": 60}}),
        ("EndRotation", "key.rotation_ended", {"keep": "KEEP_SECRET_OLD"}),
        ("RevokeKey", "key.revoked", {"reason": "kept"}),
        ("DeleteKey", "key.deleted", {}),
    ):
        with case(f"the request_id of {method} is kept"):
            request_id = str(uuid.uuid4())
            fixture.operator.call(method, key_id=issued.id, request_id=request_id, **fields)
            [event] = fixture.operator.call("ListEvents", key_id=issued.id, page_size=1).events
            same(event.kind, kind, "the event")
            must(request_id in event.detail.values(), "the request_id is not told")


@check
def the_same_request_to_issue_makes_one_key(fixture: Fixture):
    request = fixture.key_request(name=f"once {letters(8)}", request_id=str(uuid.uuid4()))
    first = fixture.operator.call("IssueKey", **request)
    must(not first.replayed and first.plain_key, "the first answer")
    fixture.operator.call("DisableKey", key_id=first.key.id)
    again = fixture.operator.call("IssueKey", **request)
    same((again.replayed, again.plain_key), (True, ""), "the second answer")
    same((again.key.id, again.revision), (first.key.id, first.revision), "the key and the revision of the first time")
    same(fixture.state_of(again.key), "KEY_STATE_DISABLED", "the key is told as it is now")
    fixture.operator.call("EnableKey", key_id=first.key.id)
    for what, fields in (
        ("another name", {"name": "other"}),
        ("another partner", {"partner": "globex"}),
        ("a scope more", {"scopes": ["read"]}),
        ("an end", {"expire_time": from_now(60)}),
        ("a label", {"labels": {"a": "b"}}),
        ("an external id", {"external_id": str(uuid.uuid4())}),
    ):
        with case(f"a request_id is not good for a request with {what}"):
            fixture.operator.refused_field("request_id", "IssueKey", **request | fields)
    # Another caller's is another one.
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage").plain_key)
    other = manager.call("IssueKey", **request)
    must(not other.replayed and other.key.id != first.key.id, "another caller was answered with a foreign key")
    same(manager.call("IssueKey", **request).key.id, other.key.id, "the key of the other caller")
    # Without one each request makes a key.
    del request["request_id"]
    ids = {fixture.operator.call("IssueKey", **request).key.id for _ in range(2)}
    same(len(ids), 2, "the number of keys without a request_id")


@check
def the_same_request_to_rotate_makes_one_text(fixture: Fixture):
    issued = fixture.issue()
    request = {"key_id": issued.id, "overlap": {"seconds": 600}, "request_id": str(uuid.uuid4())}
    first = fixture.operator.call("RotateKey", **request)
    must(not first.replayed, "the first answer")
    again = fixture.operator.call("RotateKey", **request)
    same((again.replayed, again.plain_key), (True, ""), "the second answer")
    same(again.revision, first.revision, "the revision of the first time")
    same(len(again.key.secrets), 2, "the number of secrets")
    fixture.expect("VERDICT_ALLOWED", issued)
    fixture.expect("VERDICT_ALLOWED", first.plain_key)
    for other in ({"overlap": {"seconds": 601}}, {"overlap": None}, {"key_id": fixture.issue().id}):
        fixture.operator.refused_field("request_id", "RotateKey", **request | other)
    # The lost text is replaced by a rotation that is not a repetition.
    newest = rotate(fixture, issued, 600)
    fixture.expect("VERDICT_UNKNOWN", first.plain_key)
    fixture.expect("VERDICT_ALLOWED", issued)
    fixture.expect("VERDICT_ALLOWED", newest)
    must(fixture.operator.call("RotateKey", **request).replayed, "the first request is not known any more")
    fixture.expect("VERDICT_ALLOWED", newest)
