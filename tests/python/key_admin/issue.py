"""Keys: issued, read and listed."""

import time
import uuid

import keytext
from checks import case, check
from fixture import Code, Fixture, from_now, letters, seconds
from wire import must, same


@check
def a_partner_key_is_issued_with_all_that_was_asked_for(fixture: Fixture):
    expire_time = from_now(3600)
    labels = {"team": "payments", "ticket": "OPS-17 ☂"}
    request = fixture.key_request(
        name="Ünïcode name",
        scopes=["write", "read"],
        labels=labels,
        allowed_cidrs=["10.1.0.0/16", "2001:db8::/32"],
        expire_time=expire_time,
        wait="WAIT_EVERYWHERE",
    )
    response = fixture.operator.call("IssueKey", **request)
    must(response.confirmed, "answered before every server confirmed, in spite of WAIT_EVERYWHERE")
    key = response.key
    same((key.realm, key.partner, key.project), (fixture.realm, "acme", ""), "where the key belongs")
    same(fixture.level_of(key), "KEY_LEVEL_PARTNER", "the level")
    same((key.environment, key.name), ("production", "Ünïcode name"), "the environment and the name")
    same((list(key.scopes), key.full_access), (["read", "write"], False), "the scopes")
    same(dict(key.labels), labels, "the labels")
    same(sorted(key.allowed_cidrs), ["10.1.0.0/16", "2001:db8::/32"], "the address ranges")
    same(fixture.state_of(key), "KEY_STATE_ACTIVE", "the state")
    same({"seconds": key.expire_time.seconds, "nanos": key.expire_time.nanos}, expire_time, "the time of expiry")
    must(abs(time.time() - seconds(key.create_time)) < 60, "the key was made another day")
    must(not key.HasField("revoke_time") and key.revoke_reason == "", "a new key is revoked")
    same(key.created_by, fixture.operator_id, "the id of the issuer")
    same(len(key.secrets), 1, "the number of its secrets")
    must(key.secrets[0].HasField("create_time"), "its secret has no date")
    parsed = uuid.UUID(key.id)
    same((parsed.version, str(parsed)), (7, key.id), "the kind of id")

    got = fixture.operator.call("GetKey", key_id=key.id)
    must(got.key == key, "the key is read otherwise than it was issued")
    must(got.revision >= response.revision, "the state that was read lies before the change")


@check
def the_text_of_a_key_has_the_form_of_the_contract(fixture: Fixture):
    for fields, tag in (({}, "live"), ({"environment": "staging"}, "test"), ({"project": "beta"}, "live")):
        issued = fixture.issue(**fields)
        must(keytext.KEY_TEXT.fullmatch(issued.plain_key) is not None, "the text has another form")
        parts = keytext.Parts(issued.plain_key)
        same(len(parts.body), 71, "the width of the body")
        same((parts.prefix, parts.tag), (fixture.prefix, tag), "the prefix and the tag")
        same(parts.key_id, issued.id, "the id in the text")
        hint = issued.key.hint
        must(hint.startswith(f"{fixture.prefix}_{tag}"), "the hint does not begin with prefix and tag")
        must(hint.endswith(issued.plain_key[-4:]), "the hint does not end with the last four characters")
        shown = len(hint) - len(fixture.prefix) - len(tag)
        must(shown <= 4 + 12, "the hint shows more than prefix, tag and the last four characters")


@check
def no_two_keys_share_a_secret_or_an_id(fixture: Fixture):
    issued = [fixture.issue() for _ in range(5)]
    must(len({key.id for key in issued}) == 5, "an id twice")
    must(len({keytext.Parts(key.plain_key).secret_digits for key in issued}) == 5, "a secret twice")
    ids = [key.id for key in issued]
    same(ids, sorted(ids), "the order of the ids of keys issued one after the other")


@check
def a_project_makes_a_project_key(fixture: Fixture):
    issued = fixture.issue(project="mtKDhe1U", scopes=["read"])
    same((issued.key.partner, issued.key.project), ("acme", "mtKDhe1U"), "where the key belongs")
    same(fixture.level_of(issued.key), "KEY_LEVEL_PROJECT", "the level")


@check
def level_and_environment_may_be_left_out_where_there_is_one(fixture: Fixture):
    issued = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme", name="short request")
    same(fixture.level_of(issued.key), "KEY_LEVEL_PARTNER", "the level")
    same(issued.key.environment, "main", "the environment")


@check
def what_a_key_without_scopes_gets_is_resolved_at_issue(fixture: Fixture):
    nothing = fixture.issue()
    same((list(nothing.key.scopes), nothing.key.full_access), ([], False), "the scopes under NO_ACCESS")
    everything = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme")
    same((list(everything.key.scopes), everything.key.full_access), ([], True), "the scopes under FULL_ACCESS")

    # The policy changes; the key that was issued under the old one does not.
    closed = fixture.plain_realm_message() | {"unscoped_keys": "UNSCOPED_KEYS_NO_ACCESS"}
    fixture.operator.call("PutRealm", realm=closed)
    must(fixture.operator.call("GetKey", key_id=everything.id).key.full_access, "a later policy took the access away")
    later = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme")
    same(later.key.full_access, False, "full access under the new policy")
    fixture.operator.call("PutRealm", realm=fixture.plain_realm_message())
    must(not fixture.operator.call("GetKey", key_id=later.id).key.full_access, "a later policy gave access")


