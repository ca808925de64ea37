"""How keys are used."""

import collections
import time

import keytext
from calls import import_one, old_text, realm_of_its_own, rotate
from checks import case, check
from fixture import CLOCK_TOLERANCE_SECONDS, Code, IssuedKey, Fixture, from_now, seconds, until
from wire import must, same

# Servers write their counts down every few seconds.
USAGE_SECONDS = 30


def usage_of(fixture: Fixture, key: IssuedKey, **fields):
    return fixture.operator.call("GetKeyUsage", key_id=key.id, **fields)


def counted(fixture: Fixture, counts) -> dict:
    found = {fixture.schema.name("Verdict", count.verdict): count.count for count in counts}
    same(len(found), len(counts), "the number of different verdicts")
    must(all(found.values()), "a verdict that did not occur is told")
    return found


@check
def uses_are_counted_by_verdict(fixture: Fixture):
    began = time.time()
    issued, idle = fixture.issue(scopes=["read"]), fixture.issue()
    imported = import_one(fixture, old_text())
    must(not issued.key.HasField("last_used_time"), "a new key was used")
    same(len(usage_of(fixture, issued).totals), 0, "the uses of a new key")
    for _ in range(3):
        fixture.expect("VERDICT_ALLOWED", issued)
    fixture.operator.call("VerifyBatch", requests=[fixture.question(issued.plain_key)] * 2)
    fixture.expect("VERDICT_SCOPE_MISSING", issued, scopes=["admin"])
    fixture.expect("VERDICT_ENVIRONMENT_MISMATCH", issued, environment="staging")
    fixture.expect("VERDICT_ALLOWED", imported)
    # What proves nothing is nobody's use, and to explain is not to use.
    fixture.expect("VERDICT_UNKNOWN", keytext.with_another_secret(issued.plain_key))
    fixture.expect("VERDICT_MALFORMED", keytext.with_one_character_changed(issued.plain_key, -1))
    fixture.operator.call("Explain", verify=fixture.question(issued.plain_key))

    wanted = {"VERDICT_ALLOWED": 5, "VERDICT_SCOPE_MISSING": 1, "VERDICT_ENVIRONMENT_MISMATCH": 1}

    def all_of_them():
        found = usage_of(fixture, issued)
        return sum(count.count for count in found.totals) >= 7 and found

    usage = until(all_of_them, "the uses of a key", USAGE_SECONDS)
    same(counted(fixture, usage.totals), wanted, "the uses")
    in_buckets = collections.Counter()
    for bucket in usage.buckets:
        same((bucket.start_time.seconds % 3600, bucket.start_time.nanos), (0, 0), "the begin of an hour")
        must(began - 3600 < bucket.start_time.seconds <= time.time(), "the hour is another one")
        in_buckets.update(counted(fixture, bucket.counts))
    same(dict(in_buckets), wanted, "the uses hour by hour")
    must(began - CLOCK_TOLERANCE_SECONDS < seconds(usage.last_used_time) < time.time() + CLOCK_TOLERANCE_SECONDS,
         "when it was last used")
    until(lambda: usage_of(fixture, imported).totals, "the use of an imported key", USAGE_SECONDS)
    same(counted(fixture, usage_of(fixture, imported).totals), {"VERDICT_ALLOWED": 1}, "the uses of an imported key")
    same(len(usage_of(fixture, idle).totals), 0, "the uses of an idle key")

    key = fixture.operator.call("GetKey", key_id=issued.id).key
    must(key.last_used_time == usage.last_used_time, "the key tells another last use than its usage")
    must(key.secrets[0].last_used_time == usage.last_used_time, "its secret tells another last use")
    must(not fixture.operator.call("GetKey", key_id=idle.id).key.HasField("last_used_time"), "an idle key was used")
    listed = {key.id: key for key in fixture.operator.every_page("ListKeys", "keys", realm=fixture.realm)}
    must(listed[issued.id].last_used_time == usage.last_used_time, "the list tells another last use")

    # Another range holds none of it, and tells of the last use all the same.
    old = usage_of(fixture, issued, start_time=from_now(-10 * 86400), end_time=from_now(-9 * 86400))
    same((len(old.totals), len(old.buckets)), (0, 0), "the uses of another day")
    must(old.last_used_time == usage.last_used_time, "the last use, whatever the range")
    whole = usage_of(fixture, issued, start_time=from_now(-399 * 86400))
    same(counted(fixture, whole.totals), wanted, "the uses of 399 days")
    fixture.operator.refused_field("_time", "GetKeyUsage", key_id=issued.id, start_time=from_now(-402 * 86400),
                                 end_time=from_now(-1))
    fixture.operator.refused_field("_time", "GetKeyUsage", key_id=issued.id, start_time={"seconds": 2**62, "nanos": -1})

    # It outlives the key.
    fixture.operator.call("DeleteKey", key_id=issued.id)
    same(counted(fixture, usage_of(fixture, issued).totals), wanted, "the uses of a deleted key")


