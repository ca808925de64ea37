"""Realms, partners and projects: put, read and listed."""

import copy
import time
import uuid

import keytext
from checks import case, check
from fixture import MAX_CACHE_SECONDS, Code, Fixture, letters, seconds
from wire import must, same


@check
def a_realm_is_put_and_read_and_listed(fixture: Fixture):
    put = fixture.operator.call("PutRealm", realm=fixture.realm_message())
    fixture.first_revision = put.revision
    realm = put.realm
    same((realm.id, realm.prefix), (fixture.realm, fixture.prefix), "the realm")
    same([(e.name, e.tag) for e in realm.environments], [("production", "live"), ("staging", "test")], "environments")
    implied = {scope.name: list(scope.implies) for scope in realm.scopes}
    same(implied, {"read": [], "write": ["read"], "admin": ["write"]}, "the scope hierarchy")
    same(fixture.schema.name("UnscopedKeys", realm.unscoped_keys), "UNSCOPED_KEYS_NO_ACCESS", "unscoped keys")
    levels = {fixture.schema.name("KeyLevel", level) for level in realm.levels}
    same(levels, {"KEY_LEVEL_PARTNER", "KEY_LEVEL_PROJECT"}, "the levels")
    same(seconds(realm.max_cache), MAX_CACHE_SECONDS, "max_cache")
    same(realm.revision, put.revision, "the revision of the realm")
    must(abs(time.time() - seconds(realm.create_time)) < 60, "the realm was made another day")

    got = fixture.operator.call("GetRealm", realm_id=fixture.realm)
    must(got.realm == realm, "the realm is read otherwise than it was put")
    must(got.revision >= put.revision, "the state that was read lies before the change")

    listed = fixture.operator.every_page("ListRealms", "realms", page_size=2)
    ids = [realm.id for realm in listed]
    same(ids, sorted(ids), "the order of the realms")
    must(fixture.realm in ids, "the realm is not listed")
    same(len(ids), len(set(ids)), "the number of different realms")


@check
def realms_of_other_rules_are_put_beside_it(fixture: Fixture):
    fixture.operator.call("PutRealm", realm=fixture.plain_realm_message())
    fixture.operator.call("PutRealm", realm=fixture.short_realm_message())


@check
def the_same_put_again_changes_nothing(fixture: Fixture):
    before = fixture.operator.call("GetRealm", realm_id=fixture.realm).realm
    again = fixture.operator.call("PutRealm", realm=fixture.realm_message())
    must(again.realm == before, "the realm was changed by the same put")
    events = fixture.operator.every_page("ListEvents", "events", realm=fixture.realm, kind="realm.put")
    same([event.revision for event in events], [fixture.first_revision], "the puts of the realm in the audit trail")
    detail = events[0].detail
    same(detail["created"], "true", "whether the put created the realm")
    must(len(detail["definition_sha256"]) == 64, "the event has no SHA-256 of the definition")


@check
def a_put_on_an_old_revision_is_aborted(fixture: Fixture):
    realm = fixture.operator.call("GetRealm", realm_id=fixture.realm).realm
    changed = fixture.realm_message() | {"max_cache": {"seconds": 1}}
    for wrong in (0, realm.revision - 1, realm.revision + 1):
        fixture.operator.refused("PutRealm", Code.ABORTED, realm=changed, if_revision=wrong)
    same(fixture.operator.call("GetRealm", realm_id=fixture.realm).realm, realm, "the realm after refused puts")

    put = fixture.operator.call("PutRealm", realm=changed, if_revision=realm.revision)
    same(put.realm.revision, put.revision, "the revision of a changed realm")
    must(put.revision > realm.revision, "a change does not raise the revision")
    same(put.realm.create_time, realm.create_time, "the time at which it was first made")
    fixture.operator.refused("PutRealm", Code.ABORTED, realm=fixture.realm_message(), if_revision=realm.revision)
    fixture.operator.call("PutRealm", realm=fixture.realm_message(), if_revision=put.revision)


@check
def no_two_realms_have_one_prefix(fixture: Fixture):
    codes = (Code.ALREADY_EXISTS, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
    for prefix in (fixture.prefix, keytext.Parts(fixture.operator_text).prefix):
        realm = fixture.new_realm_message() | {"prefix": prefix}
        fixture.operator.refused("PutRealm", *codes, realm=realm)
        fixture.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])


@check
def the_built_in_realm_is_readable_and_cannot_be_changed(fixture: Fixture):
    realm = fixture.operator.call("GetRealm", realm_id="claviger").realm
    must({"operator", "manage", "verify"} <= {scope.name for scope in realm.scopes}, "a built-in scope is missing")
    changed = copy.deepcopy(realm)
    changed.max_cache.seconds += 1
    # The contract names no code for this.
    codes = (Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED)
    fixture.operator.refused("PutRealm", *codes, realm=changed)
    fixture.operator.refused("DeleteRealm", *codes, realm_id="claviger")


