"""Keys that are allowed, and what is told of them."""

import time

from google.rpc import error_details_pb2

from checks import check
from fixture import MAX_CACHE_SECONDS, Code, Fixture, from_now, seconds
from wire import must, same


@check
def an_allowed_answer_tells_what_the_key_is(fixture: Fixture):
    expire_time = from_now(3600)
    for project, level in (("", "KEY_LEVEL_PARTNER"), ("beta", "KEY_LEVEL_PROJECT")):
        fields = {"project": project} if project else {}
        issued = fixture.issue(**fields, name="told", scopes=["write"], labels={"team": "x"}, expire_time=expire_time)
        answer = fixture.expect("VERDICT_ALLOWED", issued, any_target=True, partner="acme", scopes=["read"])
        key = answer.key
        same((key.id, key.realm, key.partner, key.project), (issued.id, fixture.realm, "acme", project), "the key")
        same(fixture.level_of(key), level, "its level")
        same((key.environment, key.name), ("production", "told"), "its environment and name")
        same((list(key.scopes), key.full_access), (["read", "write"], False), "its scopes")
        same(dict(key.labels), {"team": "x"}, "its labels")
        same({"seconds": key.expire_time.seconds, "nanos": key.expire_time.nanos}, expire_time, "its end")


@check
def a_key_of_full_access_holds_every_scope(fixture: Fixture):
    issued = fixture.issue(full_access=True)
    answer = fixture.expect("VERDICT_ALLOWED", issued, scopes=["read", "write", "admin"])
    must(answer.key.full_access, "the answer does not tell of the full access")
    must(not answer.key.HasField("expire_time"), "a key without an end has one")


@check
def full_access_is_also_that_to_a_scope_of_later(fixture: Fixture):
    use = {"realm": fixture.plain_realm, "environment": ""}
    issued = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme", full_access=True)
    fixture.operator.refused_field("scopes", "Verify", **fixture.question(issued.plain_key, **use, scopes=["later"]))
    realm = fixture.plain_realm_message()
    realm["scopes"] = [*realm["scopes"], {"name": "later"}]
    fixture.operator.call("PutRealm", realm=realm)
    fixture.expect("VERDICT_ALLOWED", issued, **use, scopes=["later"])


@check
def a_higher_scope_holds_the_lower_ones(fixture: Fixture):
    issued = fixture.issue(scopes=["admin"])
    for scope in ("admin", "write", "read"):
        fixture.expect("VERDICT_ALLOWED", issued, scopes=[scope])
        fixture.expect("VERDICT_ALLOWED", issued, any_scopes=[scope])


@check
def a_realm_without_max_cache_allows_no_reuse(fixture: Fixture):
    issued = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme")
    answer = fixture.expect("VERDICT_ALLOWED", issued, realm=fixture.plain_realm, environment="")
    same(seconds(answer.cache_for), 0, "cache_for")


@check
def an_answer_may_be_reused_no_longer_than_the_key_lives(fixture: Fixture):
    end = from_now(MAX_CACHE_SECONDS - 2)
    issued = fixture.issue(expire_time=end)
    asked = time.time()
    answer = fixture.expect("VERDICT_ALLOWED", issued)
    left = seconds(issued.key.expire_time) - asked
    must(seconds(answer.cache_for) <= left + 0.01, "cache_for goes beyond the expiry")
    # Without an end in sight the whole of max_cache is given: the embedded store knows no shorter lease.
    must(seconds(fixture.expect("VERDICT_ALLOWED", fixture.issue()).cache_for) > 0, "no reuse in spite of max_cache")


@check
def an_answer_knows_of_every_change_that_was_answered(fixture: Fixture):
    issued = fixture.issue()
    changed = fixture.operator.call("DisableKey", key_id=issued.id)
    answer = fixture.expect("VERDICT_DISABLED", issued, min_revision=changed.revision)
    must(answer.revision >= changed.revision, "the answer is older than the change")


@check
def a_revision_of_the_future_is_unavailable_and_says_when_to_retry(fixture: Fixture):
    issued = fixture.issue()
    future = fixture.operator.revision + 2**40
    question = fixture.question(issued.plain_key, min_revision=future)
    refusal = fixture.operator.refused("Verify", Code.UNAVAILABLE, **question)
    retry = refusal.detail(error_details_pb2.RetryInfo)
    must(retry is not None, "UNAVAILABLE without RetryInfo")
    must(seconds(retry.retry_delay) >= 0, "a retry before now")
