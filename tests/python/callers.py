"""Who may call: gateways, managers, and nobody without a good credential."""

import uuid

import keytext
from checks import case, check
from fixture import Code, Fixture, letters
from wire import must, same


@check
def a_caller_without_a_good_credential_is_unauthenticated(fixture: Fixture):
    issued = fixture.issue()
    deleted = fixture.key_of_the_authority("verify")
    fixture.operator.call("DeleteKey", key_id=deleted.id)
    disabled = fixture.key_of_the_authority("verify")
    fixture.operator.call("DisableKey", key_id=disabled.id)
    revoked = fixture.key_of_the_authority("verify")
    fixture.operator.call("RevokeKey", key_id=revoked.id)
    good = fixture.operator_text
    for what, header in (
        ("none", None),
        ("an empty one", ""),
        ("no key", "Bearer "),
        ("garbage", "Bearer garbage"),
        ("garbage of another scheme", "Basic b3BlcmF0b3I6"),
        ("a good key under another scheme", f"Basic {good}"),
        ("a good key without a scheme", good),
        ("a key with a typing error", f"Bearer {keytext.with_one_character_changed(good, -1)}"),
        ("a forged key", f"Bearer {keytext.with_another_secret(good)}"),
        ("5,000 bytes", "Bearer " + "x" * 5000),
        ("a deleted key", f"Bearer {deleted.plain_key}"),
        ("a disabled key", f"Bearer {disabled.plain_key}"),
        ("a revoked key", f"Bearer {revoked.plain_key}"),
    ):
        with case(f"unauthenticated: {what}"):
            caller = fixture.operator.with_header(header)
            caller.refused("Verify", Code.UNAUTHENTICATED, **fixture.question(issued.plain_key))
            caller.refused("GetKey", Code.UNAUTHENTICATED, key_id=issued.id)
            caller.refused("IssueKey", Code.UNAUTHENTICATED, **fixture.key_request())
            caller.refused("GetRealm", Code.UNAUTHENTICATED, realm_id=fixture.realm)


@check
def a_gateway_may_verify_in_its_realm_and_nothing_else(fixture: Fixture):
    issued = fixture.issue()
    gateway_key = fixture.key_of_the_authority("verify")
    gateway = fixture.operator.with_key(gateway_key.plain_key)
    fixture.expect("VERDICT_ALLOWED", issued, caller=gateway)
    fixture.expect("VERDICT_UNKNOWN", keytext.with_another_secret(issued.plain_key), caller=gateway)
    batch = gateway.call("VerifyBatch", requests=[
        fixture.question(issued.plain_key),
        fixture.question(issued.plain_key, realm=fixture.plain_realm, environment=""),
    ])
    same(fixture.verdict(batch.results[0].response), "VERDICT_ALLOWED", "its own realm in a batch")
    same(batch.results[1].error.code, Code.PERMISSION_DENIED.value[0], "another realm in a batch")

    for realm in (fixture.plain_realm, "claviger"):
        question = fixture.question(issued.plain_key, realm=realm, environment="")
        gateway.refused("Verify", Code.PERMISSION_DENIED, **question)
    # A realm that does not exist may be an unknown field or simply not this gateway's.
    nowhere = fixture.question(issued.plain_key, realm=f"py-{letters(10)}")
    gateway.refused("Verify", Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT, **nowhere)

    gateway.refused("IssueKey", Code.PERMISSION_DENIED, **fixture.key_request())
    gateway.refused("PutRealm", Code.PERMISSION_DENIED, realm=fixture.realm_message())
    # What a caller may not know of does not exist for it, so either of two codes.
    hidden = (Code.PERMISSION_DENIED, Code.NOT_FOUND)
    for method, fields in (
        ("GetKey", {"key_id": issued.id}),
        ("GetKeyScopes", {"key_id": issued.id}),
        ("DisableKey", {"key_id": issued.id}),
        ("EnableKey", {"key_id": issued.id}),
        ("RevokeKey", {"key_id": issued.id}),
        ("DeleteKey", {"key_id": issued.id}),
        ("RevokeKey", {"key_id": gateway_key.id}),
        ("ListKeys", {"realm": fixture.realm}),
        ("ListEvents", {"realm": fixture.realm}),
        ("DeleteRealm", {"realm_id": fixture.realm}),
        ("PutPartner", {"partner": {"realm": fixture.realm, "id": "intruder"}}),
        ("DeletePartner", {"realm": fixture.realm, "partner": "acme"}),
        ("PutProject", {"project": {"realm": fixture.realm, "id": "intruder", "partner": "acme"}}),
        ("DeleteProject", {"realm": fixture.realm, "project": "beta"}),
    ):
        with case(f"a gateway may not {method}"):
            gateway.refused(method, *hidden, **fields)
    fixture.expect("VERDICT_ALLOWED", issued, caller=gateway)


