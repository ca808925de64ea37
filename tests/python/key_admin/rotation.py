"""Rotations of keys, and their overlaps."""

import time

import keytext
from calls import refused_by_state, rotate, time_of, update
from checks import case, check
from fixture import CLOCK_TOLERANCE_SECONDS, Code, Fixture, from_now, seconds, until
from wire import must, same


@check
def a_rotation_gives_a_new_text_to_the_same_key(fixture: Fixture):
    old = fixture.issue(scopes=["write"], labels={"a": "b"}, name="rotated", project="beta")
    new = rotate(fixture, old, 600)
    must(new.plain_key != old.plain_key, "the text is the old one")
    parts, before = keytext.Parts(new.plain_key), keytext.Parts(old.plain_key)
    same((parts.prefix, parts.tag, parts.key_id), (before.prefix, before.tag, old.id), "what the text begins with")
    must(parts.secret_digits != before.secret_digits, "the secret is the old one")
    same(len(new.key.secrets), 2, "the number of its secrets")
    first, second = new.key.secrets
    must(abs(seconds(first.expire_time) - time.time() - 600) < CLOCK_TOLERANCE_SECONDS, "the overlap")
    must(not second.HasField("expire_time"), "the new text has an end of its own")
    must(not first.imported and not second.imported, "a text of claviger's own is told as imported")
    must(new.key.hint.endswith(new.plain_key[-4:]), "the hint is not that of the newest text")
    answers = [fixture.expect("VERDICT_ALLOWED", issued, any_target=True, scopes=["read"]) for issued in (old, new)]
    must(answers[0].key == answers[1].key, "the two texts are told as different keys")
    for field in ("id", "realm", "partner", "project", "level", "environment", "name", "scopes", "labels",
                  "create_time", "created_by", "state"):
        must(getattr(new.key, field) == getattr(old.key, field), f"{field} was changed by the rotation")
    fixture.operator.call("RevokeKey", key_id=old.id)
    for issued in (old, new):
        fixture.expect("VERDICT_REVOKED", issued, any_target=True)


@check
def an_overlap_comes_to_its_end(fixture: Fixture):
    old = fixture.issue()
    new = rotate(fixture, old, 1.2)
    end = seconds(new.key.secrets[0].expire_time)

    def over():
        asked = time.time()
        answer = fixture.verify(old.plain_key)
        fixture.holds_of_every_answer(answer)
        same(answer.key.id, old.id, "the proven key")
        fixture.expect("VERDICT_ALLOWED", new)
        if fixture.verdict(answer) == "VERDICT_EXPIRED":
            must(time.time() >= end - 0.01, "expired before its time")
            return answer
        same(fixture.verdict(answer), "VERDICT_ALLOWED", "the verdict before the end")
        must(asked <= end + 0.01, "allowed after its time")
        must(seconds(answer.cache_for) <= end - asked + 0.01, "cache_for goes beyond the overlap")
        return None

    until(over, "the end of an overlap")
    key = fixture.operator.call("GetKey", key_id=old.id).key
    same(fixture.state_of(key), "KEY_STATE_ACTIVE", "the state")
    same(len(key.secrets), 2, "the old text is told until the next rotation")
    refused_by_state(fixture, "EndRotation", key_id=old.id, keep="KEEP_SECRET_OLD")
    newest = rotate(fixture, old, 600)
    fixture.expect("VERDICT_UNKNOWN", old)
    fixture.expect("VERDICT_ALLOWED", new)
    fixture.expect("VERDICT_ALLOWED", newest)


@check
def without_an_overlap_the_old_text_stops_at_once(fixture: Fixture):
    for overlap in (None, 0):
        old = fixture.issue()
        new = rotate(fixture, old, overlap)
        fixture.expect("VERDICT_UNKNOWN", old.plain_key)
        fixture.expect("VERDICT_ALLOWED", new)
        same(len(new.key.secrets), 1, "the number of its secrets")
        for keep in ("KEEP_SECRET_NEW", "KEEP_SECRET_OLD"):
            refused_by_state(fixture, "EndRotation", "NO_ROTATION", key_id=old.id, keep=keep)
    fresh = fixture.issue()
    refused_by_state(fixture, "EndRotation", "NO_ROTATION", key_id=fresh.id, keep="KEEP_SECRET_NEW")


@check
def an_overlap_never_goes_beyond_the_key(fixture: Fixture):
    old = fixture.issue(expire_time=from_now(600))
    new = rotate(fixture, old, 3600)
    must(new.key.secrets[0].expire_time == old.key.expire_time, "the overlap goes beyond the key's end")
    # The end of the old text moves with the key's.
    end = from_now(300)
    key = update(fixture, old, "expire_time", expire_time=end)
    same(time_of(key.secrets[0].expire_time), end, "the end of the overlap after the key's own was moved")
    must(not key.secrets[1].HasField("expire_time") or time_of(key.secrets[1].expire_time) == end,
         "the new text has an end of its own")


