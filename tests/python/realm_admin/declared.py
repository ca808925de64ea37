"""Declared states, and the audit trail that is followed."""

import calls
from checks import check
from fixture import Code, Fixture
from wire import must, same


@check
def a_declared_state_is_made_true_as_a_whole(fixture: Fixture):
    realm = fixture.new_realm_message()
    text = calls.old_text()
    fixture.secrets.remember(text)
    sha256 = calls.hash_of(text).hex()
    partner = {"realm": realm["id"], "id": "acme"}
    project = {"realm": realm["id"], "partner": "acme", "id": "declared"}
    key = {"sha256": sha256, "partner": realm["id"], "name": "edge", "scopes": ["verify"]}
    state = {"realms": [realm], "partners": [partner], "projects": [project], "keys": [key]}

    planned = fixture.operator.call("Apply", state=state, dry_run=True)
    same([change.after.WhichOneof("resource") for change in planned.changes], ["realm", "partner", "project", "key"],
         "what would be created")
    fixture.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])
    wrong = state | {"partners": [partner, {"realm": "ghost", "id": "acme"}]}
    fixture.operator.refused_field("partners[1].realm", "Apply", state=wrong)
    fixture.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])
    other = state | {"projects": []}
    fixture.operator.refused("Apply", Code.ABORTED, state=other, if_plan=planned.plan)

    done = fixture.operator.call("Apply", state=state, if_plan=planned.plan, wait="WAIT_EVERYWHERE")
    same((len(done.changes), done.plan, done.confirmed), (4, planned.plan, True), "what was created")
    must(done.changes[3].key_id and not done.changes[3].after.key.sha256, "the new key has an id, and shows no hash")
    again = fixture.operator.call("Apply", state=state)
    same((len(again.changes), again.revision), (0, done.revision), "the second time")

    gateway = fixture.operator.with_key(text)
    answer = gateway.call("Verify", **fixture.question("nothing", realm=realm["id"]))
    must(answer.verdict, "the declared gateway's question has no answer")
    gateway.refused("Apply", Code.PERMISSION_DENIED, state=state, dry_run=True)

    named = state | {"keys": [key | {"name": "core"}], "partners": [partner | {"suspended": True}]}
    changed = fixture.operator.call("Apply", state=named)
    same([(change.before.WhichOneof("resource"), change.after.WhichOneof("resource")) for change in changed.changes],
         [("partner", "partner"), ("key", "key")], "what was changed")
    fixture.operator.call("Apply", state=named | {"partners": [partner | {"suspended": True, "display_name": "Acme"}]})
    fixture.operator.call("Apply", state=named | {"partners": [partner | {"suspended": False}]})
    suspensions = fixture.operator.call("ListEvents", kinds=["partner.suspended", "partner.restored"], realm=realm["id"])
    same([(event.kind, event.partner, event.detail["suspension"]) for event in suspensions.events],
         [("partner.put", partner["id"], "ended"), ("partner.put", partner["id"], "began")],
         "the suspension in the audit trail")
    same((changed.changes[1].before.key.name, changed.changes[1].after.key.name), ("edge", "core"), "the names")
    gone = fixture.operator.call("Apply", state={"realms": [realm], "keys": [key]}, prune=["DECLARED_KIND_PROJECT"])
    must(any(change.before.project.id == "declared" and not change.HasField("after") for change in gone.changes),
         "the project that is not declared stays")


@check
def the_audit_trail_is_followed_from_a_revision(fixture: Fixture):
    before = fixture.operator.call("ListEvents", page_size=1).revision
    put = fixture.operator.call("PutPartner", partner={"realm": fixture.realm, "id": "followed"})
    followed = fixture.operator.call("ListEvents", after_revision=before, kind="partner.put")
    must(put.revision in [event.revision for event in followed.events], "the change is not there")
    must(followed.revision >= put.revision, "the revision to go on from")
    fixture.operator.refused_field("page_token", "ListEvents", after_revision=before, page_token="x")