@check
def a_gateway_is_shut_out_at_once_when_its_key_is_revoked(fixture: Fixture):
    issued = fixture.issue()
    gateway_key = fixture.key_of_the_authority("verify")
    gateway = fixture.operator.with_key(gateway_key.plain_key)
    fixture.expect("VERDICT_ALLOWED", issued, caller=gateway)
    fixture.operator.call("RevokeKey", key_id=gateway_key.id, reason="the gateway is gone")
    gateway.refused("Verify", Code.UNAUTHENTICATED, **fixture.question(issued.plain_key))


@check
def a_manager_governs_its_own_realm(fixture: Fixture):
    manager_key = fixture.key_of_the_authority("manage")
    manager = fixture.operator.with_key(manager_key.plain_key)
    same(manager.call("GetRealm", realm_id=fixture.realm).realm.id, fixture.realm, "its realm")
    realms = manager.every_page("ListRealms", "realms")
    same([realm.id for realm in realms if realm.id != "claviger"], [fixture.realm], "its realms")
    manager.call("PutPartner", partner={"realm": fixture.realm, "id": "managed"})
    manager.call("PutProject", project={"realm": fixture.realm, "id": "of-managed", "partner": "managed"})
    issued = fixture.issue(caller=manager, partner="managed", scopes=["admin"])
    same(issued.key.created_by, manager_key.id, "the issuer")
    fixture.expect("VERDICT_ALLOWED", issued, scopes=["admin"])
    must(issued.id in [key.id for key in manager.every_page("ListKeys", "keys", realm=fixture.realm)], "its own key")
    manager.call("DisableKey", key_id=issued.id)
    fixture.expect("VERDICT_DISABLED", issued)
    events = manager.every_page("ListEvents", "events", realm=fixture.realm, key_id=issued.id)
    same([event.actor for event in events], [manager_key.id] * 2, "the actor")
    manager.call("DeleteKey", key_id=issued.id)


@check
def a_manager_does_not_reach_beyond_its_realm(fixture: Fixture):
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage").plain_key)
    foreign = fixture.issue_exactly(realm=fixture.plain_realm, partner="acme")
    never = str(uuid.uuid4())
    for method in ("GetKey", "GetKeyScopes", "DisableKey", "EnableKey", "RevokeKey", "DeleteKey"):
        with case(f"to a manager a foreign key is NOT_FOUND in {method}, like one that never was"):
            of_foreign = manager.refused(method, Code.NOT_FOUND, key_id=foreign.id)
            of_never = manager.refused(method, Code.NOT_FOUND, key_id=never)
            same(of_foreign.message.replace(foreign.id, "ID"), of_never.message.replace(never, "ID"),
                 f"what {method} says of a foreign key and of none")
    fixture.expect("VERDICT_ALLOWED", foreign, realm=fixture.plain_realm, environment="")

    manager.refused("PutRealm", Code.PERMISSION_DENIED, realm=fixture.new_realm_message())
    # "May not" or "does not exist": the contract leaves open which of them a foreign realm is.
    hidden = (Code.PERMISSION_DENIED, Code.NOT_FOUND)
    manager.refused("DeleteRealm", *hidden, realm_id=fixture.realm)
    manager.refused("GetRealm", *hidden, realm_id=fixture.plain_realm)
    manager.refused("ListKeys", *hidden, realm=fixture.plain_realm)
    manager.refused("ListEvents", *hidden, realm=fixture.plain_realm)
    manager.refused("ListPartners", *hidden, realm=fixture.plain_realm)
    manager.refused("PutPartner", *hidden, partner={"realm": fixture.plain_realm, "id": "intruder"})
    manager.refused("DeletePartner", *hidden, realm=fixture.plain_realm, partner="acme")
    manager.refused("IssueKey", *hidden, realm=fixture.plain_realm, partner="acme")
    # The built-in realm is not its own, so it makes neither operators nor gateways nor its like.
    for scope in ("operator", "manage", "verify"):
        manager.refused("IssueKey", *hidden, realm="claviger", partner=fixture.realm, scopes=[scope])
    manager.refused("ListEvents", *hidden, Code.INVALID_ARGUMENT)
