"""What a partner may do with a key of its own that holds the realm's admin scope."""

import uuid

from calls import entry, import_keys, old_text, realm_of_its_own, rotate, update
from checks import case, check
from fixture import Code, IssuedKey, Fixture, from_now
from wire import must, same


@check
def a_partners_key_without_an_admin_scope_calls_nothing(fixture: Fixture):
    for fields in ({"full_access": True}, {"scopes": ["admin"]}, {"project": "beta", "full_access": True}):
        issued = fixture.issue(**fields)
        caller = fixture.operator.with_key(issued.plain_key)
        # Nobody that this service knows, or somebody that may not: the contract leaves it open.
        refused = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
        caller.refused("Verify", *refused, **fixture.question(issued.plain_key))
        caller.refused("IssueKey", *refused, **fixture.key_request())
        caller.refused("PutRealm", *refused, realm=fixture.realm_message())
        caller.refused("GetKey", *refused, Code.NOT_FOUND, key_id=issued.id)
        caller.refused("ListKeys", *refused, Code.NOT_FOUND, realm=fixture.realm)


@check
def a_partners_key_with_the_admin_scope_governs_the_keys_beside_it(fixture: Fixture):
    realm = fixture.new_realm_message() | {"admin_scope": "admin"}
    fixture.operator.call("PutRealm", realm=realm)
    for partner in ("acme", "umbrella"):
        fixture.operator.call("PutPartner", partner={"realm": realm["id"], "id": partner})
    fixture.operator.call("PutProject", project={"realm": realm["id"], "id": "beta", "partner": "acme"})

    def request(**fields) -> dict:
        return fixture.key_request(**({"realm": realm["id"], "scopes": ["read"]} | fields))

    mine = fixture.operator.call("IssueKey", **request(scopes=["admin"]))
    foreign = fixture.operator.call("IssueKey", **request(partner="umbrella"))
    staging = fixture.operator.call("IssueKey", **request(environment="staging"))
    owner = fixture.operator.with_key(mine.plain_key)

    issued = owner.call("IssueKey", **request())
    same(issued.key.created_by, mine.key.id, "its maker")
    answer = fixture.verify(issued.plain_key, realm=realm["id"], scopes=["read"])
    same(fixture.verdict(answer), "VERDICT_ALLOWED", "a key that a partner issued")
    listed = {key.id for key in owner.every_page("ListKeys", "keys", realm=realm["id"])}
    same(listed, {mine.key.id, issued.key.id}, "what a partner's key sees")
    owner.call("DisableKey", key_id=issued.key.id)
    owner.call("EnableKey", key_id=issued.key.id)
    owner.call("RevokeKey", key_id=issued.key.id, reason="by its partner")
    answer = fixture.verify(issued.plain_key, realm=realm["id"])
    same(fixture.verdict(answer), "VERDICT_REVOKED", "a key that a partner revoked")

    for what, fields in (
        ("everything", {"scopes": [], "full_access": True}),
        ("another partner's", {"partner": "umbrella"}),
        ("one for staging", {"environment": "staging"}),
        ("an operator's", {"realm": "claviger", "partner": "", "scopes": ["operator"]}),
    ):
        with case(f"a partner's key may not issue {what}"):
            owner.refused("IssueKey", Code.PERMISSION_DENIED, **request(**fields))
    for other in (foreign, staging):
        owner.refused("GetKey", Code.NOT_FOUND, key_id=other.key.id)
        owner.refused("RevokeKey", Code.NOT_FOUND, key_id=other.key.id)
    owner.refused("PutRealm", Code.PERMISSION_DENIED, realm=realm)
    owner.refused("ListEvents", Code.PERMISSION_DENIED, realm=realm["id"])

    # A project's key is held to its project, and keeps its rights no longer than it lives.
    bound = fixture.operator.call("IssueKey", **request(scopes=["admin"], project="beta"))
    project = fixture.operator.with_key(bound.plain_key)
    project.call("IssueKey", **request(project="beta"))
    project.refused("IssueKey", Code.PERMISSION_DENIED, **request())
    project.refused("RevokeKey", Code.NOT_FOUND, key_id=mine.key.id)
    owner.call("RevokeKey", key_id=bound.key.id)
    project.refused("IssueKey", Code.UNAUTHENTICATED, **request(project="beta"))