@check
def a_rotation_can_set_the_expiry(fixture: Fixture):
    old = fixture.issue(expire_time=from_now(600))
    end = from_now(1200)
    new = rotate(fixture, old, 3600, expire_time=end)
    same(time_of(new.key.expire_time), end, "the expiry that the rotation sets")
    must(new.key.secrets[0].expire_time == old.key.expire_time, "the old secret outlives the expiry that it had")
    event = fixture.operator.call("ListEvents", key_id=old.id).events[0]
    same(event.kind, "key.rotated", "the latest event")
    must(event.detail["expire_time"], "the event does not record the expiry")
    same(time_of(rotate(fixture, old).key.expire_time), end, "the expiry after a rotation that sets none")
    refusal = fixture.operator.refused("RotateKey", Code.INVALID_ARGUMENT, key_id=old.id, expire_time=from_now(-60))
    same(refusal.fields, ["expire_time"], "the field of a past expiry")
    # In this realm a key lives for an hour at most, counted from the rotation.
    short = fixture.issue_exactly(realm=fixture.short_realm, partner="acme")
    far = fixture.operator.refused("RotateKey", Code.INVALID_ARGUMENT, key_id=short.id, expire_time=from_now(3700))
    same(far.fields, ["expire_time"], "the field of an expiry beyond the limit")
    near = rotate(fixture, short, expire_time=from_now(3500))
    must(seconds(near.key.expire_time) > time.time() + 3400, "the expiry within the limit")
    listed = fixture.operator.call("ListKeys", filter={"realm": fixture.short_realm, "beyond_max_lifetime": True}).keys
    same([key.id for key in listed], [], "the keys beyond the limit")


@check
def a_span_that_cannot_be_an_overlap_is_named(fixture: Fixture):
    issued = fixture.issue()
    days = 24 * 3600
    for what, overlap in (
        ("a negative one", {"seconds": -1}),
        ("one that is negative by a nanosecond", {"nanos": -1}),
        ("a second more than 366 days", {"seconds": 366 * days + 1}),
        ("ten thousand years", {"seconds": 315_576_000_000}),
        ("one beyond all spans", {"seconds": 2**62}),
        ("one of two signs", {"seconds": 1, "nanos": -1}),
    ):
        with case(f"refused as an overlap: {what}"):
            fixture.operator.refused_field("overlap", "RotateKey", key_id=issued.id, overlap=overlap)
    for keep in ("KEEP_SECRET_UNSPECIFIED", 99):
        fixture.operator.refused_field("keep", "EndRotation", key_id=issued.id, keep=keep)
    for bad in ("not-a-uuid", "", issued.plain_key):
        fixture.operator.refused_field("key_id", "RotateKey", key_id=bad)
        fixture.operator.refused_field("key_id", "EndRotation", key_id=bad, keep="KEEP_SECRET_NEW")
    fixture.expect("VERDICT_ALLOWED", issued)
    same(len(rotate(fixture, issued, 366 * days).key.secrets), 2, "the number of secrets after a rotation of 366 days")


@check
def a_rotation_within_an_overlap_replaces_the_newest_text(fixture: Fixture):
    oldest = fixture.issue()
    lost = rotate(fixture, oldest, 600)
    newest = rotate(fixture, oldest, 1200)
    fixture.expect("VERDICT_ALLOWED", oldest)
    fixture.expect("VERDICT_UNKNOWN", lost.plain_key)
    fixture.expect("VERDICT_ALLOWED", newest)
    same(len(newest.key.secrets), 2, "the number of its secrets")
    left = seconds(newest.key.secrets[0].expire_time) - time.time()
    must(abs(left - 1200) < CLOCK_TOLERANCE_SECONDS, f"the oldest text goes on for {left:.0f} s")


@check
def a_rotation_is_completed_or_taken_back(fixture: Fixture):
    for keep, of_old, of_new in (
        ("KEEP_SECRET_NEW", "VERDICT_UNKNOWN", "VERDICT_ALLOWED"),
        ("KEEP_SECRET_OLD", "VERDICT_ALLOWED", "VERDICT_UNKNOWN"),
    ):
        with case(f"a rotation ended with {keep}"):
            old = fixture.issue()
            new = rotate(fixture, old, 600)
            ended = fixture.operator.call("EndRotation", key_id=old.id, keep=keep)
            fixture.expect(of_old, old.plain_key)
            fixture.expect(of_new, new.plain_key)
            [secret] = ended.key.secrets
            must(not secret.HasField("expire_time"), "the text that stays has an end")
            refused_by_state(fixture, "EndRotation", "NO_ROTATION", key_id=old.id, keep=keep)
            kinds = [event.kind for event in fixture.operator.every_page("ListEvents", "events", key_id=old.id)]
            same(kinds, ["key.rotation_ended", "key.rotated", "key.issued"], "the events")


@check
def a_rotation_revives_nothing(fixture: Fixture):
    expired = fixture.issue(expire_time=from_now(0.3))
    revoked = fixture.issue()
    fixture.operator.call("RevokeKey", key_id=revoked.id)
    until(lambda: fixture.verdict(fixture.verify(expired.plain_key)) == "VERDICT_EXPIRED", "the expiry of a key")
    for issued, verdict in ((expired, "VERDICT_EXPIRED"), (revoked, "VERDICT_REVOKED")):
        refused_by_state(fixture, "RotateKey", key_id=issued.id, overlap={"seconds": 60})
        fixture.expect(verdict, issued)
        same(len(fixture.operator.call("GetKey", key_id=issued.id).key.secrets), 1, "the number of its secrets")
    disabled = fixture.issue()
    fixture.operator.call("DisableKey", key_id=disabled.id)
    new = rotate(fixture, disabled, 60)
    for issued in (disabled, new):
        fixture.expect("VERDICT_DISABLED", issued)


@check
def a_caller_goes_on_with_its_new_text_and_not_with_the_old_one(fixture: Fixture):
    gateway = fixture.key_of_the_authority("verify")
    issued = fixture.issue()
    before = fixture.operator.with_key(gateway.plain_key)
    after = fixture.operator.with_key(rotate(fixture, gateway, 600).plain_key)
    for caller in (before, after):
        fixture.expect("VERDICT_ALLOWED", issued, caller=caller)
    fixture.operator.call("EndRotation", key_id=gateway.id, keep="KEEP_SECRET_NEW")
    before.refused("Verify", Code.UNAUTHENTICATED, **fixture.question(issued.plain_key))
    fixture.expect("VERDICT_ALLOWED", issued, caller=after)