@check
def to_call_the_authority_is_to_use_a_key(fixture: Fixture):
    gateway = fixture.key_of_the_authority("verify")
    fixture.expect("VERDICT_ALLOWED", fixture.issue(), caller=fixture.operator.with_key(gateway.plain_key))
    until(lambda: fixture.operator.call("GetKey", key_id=gateway.id).key.HasField("last_used_time"),
          "the use of a gateway's key", USAGE_SECONDS)


@check
def it_is_told_which_text_of_a_key_is_still_in_use(fixture: Fixture):
    old = fixture.issue()
    new = rotate(fixture, old, 600)
    fixture.expect("VERDICT_ALLOWED", old)

    def told():
        secrets = fixture.operator.call("GetKey", key_id=old.id).key.secrets
        return secrets[0].HasField("last_used_time") and secrets

    secrets = until(told, "the use of the old text", USAGE_SECONDS)
    must(not secrets[1].HasField("last_used_time"), "the new text was used")
    fixture.expect("VERDICT_ALLOWED", new)
    until(lambda: fixture.operator.call("GetKey", key_id=old.id).key.secrets[1].HasField("last_used_time"),
          "the use of the new text", USAGE_SECONDS)


@check
def keys_are_found_by_what_somebody_has_of_them(fixture: Fixture):
    realm = realm_of_its_own(fixture)
    early = fixture.issue(realm=realm, name="Nightly Export", labels={"team": "billing"})
    late = fixture.issue(realm=realm, name="import", labels={"team": "bill"})
    began = fixture.operator.call("GetKey", key_id=late.id).key
    border = {"seconds": began.create_time.seconds, "nanos": began.create_time.nanos}
    for filters, wanted in (
        ({"name": "night"}, [early]),
        ({"labels": {"team": "billing"}}, [early]),
        ({"hint": late.key.hint[-4:]}, [late]),
        ({"created_by": early.key.created_by}, [late, early]),
        ({"issued_before": border}, [early]),
        ({"issued_after": border}, [late]),
        ({"name": "night", "labels": {"team": "bill"}}, []),
    ):
        with case(f"keys are listed under {filters}"):
            found = fixture.operator.every_page("ListKeys", "keys", realm=realm, page_size=1, **filters)
            same([key.id for key in found], [key.id for key in wanted], f"the keys under {filters}")
    answer = fixture.operator.call("FindKey", plain_key=early.plain_key)
    same([key.id for key in answer.keys], [early.id], "the key of an API key")
    answer = fixture.operator.call("FindKey", hint=late.key.hint[-4:])
    must(late.id in [key.id for key in answer.keys], "a key is not found by its last characters")
    fixture.operator.refused("FindKey", Code.NOT_FOUND, plain_key="nobody-has-this-api-key-at-all")
    for what, leaf, fields in (("nothing", "key", {}), ("a short hint", "hint", {"hint": "abc"})):
        with case(f"refused: {what}"):
            fixture.operator.refused_field(leaf, "FindKey", **fields)


@check
def keys_are_listed_by_their_use_and_their_end(fixture: Fixture):
    realm = realm_of_its_own(fixture)
    idle, used = fixture.issue(realm=realm), fixture.issue(realm=realm)
    soon = fixture.issue(realm=realm, expire_time=from_now(600))
    late = fixture.issue(realm=realm, expire_time=from_now(7200))
    over = fixture.issue(realm=realm, expire_time=from_now(0.3))
    names = {idle.id: "idle", used.id: "used", soon.id: "soon", late.id: "late", over.id: "over"}

    def listed(**filters) -> list[str]:
        found = fixture.operator.every_page("ListKeys", "keys", realm=realm, page_size=2, **filters)
        return [names[key.id] for key in found]

    def expired() -> bool:
        return fixture.verdict(fixture.verify(over.plain_key, realm=realm)) == "VERDICT_EXPIRED"

    until(expired, "the expiry of a key")
    for filters, wanted in (
        ({"never_expires": True}, ["used", "idle"]),
        ({"expires_within": {"seconds": 3600}}, ["soon"]),
        ({"expires_within": {"seconds": 86_400}}, ["late", "soon"]),
        ({"expires_within": {"seconds": 60}}, []),
        ({"unused_for": {"seconds": 86_400}}, []),
        ({"unused_for": {"seconds": 86_400}, "never_expires": True}, []),
    ):
        with case(f"keys are listed under {filters}"):
            same(listed(**filters), wanted, f"the keys under {filters}")

    def unused() -> bool:
        # In use all the while, though it is told a few seconds late.
        fixture.verify(used.plain_key, realm=realm)
        key = fixture.operator.call("GetKey", key_id=used.id).key
        return key.HasField("last_used_time") and "idle" in listed(unused_for={"seconds": 12}, never_expires=True)

    until(unused, "a key is called unused", 60)
    same(listed(unused_for={"seconds": 12}, never_expires=True), ["idle"], "the unused keys")
    for what, leaf, fields in (
        ("a negative time without use", "unused_for", {"unused_for": {"seconds": -1}}),
        ("a negative time to come", "expires_within", {"expires_within": {"seconds": -1}}),
        ("what no key does", "expires_within", {"expires_within": {"seconds": 86_400}, "never_expires": True}),
        ("no span", "expires_within", {"expires_within": {"seconds": 1, "nanos": -1}}),
    ):
        with case(f"refused in ListKeys: {what}"):
            fixture.operator.refused_field(leaf, "ListKeys", realm=realm, **fields)
    token = fixture.operator.call("ListKeys", realm=realm, never_expires=True, page_size=1).next_page_token
    for other in ({}, {"never_expires": True, "unused_for": {"seconds": 1}}, {"expires_within": {"seconds": 1}}):
        fixture.operator.refused_field("page_token", "ListKeys", realm=realm, page_token=token, **other)


