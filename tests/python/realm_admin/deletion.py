"""What keys depend on is frozen, and what has no keys can be deleted."""

from checks import case, check
from fixture import Code, Fixture, letters
from wire import must, same


@check
def what_keys_depend_on_is_frozen(fixture: Fixture):
    frozen = fixture.realm_message()
    for what, fields in (
        ("the prefix", {"prefix": f"p{letters(8)}e"}),
        ("a tag", {"environments": [{"name": "production", "tag": "other"}, {"name": "staging", "tag": "test"}]}),
        ("an environment", {"environments": [{"name": "production", "tag": "live"}]}),
        ("a scope", {"scopes": [{"name": "read"}]}),
    ):
        with case(f"{what} that keys depend on stays"):
            fixture.operator.refused("PutRealm", Code.FAILED_PRECONDITION, realm=frozen | fields)
    fixture.operator.refused("DeleteRealm", Code.FAILED_PRECONDITION, realm_id=fixture.realm)
    fixture.operator.refused("DeletePartner", Code.FAILED_PRECONDITION, realm=fixture.realm, partner="pages")
    fixture.operator.refused("DeleteProject", Code.FAILED_PRECONDITION, realm=fixture.realm, project="night")


@check
def a_realm_without_keys_is_deleted_with_all_that_is_in_it(fixture: Fixture):
    realm = fixture.new_realm_message()
    put = fixture.operator.call("PutRealm", realm=realm)
    fixture.operator.call("PutPartner", partner={"realm": realm["id"], "id": "acme"})
    fixture.operator.call("PutProject", project={"realm": realm["id"], "id": "beta", "partner": "acme"})
    issued = fixture.issue(realm=realm["id"])
    gateway = fixture.key_of_the_authority("verify", realm["id"])
    fixture.operator.refused("DeleteRealm", Code.FAILED_PRECONDITION, realm_id=realm["id"])
    fixture.operator.call("DeleteKey", key_id=issued.id)
    fixture.operator.refused("DeleteRealm", Code.FAILED_PRECONDITION, realm_id=realm["id"])
    fixture.operator.call("DeleteKey", key_id=gateway.id)
    fixture.operator.refused("DeleteRealm", Code.ABORTED, realm_id=realm["id"], if_revision=put.realm.revision + 1)
    deleted = fixture.operator.call("DeleteRealm", realm_id=realm["id"], if_revision=put.realm.revision)
    fixture.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])
    fixture.operator.refused_field("realm", "Verify", **fixture.question(issued.plain_key, realm=realm["id"]))
    # What was done in it stays on record.
    events = fixture.operator.every_page("ListEvents", "events", realm=realm["id"])
    same((events[0].kind, events[0].revision), ("realm.deleted", deleted.revision), "the last event of the realm")
    must({"realm.put", "partner.put", "project.put", "key.issued", "key.deleted"} <= {e.kind for e in events},
         "its events are gone")