@check
def partners_are_put_and_read_and_listed(fixture: Fixture):
    # Case counts, and an address as an id is as good as a word.
    for partner in ("acme", "Acme", "globex", "sleepy", "pages", "shop@example.com"):
        message = {"realm": fixture.realm, "id": partner, "display_name": f"Partner {partner} ☂"}
        put = fixture.operator.call("PutPartner", partner=message)
        same((put.partner.realm, put.partner.id), (fixture.realm, partner), "the partner")
        same(put.partner.display_name, message["display_name"], "its display name")
        same(put.partner.suspended, False, "it is suspended")
        same(put.partner.revision, put.revision, "its revision")
        got = fixture.operator.call("GetPartner", realm=fixture.realm, partner=partner)
        must(got.partner == put.partner, "the partner is read otherwise than it was put")
    for realm in (fixture.plain_realm, fixture.short_realm):
        fixture.operator.call("PutPartner", partner={"realm": realm, "id": "acme"})
    listed = fixture.operator.every_page("ListPartners", "partners", realm=fixture.realm, page_size=2)
    wanted = sorted(["acme", "Acme", "globex", "sleepy", "pages", "shop@example.com"])
    same([partner.id for partner in listed], wanted, "the partners")


@check
def projects_are_put_and_listed(fixture: Fixture):
    for project, partner in (("mtKDhe1U", "acme"), ("beta", "acme"), ("gamma", "globex"), ("night", "sleepy")):
        message = {"realm": fixture.realm, "id": project, "partner": partner, "display_name": "A project"}
        put = fixture.operator.call("PutProject", project=message)
        same((put.project.realm, put.project.id, put.project.partner), (fixture.realm, project, partner), "the project")
    everything = fixture.operator.every_page("ListProjects", "projects", realm=fixture.realm, page_size=3)
    same([p.id for p in everything], sorted(["mtKDhe1U", "beta", "gamma", "night"]), "the projects of the realm")
    of_one = fixture.operator.every_page("ListProjects", "projects", realm=fixture.realm, partner="acme")
    same([p.id for p in of_one], ["beta", "mtKDhe1U"], "the projects of one partner")


@check
def the_same_put_of_a_partner_or_project_changes_nothing(fixture: Fixture):
    partner = fixture.operator.call("GetPartner", realm=fixture.realm, partner="acme").partner
    again = fixture.operator.call("PutPartner", partner=partner)
    must(again.partner == partner, "the partner was changed by the same put")
    project = fixture.operator.call("ListProjects", realm=fixture.realm, partner="acme").projects[0]
    again = fixture.operator.call("PutProject", project=project)
    must(again.project == project, "the project was changed by the same put")


@check
def an_old_revision_of_a_partner_or_project_is_aborted(fixture: Fixture):
    partner = {"realm": fixture.realm, "id": "acme", "display_name": "other"}
    revision = fixture.operator.call("GetPartner", realm=fixture.realm, partner="acme").partner.revision
    fixture.operator.refused("PutPartner", Code.ABORTED, partner=partner, if_revision=0)
    fixture.operator.refused("PutPartner", Code.ABORTED, partner=partner, if_revision=revision - 1)
    fixture.operator.refused(
        "DeletePartner", Code.ABORTED, realm=fixture.realm, partner="shop@example.com", if_revision=revision - 1
    )
    project = {"realm": fixture.realm, "id": "beta", "partner": "acme", "display_name": "other"}
    fixture.operator.refused("PutProject", Code.ABORTED, project=project, if_revision=0)
    fixture.operator.call("PutPartner", partner=partner, if_revision=revision)


@check
def a_project_stays_with_its_partner_for_ever(fixture: Fixture):
    taken = {"realm": fixture.realm, "id": "gamma", "partner": "acme"}
    fixture.operator.refused("PutProject", Code.FAILED_PRECONDITION, project=taken)
    own = {"realm": fixture.realm, "id": "passing", "partner": "globex"}
    fixture.operator.call("PutProject", project=own)
    fixture.operator.call("DeleteProject", realm=fixture.realm, project="passing")
    fixture.operator.refused("PutProject", Code.FAILED_PRECONDITION, project=own | {"partner": "acme"})
    fixture.operator.call("PutProject", project=own)


@check
def what_does_not_exist_is_not_found(fixture: Fixture):
    unknown = f"py-{letters(10)}"
    for method, fields in (
        ("GetRealm", {"realm_id": unknown}),
        ("DeleteRealm", {"realm_id": unknown}),
        ("GetPartner", {"realm": fixture.realm, "partner": "nobody"}),
        ("DeletePartner", {"realm": fixture.realm, "partner": "nobody"}),
        ("PutProject", {"project": {"realm": fixture.realm, "id": "new", "partner": "nobody"}}),
        ("DeleteProject", {"realm": fixture.realm, "project": "nothing"}),
        *((method, {"key_id": str(uuid.uuid4())})
          for method in ("GetKey", "GetKeyScopes", "DisableKey", "EnableKey", "RevokeKey", "DeleteKey")),
    ):
        with case(f"{method} of what does not exist is NOT_FOUND"):
            fixture.operator.refused(method, Code.NOT_FOUND, **fields)
