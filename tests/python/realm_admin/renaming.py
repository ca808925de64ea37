"""The renaming of a scope, also on the keys that hold it."""

import uuid

from checks import check
from fixture import Code, Fixture
from wire import same


@check
def a_scope_is_renamed_on_the_keys_that_hold_it(fixture: Fixture):
    realm = fixture.new_realm_message()
    put = fixture.operator.call("PutRealm", realm=realm)
    fixture.operator.call("PutPartner", partner={"realm": realm["id"], "id": "acme"})
    issued = fixture.issue(realm=realm["id"], scopes=["write"])
    request = {"realm": realm["id"], "scope": "write", "new_name": "edit"}

    def allowed(scope: str):
        fixture.expect("VERDICT_ALLOWED", issued, realm=realm["id"], scopes=[scope])

    fixture.operator.refused("RenameScope", Code.ABORTED, if_revision=put.realm.revision + 1, **request)
    fixture.operator.refused_field("new_name", "RenameScope", **request | {"new_name": "write"})
    fixture.operator.refused("RenameScope", Code.ALREADY_EXISTS, **request | {"scope": "read", "new_name": "write"})
    fixture.operator.refused("RenameScope", Code.NOT_FOUND, **request | {"scope": "ghost"})
    look = fixture.operator.call("RenameScope", dry_run=True, **request)
    same((look.would_update_keys, look.updated_keys, look.more), (1, 0, False), "what would be changed")
    both = fixture.operator.call("RenameScope", keep_old_scope=True, **request)
    same((both.updated_keys, both.more), (1, False), "what was changed")
    same([scope.replaces for scope in both.realm.scopes if scope.name == "edit"], ["write"], "the unfinished renaming")
    allowed("write")
    allowed("edit")

    request |= {"request_id": str(uuid.uuid4())}
    done = fixture.operator.call("RenameScope", **request)
    same((done.updated_keys, done.more, done.replayed), (0, False, False), "the end")
    again = fixture.operator.call("RenameScope", **request)
    same((again.revision, again.replayed), (done.revision, True), "the second answer")
    allowed("edit")
    fixture.operator.refused_field("scopes", "Verify", **fixture.question(issued.plain_key, realm=realm["id"], scopes=["write"]))
    same(list(fixture.operator.call("GetKey", key_id=issued.id).key.scopes), ["edit"], "the scopes of the key")
    [event] = fixture.operator.call("ListEvents", key_id=issued.id, page_size=1).events
    same((event.kind, event.detail["scopes"]), ("key.updated", "edit"), "the event of the key")