@check
def scopes_are_told_as_granted_and_as_effective(fixture: Fixture):
    for fields, granted, effective, full in (
        ({"scopes": ["admin"]}, ["admin"], ["admin", "read", "write"], False),
        ({"scopes": ["write"]}, ["write"], ["read", "write"], False),
        ({"scopes": ["read"]}, ["read"], ["read"], False),
        ({}, [], [], False),
        ({"full_access": True}, [], ["admin", "read", "write"], True),
    ):
        with case(f"a key issued with {fields or 'no scopes'} holds {effective or 'nothing'}"):
            answer = fixture.operator.call("GetKeyScopes", key_id=fixture.issue(**fields).id)
            told = (list(answer.granted), list(answer.effective), answer.full_access)
            same(told, (granted, effective, full), "the scopes")


@check
def a_longest_life_bounds_the_expiry(fixture: Fixture):
    request = {"realm": fixture.short_realm, "partner": "acme"}
    issued = fixture.issue_exactly(**request)
    same(round(seconds(issued.key.expire_time) - seconds(issued.key.create_time)), 3600, "the life of the key")
    shorter = from_now(600)
    issued = fixture.issue_exactly(**request, expire_time=shorter)
    same(issued.key.expire_time.seconds, shorter["seconds"], "a shorter life")
    fixture.operator.refused_field("expire_time", "IssueKey", **request, expire_time=from_now(7200))


@check
def unknown_owners_are_not_found_and_the_message_says_which(fixture: Fixture):
    unknown = letters(12)
    for word, fields in (
        ("realm", {"realm": f"py-{unknown}"}),
        ("partner", {"partner": unknown}),
        ("project", {"project": unknown}),
        ("project", {"project": "gamma"}),  # another partner's
    ):
        with case(f"a key of an unknown or foreign {word} is NOT_FOUND and says so"):
            refusal = fixture.operator.refused("IssueKey", Code.NOT_FOUND, **fixture.key_request(**fields))
            must(word in refusal.message.lower(), f"the message does not say that it is about the {word}")


@check
def keys_are_listed_page_by_page_newest_first(fixture: Fixture):
    issued = [fixture.issue(partner="pages", name=f"page key {n}").id for n in range(5)]
    filters = {"realm": fixture.realm, "partner": "pages"}
    first = fixture.operator.call("ListKeys", **filters, page_size=2)
    same([key.id for key in first.keys], issued[:2:-1], "the first page")
    second = fixture.operator.call("ListKeys", **filters, page_size=2, page_token=first.next_page_token)
    same([key.id for key in second.keys], issued[2:0:-1], "the second page")
    third = fixture.operator.call("ListKeys", **filters, page_size=2, page_token=second.next_page_token)
    same([key.id for key in third.keys], issued[:1], "the third page")
    same(third.next_page_token, "", "the token of the last page")
    for size in (5, 0, 1000, 100_000):
        whole = fixture.operator.call("ListKeys", **filters, page_size=size)
        same([key.id for key in whole.keys], issued[::-1], f"one page of {size}")
        same(whole.next_page_token, "", f"the token of the only page of {size}")


@check
def keys_are_listed_by_what_they_are(fixture: Fixture):
    def listed(**filters) -> set[str]:
        return {key.id for key in fixture.operator.every_page("ListKeys", "keys", realm=fixture.realm, **filters)}

    staging = fixture.issue(environment="staging")
    project = fixture.issue(project="beta")
    disabled = fixture.issue()
    fixture.operator.call("DisableKey", key_id=disabled.id)
    revoked = fixture.issue()
    fixture.operator.call("RevokeKey", key_id=revoked.id)
    ours = {staging.id, project.id, disabled.id, revoked.id}
    for filters, wanted in (
        ({}, ours),
        ({"partner": "acme"}, ours),
        ({"partner": "globex"}, set()),
        ({"environment": "staging"}, {staging.id}),
        ({"project": "beta"}, {project.id}),
        ({"states": ["KEY_STATE_ACTIVE"]}, {staging.id, project.id}),
        ({"states": ["KEY_STATE_DISABLED"]}, {disabled.id}),
        ({"states": ["KEY_STATE_DISABLED", "KEY_STATE_REVOKED"]}, {disabled.id, revoked.id}),
        ({"partner": "acme", "environment": "staging", "states": ["KEY_STATE_REVOKED"]}, set()),
    ):
        with case(f"keys are listed under {filters or 'no filter'}"):
            same(listed(**filters) & ours, wanted, f"the keys under {filters}")
    elsewhere = {key.id for key in fixture.operator.every_page("ListKeys", "keys", realm=fixture.plain_realm)}
    must(not ours & elsewhere, "a key is listed in another realm")


@check
def a_page_token_is_bound_to_its_caller_and_filters(fixture: Fixture):
    filters = {"realm": fixture.realm, "partner": "pages", "page_size": 2}
    token = fixture.operator.call("ListKeys", **filters).next_page_token
    must(token, "there is no second page")
    for other in (
        {"partner": "acme"},
        {"partner": ""},
        {"environment": "production"},
        {"states": ["KEY_STATE_ACTIVE"]},
        {"realm": fixture.plain_realm, "partner": "acme"},
    ):
        with case(f"a page token is not good with {other}"):
            fixture.operator.refused_field("page_token", "ListKeys", **filters | other, page_token=token)
    for broken in ("x", token + "A", "A" + token, token[:-2], "☂"):
        fixture.operator.refused_field("page_token", "ListKeys", **filters, page_token=broken)
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage").plain_key)
    manager.refused_field("page_token", "ListKeys", **filters, page_token=token)
    fixture.operator.refused_field("page_token", "ListEvents", realm=fixture.realm, page_token=token)

    events = fixture.operator.call("ListEvents", realm=fixture.realm, page_size=1)
    fixture.operator.refused_field(
        "page_token", "ListEvents", realm=fixture.realm, kind="key.issued", page_token=events.next_page_token
    )