@check
def a_key_that_is_not_ones_own_does_not_exist_for_the_new_calls_either(fixture: Fixture):
    foreign = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme")
    rotate(fixture, foreign, 600)
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage").plain_key)
    gateway = fixture.operator.with_key(fixture.key_of_the_authority("verify").plain_key)
    never = str(uuid.uuid4())
    calls = (
        ("UpdateKey", {"update_mask": {"paths": ["name"]}, "name": "stolen"}),
        ("RotateKey", {"overlap": {"seconds": 60}}),
        ("EndRotation", {"keep": "KEEP_SECRET_NEW"}),
        ("GetKeyUsage", {}),
    )
    for method, fields in calls:
        with case(f"to a manager a foreign key is NOT_FOUND in {method}, like one that never was"):
            of_foreign = manager.refused(method, Code.NOT_FOUND, key_id=foreign.id, **fields)
            of_never = manager.refused(method, Code.NOT_FOUND, key_id=never, **fields)
            same(of_foreign.message, of_never.message, f"what {method} says of a foreign key and of none")
            fixture.operator.refused(method, Code.NOT_FOUND, key_id=never, **fields)
            for bad in ("not-a-uuid", "", foreign.plain_key):
                fixture.operator.refused_field("key_id", method, key_id=bad, **fields)
        with case(f"a gateway may not {method}"):
            gateway.refused(method, Code.PERMISSION_DENIED, Code.NOT_FOUND, key_id=fixture.issue().id, **fields)
    gateway.refused("ImportKeys", Code.PERMISSION_DENIED, realm=fixture.realm, entries=[entry(fixture, old_text())])
    same(len(fixture.operator.call("GetKey", key_id=foreign.id).key.secrets), 2, "the secrets of the foreign key")

    # A manager does all of it in its own realm.
    issued = fixture.issue()
    new = rotate(fixture, issued, 600, caller=manager)
    same(update(fixture, issued, "name", caller=manager, name="managed").name, "managed", "the name")
    manager.call("EndRotation", key_id=issued.id, keep="KEEP_SECRET_NEW")
    fixture.expect("VERDICT_ALLOWED", new)
    text = old_text()
    [key_id] = import_keys(fixture, entry(fixture, text), caller=manager)
    fixture.expect("VERDICT_ALLOWED", text)
    manager.call("GetKeyUsage", key_id=key_id)


@check
def a_partners_own_key_gives_no_more_than_it_holds_by_the_new_calls(fixture: Fixture):
    scopes = [{"name": "read"}, {"name": "write", "implies": ["read"]}, {"name": "keys"},
              {"name": "owner", "implies": ["write", "keys"]}]
    realm = realm_of_its_own(fixture, admin_scope="keys", scopes=scopes)

    def issue(**fields) -> IssuedKey:
        return fixture.issue(realm=realm, **fields)

    lesser = fixture.operator.with_key(issue(scopes=["read", "keys"], expire_time=from_now(7200)).plain_key)
    bounds = {"expire_time": from_now(3600)}
    reader = issue(scopes=["read"], **bounds)
    for what, leaf, paths, fields in (
        ("a scope that it does not hold", "scopes", ["scopes"], {"scopes": ["write"]}),
        ("everything", "full_access", ["full_access"], {"full_access": True}),
        ("no end", "expire_time", ["expire_time"], {}),
        ("a later end than its own", "expire_time", ["expire_time"], {"expire_time": from_now(8000)}),
    ):
        with case(f"a partner's own key may not give {what}"):
            refusal = lesser.refused("UpdateKey", Code.PERMISSION_DENIED, key_id=reader.id,
                                     update_mask={"paths": paths}, **fields)
            same(refusal.reason, "EXCEEDS_CALLER", "the reason")
            must(any(leaf in field for field in refusal.fields), f"{refusal.fields} instead of {leaf}")
    must(fixture.operator.call("GetKey", key_id=reader.id).key == reader.key, "a refused update changed the key")
    update(fixture, reader, "scopes", "expire_time", caller=lesser, scopes=[], expire_time=from_now(600))
    rotate(fixture, reader, caller=lesser)

    for what, wider in (
        ("more scopes", issue(scopes=["write"], **bounds)),
        ("everything", issue(full_access=True, **bounds)),
        ("no end", issue(scopes=["read"])),
    ):
        with case(f"a partner's own key may not rotate one that has {what}"):
            refusal = lesser.refused("RotateKey", Code.PERMISSION_DENIED, key_id=wider.id)
            same(refusal.reason, "EXCEEDS_CALLER", "the reason")
            new = rotate(fixture, wider, 600)
            refusal = lesser.refused("EndRotation", Code.PERMISSION_DENIED, key_id=wider.id, keep="KEEP_SECRET_OLD")
            same(refusal.reason, "EXCEEDS_CALLER", "the reason")
            lesser.call("EndRotation", key_id=wider.id, keep="KEEP_SECRET_NEW")
            same(fixture.verdict(fixture.verify(new.plain_key, realm=realm)), "VERDICT_ALLOWED", "the new text")
            # It can be narrowed.
            update(fixture, wider, "scopes", caller=lesser, scopes=[])
    for method, fields in (("UpdateKey", {"update_mask": {"paths": ["name"]}}), ("RotateKey", {}),
                           ("EndRotation", {"keep": "KEEP_SECRET_NEW"}), ("GetKeyUsage", {})):
        for other in (issue(partner="umbrella"), issue(environment="staging")):
            lesser.refused(method, Code.NOT_FOUND, key_id=other.id, **fields)
    lesser.refused("ImportKeys", Code.PERMISSION_DENIED, realm=realm, entries=[entry(fixture, old_text())])
    lesser.call("GetKeyUsage", key_id=reader.id)