@check
def the_usage_of_owners_is_the_sum_of_that_of_their_keys(fixture: Fixture):
    realm = realm_of_its_own(fixture, record_addresses=True)
    must(fixture.operator.call("GetRealm", realm_id=realm).realm.record_addresses, "record_addresses was not kept")
    whole = fixture.issue(realm=realm)
    one = fixture.issue(realm=realm, project="one")
    other = fixture.issue(realm=realm, partner="umbrella")
    for key, times in ((whole, 1), (one, 3), (other, 2)):
        for _ in range(times):
            fixture.expect("VERDICT_ALLOWED", key, realm=realm, any_target=True, client_ip="2001:db8:1:2:3:4:5:6")
    fixture.expect("VERDICT_SCOPE_MISSING", other, realm=realm, any_target=True, scopes=["admin"], client_ip="192.0.2.1")

    def all_of_them():
        found = fixture.operator.call("GetUsage", realm=realm)
        return sum(count.count for count in found.totals) >= 7 and found

    def owners(found):
        return [(owner.partner, owner.project, counted(fixture, owner.counts)) for owner in found.owners]

    usage = until(all_of_them, "the uses of a realm", USAGE_SECONDS)
    same(counted(fixture, usage.totals), {"VERDICT_ALLOWED": 6, "VERDICT_SCOPE_MISSING": 1}, "the uses of a realm")
    same(owners(usage), [("acme", "", {"VERDICT_ALLOWED": 4}),
                         ("umbrella", "", {"VERDICT_ALLOWED": 2, "VERDICT_SCOPE_MISSING": 1})], "the partners")
    must(not usage.more_owners, "there are more partners")
    denied = fixture.operator.call("GetUsage", realm=realm, rank_by="USAGE_RANK_DENIALS", with_keys=True)
    same([(key.key_id, key.partner, counted(fixture, key.counts)) for key in denied.keys],
         [(other.id, "umbrella", {"VERDICT_ALLOWED": 2, "VERDICT_SCOPE_MISSING": 1})], "the keys that were denied")
    same([owner.partner for owner in denied.owners], ["umbrella"], "the partners that were denied")
    fixture.operator.refused_field("rank_by", "GetUsage", realm=realm, rank_by=9)
    page = fixture.operator.call("ListKeys", realm=realm, page_size=1, with_total=True)
    same((len(page.keys), page.total, page.more_than_total), (1, 3, False), "the total of a list")
    first = fixture.operator.call("GetUsage", realm=realm, top=1)
    same((len(first.owners), first.more_owners), (1, True), "the first partner alone")
    acme = fixture.operator.call("GetUsage", realm=realm, partner="acme", environment="production")
    same(owners(acme), [("acme", "one", {"VERDICT_ALLOWED": 3}), ("acme", "", {"VERDICT_ALLOWED": 1})], "the projects")
    reader = fixture.operator.with_key(fixture.key_of_the_authority("read", realm).plain_key)
    same(owners(reader.call("GetUsage", realm=realm)), owners(usage), "what a reader is told")
    reader.refused("GetUsage", Code.PERMISSION_DENIED, realm=fixture.realm)
    fixture.operator.refused("GetUsage", Code.NOT_FOUND, realm="py-nowhere")
    fixture.operator.refused_field("top", "GetUsage", realm=realm, top=1001)

    def addresses(issued):
        key = fixture.operator.call("GetKey", key_id=issued.id).key
        return key.last_used_address, key.secrets[0].last_used_address

    until(lambda: addresses(one) == ("2001:db8:1:2::/64",) * 2, "the address of the last use", USAGE_SECONDS)
    until(lambda: addresses(other) == ("192.0.2.1",) * 2, "the address of a denied use", USAGE_SECONDS)
    own = fixture.operator.with_key(one.plain_key).call("GetSelf").key
    same((own.last_used_address, own.secrets[0].last_used_address), ("", ""), "what the holder is told")
