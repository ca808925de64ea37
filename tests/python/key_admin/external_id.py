"""Ids of another system."""

import uuid

from google.rpc import error_details_pb2

from calls import entry, import_keys, import_one, old_text, realm_of_its_own, rotate, update
from checks import case, check
from fixture import Code, Fixture
from wire import Refusal, must, same


def is_taken(refusal: Refusal, holder: str):
    same((refusal.code, refusal.reason), (Code.ALREADY_EXISTS, "EXTERNAL_ID_TAKEN"), "the refusal")
    same(refusal.fields, ["external_id"], "the field")
    info = refusal.detail(error_details_pb2.ErrorInfo)
    same(info.metadata["key_id"], holder, "the key that has it")


def found(fixture: Fixture, external_id: str, caller=None) -> list:
    keys = (caller or fixture.operator).every_page("ListKeys", "keys", realm=fixture.realm, external_id=external_id)
    return [key.id for key in keys]


@check
def a_key_is_found_by_the_id_of_another_system(fixture: Fixture):
    external_id = str(uuid.uuid4())
    issued = fixture.issue(external_id=external_id)
    same(issued.key.external_id, external_id, "the external id")
    same(found(fixture, external_id), [issued.id], "the keys with it")
    same(found(fixture, external_id.upper()), [], "the keys with it in capitals")
    rotate(fixture, issued, 600)
    same(fixture.operator.call("GetKey", key_id=issued.id).key.external_id, external_id, "it after a rotation")
    text, old_id = old_text(), str(uuid.uuid4())
    imported = import_one(fixture, text, external_id=old_id)
    same(found(fixture, old_id), [imported.id], "the imported keys with it")
    answer = fixture.expect("VERDICT_ALLOWED", text)
    must(old_id not in str(answer), "a Verify tells it")
    longest = "é" * 96 + uuid.uuid4().hex
    same(update(fixture, issued, "external_id", external_id=longest).external_id, longest, "the longest one")
    same(update(fixture, issued, "external_id").external_id, "", "it after it was removed")
    same(found(fixture, longest), [], "the keys with what was removed")


@check
def an_external_id_is_taken_until_its_key_is_deleted(fixture: Fixture):
    external_id = str(uuid.uuid4())
    issued, other = fixture.issue(external_id=external_id), fixture.issue()
    manager = fixture.operator.with_key(fixture.key_of_the_authority("manage").plain_key)
    for end in ("", "DisableKey", "RevokeKey"):
        if end:
            fixture.operator.call(end, key_id=issued.id)
        for caller in (fixture.operator, manager):
            with case(f"taken after {end or 'its issue'}"):
                request = fixture.key_request(partner="globex", external_id=external_id)
                is_taken(caller.refused("IssueKey", **request), issued.id)
                mask = {"paths": ["external_id"]}
                refusal = caller.refused("UpdateKey", key_id=other.id, update_mask=mask, external_id=external_id)
                is_taken(refusal, issued.id)
                for dry_run in (True, False):
                    rows = [entry(fixture, old_text(), external_id=external_id)]
                    [result] = import_keys(fixture, *rows, caller=caller, dry_run=dry_run)
                    same((result.code, result.reason), (Code.ALREADY_EXISTS, "EXTERNAL_ID_TAKEN"), "the result")
                    same(result.metadata.get("key_id"), issued.id, "the key that has it")
    fixture.operator.call("DeleteKey", key_id=issued.id)
    again = update(fixture, other, "external_id", external_id=external_id)
    same(again.external_id, external_id, "what was freed")

    rows = [entry(fixture, old_text(), external_id=f"{external_id} twice") for _ in range(2)]
    for dry_run in (True, False):
        first, second = import_keys(fixture, *rows, dry_run=dry_run)
        must(isinstance(first, str), f"the first was not imported: {first}")
        same((second.code, second.reason, second.fields),
             (Code.ALREADY_EXISTS, "EXTERNAL_ID_TAKEN", ["external_id"]), "the second")
    # Another realm has ids of its own.
    fixture.issue(realm=realm_of_its_own(fixture), external_id=external_id)


@check
def a_partners_own_key_does_not_choose_external_ids(fixture: Fixture):
    realm = realm_of_its_own(fixture, admin_scope="admin")
    owner = fixture.operator.with_key(fixture.issue(realm=realm, scopes=["admin"]).plain_key)
    issued = fixture.issue(realm=realm, scopes=["read"], external_id="known")
    same(owner.call("GetKey", key_id=issued.id).key.external_id, "known", "what it sees")
    listed = owner.every_page("ListKeys", "keys", realm=realm, external_id="known")
    same([key.id for key in listed], [issued.id], "what it finds")
    for external_id in ("free", "known"):
        request = fixture.key_request(realm=realm, scopes=["read"], external_id=external_id)
        refusal = owner.refused("IssueKey", Code.PERMISSION_DENIED, **request)
        must("external_id" in refusal.message, f"{refusal.message} does not name the field")
    for external_id in ("free", "known", ""):
        owner.refused("UpdateKey", Code.PERMISSION_DENIED, key_id=issued.id, external_id=external_id,
                      update_mask={"paths": ["external_id"]})
    same(fixture.operator.call("GetKey", key_id=issued.id).key.external_id, "known", "the external id")
