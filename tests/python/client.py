"""An independent client of claviger: does a running server keep what the contract promises?

    CLAVIGER_ENDPOINT=127.0.0.1:7700 CLAVIGER_KEY=... python client.py
    python client.py --self-test

`CLAVIGER_KEY` is the text of an operator's key. Everything is made anew in realms with a random name, so the program
can be run on the same server again and again. It ends at the first promise that is not kept, with a traceback in which
no key is shown, and exit code 1.

The checks run in the order in which they stand here. Where the contract leaves more than one answer open, the check
takes each of them and a comment says so.
"""

import base64
import collections
import contextlib
import copy
import dataclasses
import hashlib
import ipaddress
import os
import random
import string
import sys
import time
import traceback
import uuid

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

import keytext
from wire import DEADLINE_SECONDS, PACKAGE, SERVICES, Caller, Refusal, Schema, Secrets, connect, must, same

Code = grpc.StatusCode

MAX_CACHE_SECONDS = 5
# Both clocks are those of one machine, or nearly so.
CLOCK_TOLERANCE_SECONDS = 5
PROVEN_NOTHING = ("VERDICT_MALFORMED", "VERDICT_UNKNOWN")

passed = 0


def ok(sentence: str):
    global passed
    passed += 1
    print(f"ok: {sentence}", flush=True)


@contextlib.contextmanager
def case(sentence: str):
    """One row of a table: passed when its block is, and named when it is not."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in the case: {sentence}")
        raise
    ok(sentence)


CHECKS = []


def check(function):
    """Marks a function as a check. Its name is its sentence."""
    CHECKS.append(function)
    return function


# ---- the world in which the checks take place ------------------------------------------------------------------------


@dataclasses.dataclass
class Issued:
    """A key and its text; the text is kept out of every representation."""

    key: object
    text: str = dataclasses.field(repr=False)

    @property
    def id(self) -> str:
        return self.key.id


def letters(count: int) -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=count))


class World:
    """One realm with two partners and their projects, and two realms more which differ in their rules."""

    def __init__(self, channel: grpc.Channel, secrets: Secrets, operator_key: str):
        self.channel, self.secrets = channel, secrets
        self.schema = Schema(channel)
        self.operator = Caller(channel, self.schema, secrets, key=operator_key)
        self.nobody = self.operator.with_header(None)
        self.operator_text = operator_key
        self.operator_id = keytext.Parts(operator_key).key_id

        suffix = letters(8)
        self.realm, self.prefix = f"py-{suffix}", f"p{suffix}a"
        # One environment, one level, and full access for who asks for no scope.
        self.plain_realm, self.plain_prefix = f"py-{suffix}-plain", f"p{suffix}b"
        # Keys live for an hour at the most.
        self.short_realm, self.short_prefix = f"py-{suffix}-short", f"p{suffix}c"
        self.first_revision = 0

    # What a realm is put as. Each call makes it anew, so that a check may change its copy.

    def realm_message(self) -> dict:
        return {
            "id": self.realm,
            "prefix": self.prefix,
            "environments": [{"name": "production", "tag": "live"}, {"name": "staging", "tag": "test"}],
            "scopes": [
                {"name": "read", "description": "reads"},
                {"name": "write", "implies": ["read"], "description": "reads and writes"},
                {"name": "admin", "implies": ["write"]},
            ],
            "unscoped_keys": "UNSCOPED_KEYS_NO_ACCESS",
            "levels": ["KEY_LEVEL_PARTNER", "KEY_LEVEL_PROJECT"],
            "max_cache": {"seconds": MAX_CACHE_SECONDS},
        }

    def plain_realm_message(self) -> dict:
        return {
            "id": self.plain_realm,
            "prefix": self.plain_prefix,
            "environments": [{"name": "main", "tag": "m"}],
            "scopes": [{"name": "use"}, {"name": "audit"}],
            "unscoped_keys": "UNSCOPED_KEYS_FULL_ACCESS",
            "levels": ["KEY_LEVEL_PARTNER"],
        }

    def short_realm_message(self) -> dict:
        return {
            "id": self.short_realm,
            "prefix": self.short_prefix,
            "environments": [{"name": "main", "tag": "m"}],
            "levels": ["KEY_LEVEL_PARTNER"],
            "max_lifetime": {"seconds": 3600},
        }

    def new_realm_message(self) -> dict:
        """A good realm that does not exist, to be spoilt by a check."""
        name = letters(8)
        return self.realm_message() | {"id": f"py-{name}", "prefix": f"p{name}d"}

    # Keys.

    def key_request(self, **fields) -> dict:
        """A good request for a key of the main realm: a partner key, unless a project is named."""
        request = {"realm": self.realm, "partner": "acme", "environment": "production", "name": "python check"}
        if "project" not in fields:
            request["level"] = "KEY_LEVEL_PARTNER"
        return request | fields

    def issue(self, caller: Caller | None = None, **fields) -> Issued:
        response = (caller or self.operator).call("IssueKey", **self.key_request(**fields))
        return Issued(response.key, response.plain_key)

    def issue_exactly(self, **fields) -> Issued:
        """With nothing filled in."""
        response = self.operator.call("IssueKey", **fields)
        return Issued(response.key, response.plain_key)

    def key_of_the_authority(self, scope: str, realm: str | None = None) -> Issued:
        """A key of a gateway or manager: one of the built-in realm, whose partner is the realm it serves."""
        return self.issue_exactly(realm="claviger", partner=realm or self.realm, scopes=[scope], name=f"python {scope}")

    def level_of(self, key) -> str:
        return self.schema.name("KeyLevel", key.level)

    def state_of(self, key) -> str:
        return self.schema.name("KeyState", key.state)

    # Questions.

    def question(self, text: str, **fields) -> dict:
        """A good question of the main realm. No target stands in it: a partner-wide request."""
        self.secrets.remember(text)
        return {"key": text, "realm": self.realm, "environment": "production"} | fields

    def verify(self, text: str, caller: Caller | None = None, **fields):
        return (caller or self.operator).call("Verify", **self.question(text, **fields))

    def verdict(self, response) -> str:
        return self.schema.name("Verdict", response.verdict)

    def expect(self, verdict: str, issued: Issued | str, caller: Caller | None = None, **fields):
        """Asks, and checks the verdict and all that holds of every answer."""
        text = issued if isinstance(issued, str) else issued.text
        response = self.verify(text, caller, **fields)
        same(self.verdict(response), verdict, "the verdict")
        self.holds_of_every_answer(response)
        if verdict not in PROVEN_NOTHING and isinstance(issued, Issued):
            same(response.key.id, issued.id, "the id of the proven key")
        return response

    def holds_of_every_answer(self, response):
        verdict = self.verdict(response)
        same(response.HasField("key"), verdict not in PROVEN_NOTHING, f"with {verdict} the key is told")
        if verdict != "VERDICT_SCOPE_MISSING":
            same(list(response.missing_scopes), [], f"the missing scopes with {verdict}")
        must(response.revision >= self.operator.revision, "the answer does not know of the last change")
        must(0 <= seconds(response.cache_for) <= MAX_CACHE_SECONDS, "cache_for goes beyond the realm's max_cache")
        age = time.time() - seconds(response.as_of)
        must(-CLOCK_TOLERANCE_SECONDS < age < 60, f"the answer is {age:.1f} seconds old")


def seconds(span_or_time) -> float:
    return span_or_time.seconds + span_or_time.nanos / 1e9


def from_now(delay: float) -> dict:
    """A timestamp, in whole microseconds so that a store of that precision can give it back unchanged."""
    micros = int((time.time() + delay) * 1_000_000)
    return {"seconds": micros // 1_000_000, "nanos": micros % 1_000_000 * 1000}


def until(condition, what: str, deadline_seconds: float = 10):
    """Asks again and again until it holds."""
    deadline = time.monotonic() + deadline_seconds
    while True:
        found = condition()
        if found:
            return found
        must(time.monotonic() < deadline, f"did not come within {deadline_seconds} s: {what}")
        time.sleep(0.05)


# ---- health and reflection -------------------------------------------------------------------------------------------


@check
def every_service_is_healthy_without_a_credential(world: World):
    health = health_pb2_grpc.HealthStub(world.channel)
    for service in ("", *(f"{PACKAGE}.{name}" for name in SERVICES)):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_SECONDS)
        same(answer.status, health_pb2.HealthCheckResponse.SERVING, f"the health of {service!r}")


@check
def the_health_of_an_unknown_service_is_not_found(world: World):
    health = health_pb2_grpc.HealthStub(world.channel)
    try:
        health.Check(health_pb2.HealthCheckRequest(service="claviger.v1.Nothing"), timeout=DEADLINE_SECONDS)
    except grpc.RpcError as error:
        same(error.code(), Code.NOT_FOUND, "the code")
    else:
        raise AssertionError("an unknown service has a health")


@check
def reflection_lists_the_services_without_a_credential(world: World):
    listed = set(world.schema.database.get_services())
    wanted = {f"{PACKAGE}.{name}" for name in SERVICES} | {"grpc.health.v1.Health"}
    must(wanted <= listed, f"reflection does not list {sorted(wanted - listed)}")


@check
def reflection_tells_that_a_plain_key_is_to_be_redacted(world: World):
    for method, message, field in (("IssueKey", "response", "plain_key"), ("Verify", "request", "key")):
        descriptor = getattr(world.schema, message)(method).DESCRIPTOR
        must(descriptor.fields_by_name[field].GetOptions().debug_redact, f"{field} of {method} is not debug_redact")


@check
def no_method_answers_without_a_credential(world: World):
    # By what reflection lists, so that a method which comes later is in it by itself.
    for method in world.schema.methods:
        world.nobody.refused(method, Code.UNAUTHENTICATED)


# ---- realms, partners, projects --------------------------------------------------------------------------------------


@check
def a_realm_is_put_and_read_and_listed(world: World):
    put = world.operator.call("PutRealm", realm=world.realm_message())
    world.first_revision = put.revision
    realm = put.realm
    same((realm.id, realm.prefix), (world.realm, world.prefix), "the realm")
    same([(e.name, e.tag) for e in realm.environments], [("production", "live"), ("staging", "test")], "environments")
    implied = {scope.name: list(scope.implies) for scope in realm.scopes}
    same(implied, {"read": [], "write": ["read"], "admin": ["write"]}, "the ladder of scopes")
    same(world.schema.name("UnscopedKeys", realm.unscoped_keys), "UNSCOPED_KEYS_NO_ACCESS", "unscoped keys")
    levels = {world.schema.name("KeyLevel", level) for level in realm.levels}
    same(levels, {"KEY_LEVEL_PARTNER", "KEY_LEVEL_PROJECT"}, "the levels")
    same(seconds(realm.max_cache), MAX_CACHE_SECONDS, "max_cache")
    same(realm.revision, put.revision, "the revision of the realm")
    must(abs(time.time() - seconds(realm.create_time)) < 60, "the realm was made another day")

    got = world.operator.call("GetRealm", realm_id=world.realm)
    must(got.realm == realm, "the realm is read otherwise than it was put")
    must(got.revision >= put.revision, "the state that was read lies before the change")

    listed = world.operator.every_page("ListRealms", "realms", page_size=2)
    ids = [realm.id for realm in listed]
    same(ids, sorted(ids), "the order of the realms")
    must(world.realm in ids, "the realm is not listed")
    same(len(ids), len(set(ids)), "the number of different realms")


@check
def realms_of_other_rules_are_put_beside_it(world: World):
    world.operator.call("PutRealm", realm=world.plain_realm_message())
    world.operator.call("PutRealm", realm=world.short_realm_message())


@check
def the_same_put_again_changes_nothing(world: World):
    before = world.operator.call("GetRealm", realm_id=world.realm).realm
    again = world.operator.call("PutRealm", realm=world.realm_message())
    must(again.realm == before, "the realm was changed by the same put")
    events = world.operator.every_page("ListEvents", "events", realm=world.realm, kind="realm.put")
    same([event.revision for event in events], [world.first_revision], "the puts of the realm in the audit trail")


@check
def a_put_on_an_old_revision_is_aborted(world: World):
    realm = world.operator.call("GetRealm", realm_id=world.realm).realm
    changed = world.realm_message() | {"max_cache": {"seconds": 1}}
    for wrong in (0, realm.revision - 1, realm.revision + 1):
        world.operator.refused("PutRealm", Code.ABORTED, realm=changed, if_revision=wrong)
    same(world.operator.call("GetRealm", realm_id=world.realm).realm, realm, "the realm after refused puts")

    put = world.operator.call("PutRealm", realm=changed, if_revision=realm.revision)
    same(put.realm.revision, put.revision, "the revision of a changed realm")
    must(put.revision > realm.revision, "a change does not raise the revision")
    same(put.realm.create_time, realm.create_time, "the time at which it was first made")
    world.operator.refused("PutRealm", Code.ABORTED, realm=world.realm_message(), if_revision=realm.revision)
    world.operator.call("PutRealm", realm=world.realm_message(), if_revision=put.revision)


@check
def no_two_realms_have_one_prefix(world: World):
    codes = (Code.ALREADY_EXISTS, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
    for prefix in (world.prefix, keytext.Parts(world.operator_text).prefix):
        realm = world.new_realm_message() | {"prefix": prefix}
        world.operator.refused("PutRealm", *codes, realm=realm)
        world.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])


@check
def the_built_in_realm_is_readable_and_cannot_be_changed(world: World):
    realm = world.operator.call("GetRealm", realm_id="claviger").realm
    must({"operator", "manage", "verify"} <= {scope.name for scope in realm.scopes}, "a built-in scope is missing")
    changed = copy.deepcopy(realm)
    changed.max_cache.seconds += 1
    # The contract names no code for this.
    codes = (Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED)
    world.operator.refused("PutRealm", *codes, realm=changed)
    world.operator.refused("DeleteRealm", *codes, realm_id="claviger")


@check
def partners_are_put_and_read_and_listed(world: World):
    # Case counts, and an address as an id is as good as a word.
    for partner in ("acme", "Acme", "globex", "sleepy", "pages", "shop@example.com"):
        message = {"realm": world.realm, "id": partner, "display_name": f"Partner {partner} ☂"}
        put = world.operator.call("PutPartner", partner=message)
        same((put.partner.realm, put.partner.id), (world.realm, partner), "the partner")
        same(put.partner.display_name, message["display_name"], "its display name")
        same(put.partner.suspended, False, "it is suspended")
        same(put.partner.revision, put.revision, "its revision")
        got = world.operator.call("GetPartner", realm=world.realm, partner=partner)
        must(got.partner == put.partner, "the partner is read otherwise than it was put")
    for realm in (world.plain_realm, world.short_realm):
        world.operator.call("PutPartner", partner={"realm": realm, "id": "acme"})
    listed = world.operator.every_page("ListPartners", "partners", realm=world.realm, page_size=2)
    wanted = sorted(["acme", "Acme", "globex", "sleepy", "pages", "shop@example.com"])
    same([partner.id for partner in listed], wanted, "the partners")


@check
def projects_are_put_and_listed(world: World):
    for project, partner in (("mtKDhe1U", "acme"), ("beta", "acme"), ("gamma", "globex"), ("night", "sleepy")):
        message = {"realm": world.realm, "id": project, "partner": partner, "display_name": "A project"}
        put = world.operator.call("PutProject", project=message)
        same((put.project.realm, put.project.id, put.project.partner), (world.realm, project, partner), "the project")
    everything = world.operator.every_page("ListProjects", "projects", realm=world.realm, page_size=3)
    same([p.id for p in everything], sorted(["mtKDhe1U", "beta", "gamma", "night"]), "the projects of the realm")
    of_one = world.operator.every_page("ListProjects", "projects", realm=world.realm, partner="acme")
    same([p.id for p in of_one], ["beta", "mtKDhe1U"], "the projects of one partner")


@check
def the_same_put_of_a_partner_or_project_changes_nothing(world: World):
    partner = world.operator.call("GetPartner", realm=world.realm, partner="acme").partner
    again = world.operator.call("PutPartner", partner=partner)
    must(again.partner == partner, "the partner was changed by the same put")
    project = world.operator.call("ListProjects", realm=world.realm, partner="acme").projects[0]
    again = world.operator.call("PutProject", project=project)
    must(again.project == project, "the project was changed by the same put")


@check
def an_old_revision_of_a_partner_or_project_is_aborted(world: World):
    partner = {"realm": world.realm, "id": "acme", "display_name": "other"}
    revision = world.operator.call("GetPartner", realm=world.realm, partner="acme").partner.revision
    world.operator.refused("PutPartner", Code.ABORTED, partner=partner, if_revision=0)
    world.operator.refused("PutPartner", Code.ABORTED, partner=partner, if_revision=revision - 1)
    world.operator.refused(
        "DeletePartner", Code.ABORTED, realm=world.realm, partner="shop@example.com", if_revision=revision - 1
    )
    project = {"realm": world.realm, "id": "beta", "partner": "acme", "display_name": "other"}
    world.operator.refused("PutProject", Code.ABORTED, project=project, if_revision=0)
    world.operator.call("PutPartner", partner=partner, if_revision=revision)


@check
def a_project_stays_with_its_partner_for_ever(world: World):
    taken = {"realm": world.realm, "id": "gamma", "partner": "acme"}
    world.operator.refused("PutProject", Code.FAILED_PRECONDITION, project=taken)
    own = {"realm": world.realm, "id": "passing", "partner": "globex"}
    world.operator.call("PutProject", project=own)
    world.operator.call("DeleteProject", realm=world.realm, project="passing")
    world.operator.refused("PutProject", Code.FAILED_PRECONDITION, project=own | {"partner": "acme"})
    world.operator.call("PutProject", project=own)


@check
def what_does_not_exist_is_not_found(world: World):
    unknown = f"py-{letters(10)}"
    for method, fields in (
        ("GetRealm", {"realm_id": unknown}),
        ("DeleteRealm", {"realm_id": unknown}),
        ("GetPartner", {"realm": world.realm, "partner": "nobody"}),
        ("DeletePartner", {"realm": world.realm, "partner": "nobody"}),
        ("PutProject", {"project": {"realm": world.realm, "id": "new", "partner": "nobody"}}),
        ("DeleteProject", {"realm": world.realm, "project": "nothing"}),
        *((method, {"key_id": str(uuid.uuid4())})
          for method in ("GetKey", "GetKeyScopes", "DisableKey", "EnableKey", "RevokeKey", "DeleteKey")),
    ):
        with case(f"{method} of what does not exist is NOT_FOUND"):
            world.operator.refused(method, Code.NOT_FOUND, **fields)


# ---- issuing, reading, listing keys ----------------------------------------------------------------------------------


@check
def a_partner_key_is_issued_with_all_that_was_asked_for(world: World):
    expire_time = from_now(3600)
    labels = {"team": "payments", "ticket": "OPS-17 ☂"}
    request = world.key_request(
        name="Ünïcode name",
        scopes=["write", "read"],
        labels=labels,
        allowed_cidrs=["10.1.0.0/16", "2001:db8::/32"],
        expire_time=expire_time,
        wait="WAIT_EVERYWHERE",
    )
    response = world.operator.call("IssueKey", **request)
    must(response.confirmed, "answered before every server confirmed, in spite of WAIT_EVERYWHERE")
    key = response.key
    same((key.realm, key.partner, key.project), (world.realm, "acme", ""), "where the key belongs")
    same(world.level_of(key), "KEY_LEVEL_PARTNER", "the level")
    same((key.environment, key.name), ("production", "Ünïcode name"), "the environment and the name")
    same((list(key.scopes), key.full_access), (["read", "write"], False), "the scopes")
    same(dict(key.labels), labels, "the labels")
    same(sorted(key.allowed_cidrs), ["10.1.0.0/16", "2001:db8::/32"], "the address ranges")
    same(world.state_of(key), "KEY_STATE_ACTIVE", "the state")
    same({"seconds": key.expire_time.seconds, "nanos": key.expire_time.nanos}, expire_time, "the time of expiry")
    must(abs(time.time() - seconds(key.create_time)) < 60, "the key was made another day")
    must(not key.HasField("revoke_time") and key.revoke_reason == "", "a new key is revoked")
    same(key.created_by, world.operator_id, "the id of the issuer")
    same(len(key.secrets), 1, "the number of its secrets")
    must(key.secrets[0].HasField("create_time"), "its secret has no date")
    parsed = uuid.UUID(key.id)
    same((parsed.version, str(parsed)), (7, key.id), "the kind of id")

    got = world.operator.call("GetKey", key_id=key.id)
    must(got.key == key, "the key is read otherwise than it was issued")
    must(got.revision >= response.revision, "the state that was read lies before the change")


@check
def the_text_of_a_key_has_the_form_of_the_contract(world: World):
    for fields, tag in (({}, "live"), ({"environment": "staging"}, "test"), ({"project": "beta"}, "live")):
        issued = world.issue(**fields)
        must(keytext.KEY_TEXT.fullmatch(issued.text) is not None, "the text has another form")
        parts = keytext.Parts(issued.text)
        same(len(parts.body), 71, "the width of the body")
        same((parts.prefix, parts.tag), (world.prefix, tag), "the prefix and the tag")
        same(parts.key_id, issued.id, "the id in the text")
        hint = issued.key.hint
        must(hint.startswith(f"{world.prefix}_{tag}"), "the hint does not begin with prefix and tag")
        must(hint.endswith(issued.text[-4:]), "the hint does not end with the last four characters")
        shown = len(hint) - len(world.prefix) - len(tag)
        must(shown <= 4 + 12, "the hint shows more than prefix, tag and the last four characters")


@check
def no_two_keys_share_a_secret_or_an_id(world: World):
    issued = [world.issue() for _ in range(5)]
    must(len({key.id for key in issued}) == 5, "an id twice")
    must(len({keytext.Parts(key.text).secret_digits for key in issued}) == 5, "a secret twice")
    ids = [key.id for key in issued]
    same(ids, sorted(ids), "the order of the ids of keys issued one after the other")


@check
def a_project_makes_a_project_key(world: World):
    issued = world.issue(project="mtKDhe1U", scopes=["read"])
    same((issued.key.partner, issued.key.project), ("acme", "mtKDhe1U"), "where the key belongs")
    same(world.level_of(issued.key), "KEY_LEVEL_PROJECT", "the level")


@check
def level_and_environment_may_be_left_out_where_there_is_one(world: World):
    issued = world.issue_exactly(realm=world.plain_realm, partner="acme", name="short request")
    same(world.level_of(issued.key), "KEY_LEVEL_PARTNER", "the level")
    same(issued.key.environment, "main", "the environment")


@check
def what_a_key_without_scopes_gets_is_resolved_at_issue(world: World):
    nothing = world.issue()
    same((list(nothing.key.scopes), nothing.key.full_access), ([], False), "the scopes under NO_ACCESS")
    everything = world.issue_exactly(realm=world.plain_realm, partner="acme")
    same((list(everything.key.scopes), everything.key.full_access), ([], True), "the scopes under FULL_ACCESS")

    # The policy changes; the key that was issued under the old one does not.
    closed = world.plain_realm_message() | {"unscoped_keys": "UNSCOPED_KEYS_NO_ACCESS"}
    world.operator.call("PutRealm", realm=closed)
    must(world.operator.call("GetKey", key_id=everything.id).key.full_access, "a later policy took the access away")
    later = world.issue_exactly(realm=world.plain_realm, partner="acme")
    same(later.key.full_access, False, "full access under the new policy")
    world.operator.call("PutRealm", realm=world.plain_realm_message())
    must(not world.operator.call("GetKey", key_id=later.id).key.full_access, "a later policy gave access")


@check
def scopes_are_told_as_granted_and_as_effective(world: World):
    for fields, granted, effective, full in (
        ({"scopes": ["admin"]}, ["admin"], ["admin", "read", "write"], False),
        ({"scopes": ["write"]}, ["write"], ["read", "write"], False),
        ({"scopes": ["read"]}, ["read"], ["read"], False),
        ({}, [], [], False),
        ({"full_access": True}, [], ["admin", "read", "write"], True),
    ):
        with case(f"a key issued with {fields or 'no scopes'} holds {effective or 'nothing'}"):
            answer = world.operator.call("GetKeyScopes", key_id=world.issue(**fields).id)
            told = (list(answer.granted), list(answer.effective), answer.full_access)
            same(told, (granted, effective, full), "the scopes")


@check
def a_longest_life_bounds_the_expiry(world: World):
    request = {"realm": world.short_realm, "partner": "acme"}
    issued = world.issue_exactly(**request)
    same(round(seconds(issued.key.expire_time) - seconds(issued.key.create_time)), 3600, "the life of the key")
    shorter = from_now(600)
    issued = world.issue_exactly(**request, expire_time=shorter)
    same(issued.key.expire_time.seconds, shorter["seconds"], "a shorter life")
    world.operator.refused_field("expire_time", "IssueKey", **request, expire_time=from_now(7200))


@check
def unknown_owners_are_not_found_and_the_message_says_which(world: World):
    unknown = letters(12)
    for word, fields in (
        ("realm", {"realm": f"py-{unknown}"}),
        ("partner", {"partner": unknown}),
        ("project", {"project": unknown}),
        ("project", {"project": "gamma"}),  # another partner's
    ):
        with case(f"a key of an unknown or foreign {word} is NOT_FOUND and says so"):
            refusal = world.operator.refused("IssueKey", Code.NOT_FOUND, **world.key_request(**fields))
            must(word in refusal.message.lower(), f"the message does not say that it is about the {word}")


@check
def keys_are_listed_page_by_page_newest_first(world: World):
    issued = [world.issue(partner="pages", name=f"page key {n}").id for n in range(5)]
    filters = {"realm": world.realm, "partner": "pages"}
    first = world.operator.call("ListKeys", **filters, page_size=2)
    same([key.id for key in first.keys], issued[:2:-1], "the first page")
    second = world.operator.call("ListKeys", **filters, page_size=2, page_token=first.next_page_token)
    same([key.id for key in second.keys], issued[2:0:-1], "the second page")
    third = world.operator.call("ListKeys", **filters, page_size=2, page_token=second.next_page_token)
    same([key.id for key in third.keys], issued[:1], "the third page")
    same(third.next_page_token, "", "the token of the last page")
    for size in (5, 0, 1000, 100_000):
        whole = world.operator.call("ListKeys", **filters, page_size=size)
        same([key.id for key in whole.keys], issued[::-1], f"one page of {size}")
        same(whole.next_page_token, "", f"the token of the only page of {size}")


@check
def keys_are_listed_by_what_they_are(world: World):
    def listed(**filters) -> set[str]:
        return {key.id for key in world.operator.every_page("ListKeys", "keys", realm=world.realm, **filters)}

    staging = world.issue(environment="staging")
    project = world.issue(project="beta")
    disabled = world.issue()
    world.operator.call("DisableKey", key_id=disabled.id)
    revoked = world.issue()
    world.operator.call("RevokeKey", key_id=revoked.id)
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
    elsewhere = {key.id for key in world.operator.every_page("ListKeys", "keys", realm=world.plain_realm)}
    must(not ours & elsewhere, "a key is listed in another realm")


@check
def a_page_token_is_bound_to_its_caller_and_filters(world: World):
    filters = {"realm": world.realm, "partner": "pages", "page_size": 2}
    token = world.operator.call("ListKeys", **filters).next_page_token
    must(token, "there is no second page")
    for other in (
        {"partner": "acme"},
        {"partner": ""},
        {"environment": "production"},
        {"states": ["KEY_STATE_ACTIVE"]},
        {"realm": world.plain_realm, "partner": "acme"},
    ):
        with case(f"a page token is not good with {other}"):
            world.operator.refused_field("page_token", "ListKeys", **filters | other, page_token=token)
    for broken in ("x", token + "A", "A" + token, token[:-2], "☂"):
        world.operator.refused_field("page_token", "ListKeys", **filters, page_token=broken)
    manager = world.operator.with_key(world.key_of_the_authority("manage").text)
    manager.refused_field("page_token", "ListKeys", **filters, page_token=token)
    world.operator.refused_field("page_token", "ListEvents", realm=world.realm, page_token=token)

    events = world.operator.call("ListEvents", realm=world.realm, page_size=1)
    world.operator.refused_field(
        "page_token", "ListEvents", realm=world.realm, kind="key.issued", page_token=events.next_page_token
    )


# ---- verifying: allowed ----------------------------------------------------------------------------------------------


@check
def an_allowed_answer_tells_what_the_key_is(world: World):
    expire_time = from_now(3600)
    for project, level in (("", "KEY_LEVEL_PARTNER"), ("beta", "KEY_LEVEL_PROJECT")):
        fields = {"project": project} if project else {}
        issued = world.issue(**fields, name="told", scopes=["write"], labels={"team": "x"}, expire_time=expire_time)
        answer = world.expect("VERDICT_ALLOWED", issued, any_target=True, partner="acme", scopes=["read"])
        key = answer.key
        same((key.id, key.realm, key.partner, key.project), (issued.id, world.realm, "acme", project), "the key")
        same(world.level_of(key), level, "its level")
        same((key.environment, key.name), ("production", "told"), "its environment and name")
        same((list(key.scopes), key.full_access), (["read", "write"], False), "its scopes")
        same(dict(key.labels), {"team": "x"}, "its labels")
        same({"seconds": key.expire_time.seconds, "nanos": key.expire_time.nanos}, expire_time, "its end")


@check
def a_key_of_full_access_holds_every_scope(world: World):
    issued = world.issue(full_access=True)
    answer = world.expect("VERDICT_ALLOWED", issued, scopes=["read", "write", "admin"])
    must(answer.key.full_access, "the answer does not tell of the full access")
    must(not answer.key.HasField("expire_time"), "a key without an end has one")


@check
def full_access_is_also_that_to_a_scope_of_later(world: World):
    use = {"realm": world.plain_realm, "environment": ""}
    issued = world.issue_exactly(realm=world.plain_realm, partner="acme", full_access=True)
    world.operator.refused_field("scopes", "Verify", **world.question(issued.text, **use, scopes=["later"]))
    realm = world.plain_realm_message()
    realm["scopes"] = [*realm["scopes"], {"name": "later"}]
    world.operator.call("PutRealm", realm=realm)
    world.expect("VERDICT_ALLOWED", issued, **use, scopes=["later"])


@check
def a_higher_scope_holds_the_lower_ones(world: World):
    issued = world.issue(scopes=["admin"])
    for scope in ("admin", "write", "read"):
        world.expect("VERDICT_ALLOWED", issued, scopes=[scope])
        world.expect("VERDICT_ALLOWED", issued, any_scopes=[scope])


@check
def a_realm_without_max_cache_allows_no_reuse(world: World):
    issued = world.issue_exactly(realm=world.plain_realm, partner="acme")
    answer = world.expect("VERDICT_ALLOWED", issued, realm=world.plain_realm, environment="")
    same(seconds(answer.cache_for), 0, "cache_for")


@check
def an_answer_may_be_reused_no_longer_than_the_key_lives(world: World):
    end = from_now(MAX_CACHE_SECONDS - 2)
    issued = world.issue(expire_time=end)
    asked = time.time()
    answer = world.expect("VERDICT_ALLOWED", issued)
    left = seconds(issued.key.expire_time) - asked
    must(seconds(answer.cache_for) <= left + 0.01, "cache_for goes beyond the expiry")
    # Without an end in sight the whole of max_cache is given: the embedded store knows no shorter lease.
    must(seconds(world.expect("VERDICT_ALLOWED", world.issue()).cache_for) > 0, "no reuse in spite of max_cache")


@check
def an_answer_knows_of_every_change_that_was_answered(world: World):
    issued = world.issue()
    changed = world.operator.call("DisableKey", key_id=issued.id)
    answer = world.expect("VERDICT_DISABLED", issued, min_revision=changed.revision)
    must(answer.revision >= changed.revision, "the answer is older than the change")


@check
def a_revision_of_the_future_is_unavailable_and_says_when_to_retry(world: World):
    issued = world.issue()
    future = world.operator.revision + 2**40
    refusal = world.operator.refused("Verify", Code.UNAVAILABLE, **world.question(issued.text, min_revision=future))
    retry = refusal.detail(error_details_pb2.RetryInfo)
    must(retry is not None, "UNAVAILABLE without RetryInfo")
    must(seconds(retry.retry_delay) >= 0, "a retry before now")


# ---- verifying: each denial ------------------------------------------------------------------------------------------


@check
def what_cannot_be_a_key_is_malformed(world: World):
    issued = world.issue()
    text = issued.text
    prefix, tag, _ = text.split("_")
    wide_id = "z" * keytext.ID_WIDTH + "0" * keytext.SECRET_WIDTH
    wide_secret = "0" * keytext.ID_WIDTH + "z" * keytext.SECRET_WIDTH
    for what, bad in (
        ("nothing at all", ""),
        ("513 bytes", "x" * 513),
        ("60,000 bytes", "x" * 60_000),
        ("a letter beyond ASCII", "ключ"),
        ("a NUL", "abc\0def"),
        ("a line break", "abc\n"),
        ("a DEL", "abc\x7f"),
        ("a space", "abc def"),
        ("a comma", "abc,def"),
        ("a key and a space", text + " "),
        ("a key after a space", " " + text),
        ("a key and a line break", text + "\n"),
        ("two keys with a comma", f"{text},{text}"),
        ("a key with its last character missing", text[:-1]),
        ("a key with one character more", text + "0"),
        ("a prefix and nothing else", f"{prefix}_"),
        ("a prefix and a tag and nothing else", f"{prefix}_{tag}_"),
        ("a key with a character changed in its id", keytext.with_one_character_changed(text, -70)),
        ("a key with a character changed in its secret", keytext.with_one_character_changed(text, -30)),
        ("a key with a character changed in its checksum", keytext.with_one_character_changed(text, -1)),
        ("an id beyond 128 bits", keytext.with_checksum(f"{prefix}_{tag}_{wide_id}")),
        ("a secret beyond 256 bits", keytext.with_checksum(f"{prefix}_{tag}_{wide_secret}")),
        ("another realm's prefix with a wrong body", f"{world.plain_prefix}_m_" + "0" * 71),
    ):
        with case(f"malformed: {what}"):
            world.expect("VERDICT_MALFORMED", bad, any_target=True)


@check
def any_one_wrong_character_of_a_key_is_malformed(world: World):
    text = world.issue().text
    wrong = [keytext.with_one_character_changed(text, position) for position in range(-71, 0)]
    batch = world.operator.call("VerifyBatch", requests=[world.question(bad, any_target=True) for bad in wrong])
    for result in batch.results:
        same(world.verdict(result.response), "VERDICT_MALFORMED", "the verdict on a typing error")


@check
def who_proves_nothing_is_unknown(world: World):
    issued = world.issue()
    stranger = world.issue_exactly(realm=world.plain_realm, partner="acme")
    for what, text in (
        ("a foreign text", "sk_foreign_0123456789abcdef"),
        ("a foreign text of 512 bytes", "~" * 512),
        ("one character", "x"),
        ("a wrong secret with a good checksum", keytext.with_another_secret(issued.text)),
        ("an id that never was with a good checksum", keytext.with_another_id(issued.text, uuid.uuid4())),
        ("another realm's key", stranger.text),
        ("a key of this authority's operator", world.operator_text),
    ):
        with case(f"unknown: {what}"):
            world.expect("VERDICT_UNKNOWN", text, any_target=True)
    world.expect("VERDICT_UNKNOWN", issued, realm=world.plain_realm, environment="")
    world.expect("VERDICT_ALLOWED", issued)


@check
def a_wrong_secret_is_not_told_apart_from_no_such_key(world: World):
    issued = world.issue()
    revoked = world.issue()
    world.operator.call("RevokeKey", key_id=revoked.id)
    answers = [
        world.expect("VERDICT_UNKNOWN", text)
        for text in (
            keytext.with_another_secret(issued.text),
            keytext.with_another_secret(revoked.text),
            keytext.with_another_id(issued.text, uuid.uuid4()),
        )
    ]
    same(len({seconds(answer.cache_for) for answer in answers}), 1, "the number of different spans to keep the answer")


@check
def a_key_under_another_heading_is_not_that_key(world: World):
    issued = world.issue()
    for prefix, tag in ((world.prefix, "test"), (world.plain_prefix, "m"), (world.prefix, "nosuch")):
        text = keytext.under_another_heading(issued.text, prefix, tag)
        for environment in ("production", "staging"):
            answer = world.verify(text, environment=environment, any_target=True)
            # One canonical text per key: whether the other is malformed or unknown is left open.
            must(world.verdict(answer) in PROVEN_NOTHING, "a second text of the same key was taken")
            world.holds_of_every_answer(answer)


@check
def a_key_lives_through_disable_enable_revoke_and_delete(world: World):
    issued = world.issue(name="a whole life")
    kinds = ["key.issued"]
    revisions = [world.operator.revision]

    def change(method: str, kind: str, state: str, **fields):
        response = world.operator.call(method, key_id=issued.id, **fields)
        must(response.revision > revisions[-1], f"{method} does not raise the revision")
        kinds.append(kind)
        revisions.append(response.revision)
        same((response.key.id, world.state_of(response.key)), (issued.id, state), f"the key after {method}")
        return response

    def repeat(method: str, **fields):
        before = world.operator.call("GetKey", key_id=issued.id).key
        response = world.operator.call(method, key_id=issued.id, **fields)
        must(response.key == before, f"{method} again changed something")

    world.expect("VERDICT_ALLOWED", issued)
    change("DisableKey", "key.disabled", "KEY_STATE_DISABLED")
    world.expect("VERDICT_DISABLED", issued)
    repeat("DisableKey")
    change("EnableKey", "key.enabled", "KEY_STATE_ACTIVE")
    world.expect("VERDICT_ALLOWED", issued)
    repeat("EnableKey")

    revoked = change("RevokeKey", "key.revoked", "KEY_STATE_REVOKED", reason="lost ☂", wait="WAIT_EVERYWHERE").key
    same(revoked.revoke_reason, "lost ☂", "the reason")
    must(abs(time.time() - seconds(revoked.revoke_time)) < 60, "revoked another day")
    world.expect("VERDICT_REVOKED", issued)
    repeat("RevokeKey", reason="another reason")
    same(world.operator.call("GetKey", key_id=issued.id).key.revoke_reason, "lost ☂", "the first reason")
    for method in ("DisableKey", "EnableKey"):
        world.operator.refused(method, Code.FAILED_PRECONDITION, key_id=issued.id)
    world.expect("VERDICT_REVOKED", issued)

    change("DeleteKey", "key.deleted", "KEY_STATE_REVOKED")
    answer = world.expect("VERDICT_UNKNOWN", issued)
    must(not answer.HasField("key"), "a deleted key is told of")
    for method in ("GetKey", "GetKeyScopes", "DeleteKey", "EnableKey", "DisableKey", "RevokeKey"):
        world.operator.refused(method, Code.NOT_FOUND, key_id=issued.id)

    # The audit trail has it all, and nothing of what was only repeated.
    events = world.operator.every_page("ListEvents", "events", realm=world.realm, key_id=issued.id, page_size=2)
    same([event.kind for event in reversed(events)], kinds, "the life in the audit trail")
    same([event.revision for event in reversed(events)], revisions, "the revisions in the audit trail")
    for event in events:
        same((event.actor, event.realm, event.partner, event.key_id),
             (world.operator_id, world.realm, "acme", issued.id), f"who did {event.kind} to what")
        must(event.peer, f"{event.kind} came from nowhere")
        must(abs(time.time() - seconds(event.time)) < 60, f"{event.kind} was done another day")
    reasons = [event for event in events if event.kind == "key.revoked"]
    must("lost ☂" in reasons[0].detail.values(), "the reason is not in the audit trail")


@check
def an_active_key_can_be_deleted_at_once(world: World):
    issued = world.issue()
    world.operator.call("DeleteKey", key_id=issued.id)
    world.expect("VERDICT_UNKNOWN", issued)


@check
def a_key_expires_at_its_time(world: World):
    issued = world.issue(expire_time=from_now(1.2))
    end = seconds(issued.key.expire_time)

    def expired():
        asked = time.time()
        answer = world.verify(issued.text)
        world.holds_of_every_answer(answer)
        same(answer.key.id, issued.id, "the proven key")
        if world.verdict(answer) == "VERDICT_EXPIRED":
            must(time.time() >= end - 0.01, "expired before its time")
            return answer
        same(world.verdict(answer), "VERDICT_ALLOWED", "the verdict before the end")
        must(asked <= end + 0.01, "allowed after its time")
        must(seconds(answer.cache_for) <= end - asked + 0.01, "cache_for goes beyond the expiry")
        return None

    until(expired, "the expiry of a key")
    got = world.operator.call("GetKey", key_id=issued.id).key
    same(world.state_of(got), "KEY_STATE_EXPIRED", "the state")
    listed = world.operator.every_page("ListKeys", "keys", realm=world.realm, states=["KEY_STATE_EXPIRED"])
    must(issued.id in [key.id for key in listed], "it is not listed as expired")
    active = world.operator.every_page("ListKeys", "keys", realm=world.realm, states=["KEY_STATE_ACTIVE"])
    must(issued.id not in [key.id for key in active], "it is still listed as active")

    # The order of decision: disabled before expired, revoked before both.
    world.operator.call("DisableKey", key_id=issued.id)
    world.expect("VERDICT_DISABLED", issued)
    world.operator.call("EnableKey", key_id=issued.id)
    world.expect("VERDICT_EXPIRED", issued)
    world.operator.call("RevokeKey", key_id=issued.id)
    world.expect("VERDICT_REVOKED", issued)


@check
def a_key_is_good_in_its_own_environment_only(world: World):
    production, staging = world.issue(), world.issue(environment="staging")
    world.expect("VERDICT_ALLOWED", staging, environment="staging")
    world.expect("VERDICT_ENVIRONMENT_MISMATCH", production, environment="staging")
    world.expect("VERDICT_ENVIRONMENT_MISMATCH", staging, environment="production")


@check
def a_key_is_good_for_its_own_partner_only(world: World):
    issued = world.issue()
    world.expect("VERDICT_ALLOWED", issued, partner="acme")
    for other in ("globex", "Acme", "nobody", "acme ", "acme\0", "партнёр", "x" * 1000):
        with case(f"a request in the name of {other[:12]!r} is denied"):
            world.expect("VERDICT_PARTNER_MISMATCH", issued, partner=other)


@check
def a_suspended_partner_has_no_access_until_it_is_let_in_again(world: World):
    issued = world.issue(partner="sleepy", project="night")
    other = world.issue()
    partner = {"realm": world.realm, "id": "sleepy", "display_name": "Sleepy"}
    world.expect("VERDICT_ALLOWED", issued, project="night")
    world.operator.call("PutPartner", partner=partner | {"suspended": True})
    answer = world.expect("VERDICT_PARTNER_SUSPENDED", issued, project="night")
    same(answer.key.partner, "sleepy", "the partner of the proven key")
    world.expect("VERDICT_ALLOWED", other)
    world.operator.call("PutPartner", partner=partner)
    world.expect("VERDICT_ALLOWED", issued, project="night")


@check
def a_key_reaches_its_own_targets_only(world: World):
    keys = {"a partner key": world.issue(), "a project key": world.issue(project="mtKDhe1U")}
    allowed, denied = "VERDICT_ALLOWED", "VERDICT_PROJECT_MISMATCH"
    for target, fields, for_partner, for_project in (
        ("what is partner-wide", {}, allowed, denied),
        ("the key's project", {"project": "mtKDhe1U"}, allowed, allowed),
        ("another project of the partner", {"project": "beta"}, allowed, denied),
        ("another partner's project", {"project": "gamma"}, denied, denied),
        ("an unknown project", {"project": "nothing"}, denied, denied),
        ("a project in other case", {"project": "MTKDHE1U"}, denied, denied),
        ("a project without a name", {"project": ""}, denied, denied),
        ("a project beyond ASCII", {"project": "проект\0"}, denied, denied),
        ("a project of 1,000 bytes", {"project": "x" * 1000}, denied, denied),
        ("the key's own project", {"own_project": True}, denied, allowed),
        ("a target of either level", {"any_target": True}, allowed, allowed),
    ):
        for (who, issued), verdict in zip(keys.items(), (for_partner, for_project)):
            with case(f"{target} is {'open' if verdict == allowed else 'closed'} to {who}"):
                answer = world.expect(verdict, issued, **fields)
                same(answer.key.project, issued.key.project, "the project that the answer names")


@check
def a_key_is_good_from_its_own_addresses_only(world: World):
    issued = world.issue(allowed_cidrs=["10.1.0.0/16", "2001:db8::/32"])
    for address, verdict in (
        ("10.1.0.0", "VERDICT_ALLOWED"),
        ("10.1.255.255", "VERDICT_ALLOWED"),
        ("::ffff:10.1.2.3", "VERDICT_ALLOWED"),
        ("::ffff:a01:203", "VERDICT_ALLOWED"),
        ("2001:db8::1", "VERDICT_ALLOWED"),
        ("2001:0DB8:0:0::1", "VERDICT_ALLOWED"),
        ("10.2.0.0", "VERDICT_ADDRESS_DENIED"),
        ("10.0.255.255", "VERDICT_ADDRESS_DENIED"),
        ("::ffff:10.2.0.1", "VERDICT_ADDRESS_DENIED"),
        ("2001:db9::1", "VERDICT_ADDRESS_DENIED"),
        ("", "VERDICT_ADDRESS_DENIED"),
    ):
        with case(f"from {address or 'an address that is not told'}: {verdict}"):
            world.expect(verdict, issued, client_ip=address)
    free = world.issue()
    world.expect("VERDICT_ALLOWED", free)
    world.expect("VERDICT_ALLOWED", free, client_ip="203.0.113.9")


@check
def a_range_of_mapped_addresses_is_stored_as_the_v4_range(world: World):
    issued = world.issue(allowed_cidrs=["::ffff:192.0.2.0/120", "198.51.100.7/32"])
    stored = {ipaddress.ip_network(cidr) for cidr in issued.key.allowed_cidrs}
    same(stored, {ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("198.51.100.7/32")}, "the ranges")
    for address, verdict in (
        ("192.0.2.200", "VERDICT_ALLOWED"),
        ("::ffff:192.0.2.200", "VERDICT_ALLOWED"),
        ("198.51.100.7", "VERDICT_ALLOWED"),
        ("198.51.100.8", "VERDICT_ADDRESS_DENIED"),
    ):
        world.expect(verdict, issued, client_ip=address)


@check
def a_missing_scope_is_named(world: World):
    reader = world.issue(scopes=["read"])
    nothing = world.issue()
    for who, issued, fields, missing in (
        ("a reader", reader, {"scopes": ["write"]}, {"write"}),
        ("a reader", reader, {"scopes": ["read", "admin"]}, {"admin"}),
        ("a reader", reader, {"scopes": ["admin", "write", "read"]}, {"admin", "write"}),
        ("a reader", reader, {"any_scopes": ["write", "admin"]}, {"admin", "write"}),
        ("a reader", reader, {"scopes": ["write"], "any_scopes": ["read"]}, {"write"}),
        ("a reader", reader, {"scopes": ["read"], "any_scopes": ["admin"]}, {"admin"}),
        ("who holds nothing", nothing, {"scopes": ["read"]}, {"read"}),
        ("who holds nothing", nothing, {"any_scopes": ["read"]}, {"read"}),
    ):
        with case(f"{who} asked for {fields} lacks {sorted(missing)}"):
            answer = world.expect("VERDICT_SCOPE_MISSING", issued, **fields)
            same(set(answer.missing_scopes), missing, f"the missing scopes with {fields}")
    world.expect("VERDICT_ALLOWED", reader, any_scopes=["admin", "read"])
    world.expect("VERDICT_ALLOWED", reader, scopes=["read"], any_scopes=["admin", "read"])
    world.expect("VERDICT_ALLOWED", nothing)


@check
def the_first_reason_in_the_order_of_decision_is_told(world: World):
    issued = world.issue(partner="sleepy", project="night", scopes=["read"], allowed_cidrs=["10.0.0.0/8"])
    partner = {"realm": world.realm, "id": "sleepy"}
    # All of it is wrong; then one thing after the other is put right.
    wrong = {"environment": "staging", "partner": "acme", "project": "beta", "client_ip": "192.0.2.1"}
    wrong["scopes"] = ["admin"]
    world.operator.call("PutPartner", partner=partner | {"suspended": True})
    world.operator.call("DisableKey", key_id=issued.id)
    world.expect("VERDICT_DISABLED", issued, **wrong)
    world.operator.call("EnableKey", key_id=issued.id)
    world.expect("VERDICT_ENVIRONMENT_MISMATCH", issued, **wrong)
    wrong["environment"] = "production"
    world.expect("VERDICT_PARTNER_MISMATCH", issued, **wrong)
    wrong["partner"] = "sleepy"
    world.expect("VERDICT_PARTNER_SUSPENDED", issued, **wrong)
    world.operator.call("PutPartner", partner=partner)
    world.expect("VERDICT_PROJECT_MISMATCH", issued, **wrong)
    wrong["project"] = "night"
    world.expect("VERDICT_ADDRESS_DENIED", issued, **wrong)
    wrong["client_ip"] = "10.0.0.1"
    world.expect("VERDICT_SCOPE_MISSING", issued, **wrong)
    wrong["scopes"] = ["read"]
    world.expect("VERDICT_ALLOWED", issued, **wrong)


# ---- verifying: questions that cannot be understood, and many at once ------------------------------------------------


@check
def a_question_that_is_not_understood_is_an_error_that_names_the_field(world: World):
    text = world.issue(full_access=True).text
    for what, leaf, fields in (
        ("no realm", "realm", {"realm": ""}),
        ("an unknown realm", "realm", {"realm": f"py-{letters(10)}"}),
        ("a realm that cannot be one", "realm", {"realm": "Not A Realm ☂"}),
        ("no environment where there are two", "environment", {"environment": ""}),
        ("an unknown environment", "environment", {"environment": "nowhere"}),
        ("an unknown scope", "scopes", {"scopes": ["read", "nosuch"]}),
        ("an unknown scope among any_scopes", "any_scopes", {"any_scopes": ["nosuch", "read"]}),
        ("own_project that is false", "own_project", {"own_project": False}),
        ("any_target that is false", "any_target", {"any_target": False}),
    ):
        with case(f"not understood: {what}"):
            world.operator.refused_field(leaf, "Verify", **world.question(text, **fields))
    # The gateway's mistake is one, whatever key was presented.
    for bad in ("", "foreign", "abc def"):
        world.operator.refused_field("realm", "Verify", **world.question(bad, realm="nosuch"))
        world.operator.refused_field("scopes", "Verify", **world.question(bad, scopes=["nosuch"]))


@check
def an_address_that_is_none_lets_nobody_in(world: World):
    issued = world.issue(allowed_cidrs=["0.0.0.0/0", "::/0"])
    for address in ("not an address", "10.1.2.3/32", "10.1.2.3.4", "10.1.2.3:80"):
        # Left open by the contract: a question that is not understood, or an address outside all ranges.
        try:
            answer = world.verify(issued.text, client_ip=address)
        except grpc.RpcError as error:
            refusal = Refusal(error)
            same(refusal.code, Code.INVALID_ARGUMENT, "the code")
            must(any("client_ip" in field for field in refusal.fields), "the violation does not name client_ip")
        else:
            same(world.verdict(answer), "VERDICT_ADDRESS_DENIED", "the verdict")


@check
def a_batch_is_answered_in_order_and_each_question_by_itself(world: World):
    one, two = world.issue(), world.issue(project="beta")
    world.operator.call("DisableKey", key_id=two.id)
    three = world.issue(scopes=["read"])
    batch = world.operator.call("VerifyBatch", requests=[
        world.question(one.text),
        world.question(two.text, any_target=True),
        world.question(one.text, realm=f"py-{letters(10)}"),
        world.question(three.text, scopes=["admin"]),
        world.question(""),
        world.question(one.text),
    ])
    outcomes = [
        world.verdict(result.response) if result.WhichOneof("result") == "response" else result.error.code
        for result in batch.results
    ]
    invalid_argument = Code.INVALID_ARGUMENT.value[0]
    same(invalid_argument, 3, "the number of INVALID_ARGUMENT")
    same(outcomes, ["VERDICT_ALLOWED", "VERDICT_DISABLED", invalid_argument, "VERDICT_SCOPE_MISSING",
                    "VERDICT_MALFORMED", "VERDICT_ALLOWED"], "the outcomes")
    for position, issued in ((0, one), (1, two), (3, three), (5, one)):
        response = batch.results[position].response
        same(response.key.id, issued.id, f"the key at place {position}")
        world.holds_of_every_answer(response)
    same(list(batch.results[3].response.missing_scopes), ["admin"], "the missing scope")

    # The class by reflection and that of the requirements have one wire format.
    error = status_pb2.Status.FromString(batch.results[2].error.SerializeToString())
    must(error.message, "an error without a message")
    violations = error_details_pb2.BadRequest()
    must(len(error.details) > 0 and any(d.Unpack(violations) for d in error.details), "no BadRequest in the error")
    must(any("realm" in violation.field for violation in violations.field_violations), "the realm is not named")


@check
def a_batch_holds_a_hundred_questions_and_no_more(world: World):
    question = world.question(world.issue().text)
    batch = world.operator.call("VerifyBatch", requests=[question] * 100)
    verdicts = collections.Counter(world.verdict(result.response) for result in batch.results)
    same(verdicts, {"VERDICT_ALLOWED": 100}, "the outcomes")
    world.operator.refused_field("requests", "VerifyBatch", requests=[question] * 101)
    same(len(world.operator.call("VerifyBatch").results), 0, "the answers to no question")


# ---- callers ---------------------------------------------------------------------------------------------------------


@check
def a_caller_without_a_good_credential_is_unauthenticated(world: World):
    issued = world.issue()
    deleted = world.key_of_the_authority("verify")
    world.operator.call("DeleteKey", key_id=deleted.id)
    disabled = world.key_of_the_authority("verify")
    world.operator.call("DisableKey", key_id=disabled.id)
    revoked = world.key_of_the_authority("verify")
    world.operator.call("RevokeKey", key_id=revoked.id)
    good = world.operator_text
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
        ("a deleted key", f"Bearer {deleted.text}"),
        ("a disabled key", f"Bearer {disabled.text}"),
        ("a revoked key", f"Bearer {revoked.text}"),
    ):
        with case(f"unauthenticated: {what}"):
            caller = world.operator.with_header(header)
            caller.refused("Verify", Code.UNAUTHENTICATED, **world.question(issued.text))
            caller.refused("GetKey", Code.UNAUTHENTICATED, key_id=issued.id)
            caller.refused("IssueKey", Code.UNAUTHENTICATED, **world.key_request())
            caller.refused("GetRealm", Code.UNAUTHENTICATED, realm_id=world.realm)


@check
def a_gateway_may_verify_in_its_realm_and_nothing_else(world: World):
    issued = world.issue()
    gateway_key = world.key_of_the_authority("verify")
    gateway = world.operator.with_key(gateway_key.text)
    world.expect("VERDICT_ALLOWED", issued, caller=gateway)
    world.expect("VERDICT_UNKNOWN", keytext.with_another_secret(issued.text), caller=gateway)
    batch = gateway.call("VerifyBatch", requests=[
        world.question(issued.text),
        world.question(issued.text, realm=world.plain_realm, environment=""),
    ])
    same(world.verdict(batch.results[0].response), "VERDICT_ALLOWED", "its own realm in a batch")
    same(batch.results[1].error.code, Code.PERMISSION_DENIED.value[0], "another realm in a batch")

    for realm in (world.plain_realm, "claviger"):
        question = world.question(issued.text, realm=realm, environment="")
        gateway.refused("Verify", Code.PERMISSION_DENIED, **question)
    # A realm that does not exist may be an unknown field or simply not this gateway's.
    nowhere = world.question(issued.text, realm=f"py-{letters(10)}")
    gateway.refused("Verify", Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT, **nowhere)

    gateway.refused("IssueKey", Code.PERMISSION_DENIED, **world.key_request())
    gateway.refused("PutRealm", Code.PERMISSION_DENIED, realm=world.realm_message())
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
        ("ListKeys", {"realm": world.realm}),
        ("ListEvents", {"realm": world.realm}),
        ("DeleteRealm", {"realm_id": world.realm}),
        ("PutPartner", {"partner": {"realm": world.realm, "id": "intruder"}}),
        ("DeletePartner", {"realm": world.realm, "partner": "acme"}),
        ("PutProject", {"project": {"realm": world.realm, "id": "intruder", "partner": "acme"}}),
        ("DeleteProject", {"realm": world.realm, "project": "beta"}),
    ):
        with case(f"a gateway may not {method}"):
            gateway.refused(method, *hidden, **fields)
    world.expect("VERDICT_ALLOWED", issued, caller=gateway)


@check
def a_gateway_is_shut_out_at_once_when_its_key_is_revoked(world: World):
    issued = world.issue()
    gateway_key = world.key_of_the_authority("verify")
    gateway = world.operator.with_key(gateway_key.text)
    world.expect("VERDICT_ALLOWED", issued, caller=gateway)
    world.operator.call("RevokeKey", key_id=gateway_key.id, reason="the gateway is gone")
    gateway.refused("Verify", Code.UNAUTHENTICATED, **world.question(issued.text))


@check
def a_manager_governs_its_own_realm(world: World):
    manager_key = world.key_of_the_authority("manage")
    manager = world.operator.with_key(manager_key.text)
    same(manager.call("GetRealm", realm_id=world.realm).realm.id, world.realm, "its realm")
    same([r.id for r in manager.every_page("ListRealms", "realms") if r.id != "claviger"], [world.realm], "its realms")
    manager.call("PutPartner", partner={"realm": world.realm, "id": "managed"})
    manager.call("PutProject", project={"realm": world.realm, "id": "of-managed", "partner": "managed"})
    issued = world.issue(caller=manager, partner="managed", scopes=["admin"])
    same(issued.key.created_by, manager_key.id, "the issuer")
    world.expect("VERDICT_ALLOWED", issued, scopes=["admin"])
    must(issued.id in [key.id for key in manager.every_page("ListKeys", "keys", realm=world.realm)], "its own key")
    manager.call("DisableKey", key_id=issued.id)
    world.expect("VERDICT_DISABLED", issued)
    events = manager.every_page("ListEvents", "events", realm=world.realm, key_id=issued.id)
    same([event.actor for event in events], [manager_key.id] * 2, "the actor")
    manager.call("DeleteKey", key_id=issued.id)


@check
def a_manager_does_not_reach_beyond_its_realm(world: World):
    manager = world.operator.with_key(world.key_of_the_authority("manage").text)
    foreign = world.issue_exactly(realm=world.plain_realm, partner="acme")
    never = str(uuid.uuid4())
    for method in ("GetKey", "GetKeyScopes", "DisableKey", "EnableKey", "RevokeKey", "DeleteKey"):
        with case(f"to a manager a foreign key is NOT_FOUND in {method}, like one that never was"):
            of_foreign = manager.refused(method, Code.NOT_FOUND, key_id=foreign.id)
            of_never = manager.refused(method, Code.NOT_FOUND, key_id=never)
            same(of_foreign.message.replace(foreign.id, "ID"), of_never.message.replace(never, "ID"),
                 f"what {method} says of a foreign key and of none")
    world.expect("VERDICT_ALLOWED", foreign, realm=world.plain_realm, environment="")

    manager.refused("PutRealm", Code.PERMISSION_DENIED, realm=world.new_realm_message())
    # "May not" or "does not exist": the contract leaves open which of them a foreign realm is.
    hidden = (Code.PERMISSION_DENIED, Code.NOT_FOUND)
    manager.refused("DeleteRealm", *hidden, realm_id=world.realm)
    manager.refused("GetRealm", *hidden, realm_id=world.plain_realm)
    manager.refused("ListKeys", *hidden, realm=world.plain_realm)
    manager.refused("ListEvents", *hidden, realm=world.plain_realm)
    manager.refused("ListPartners", *hidden, realm=world.plain_realm)
    manager.refused("PutPartner", *hidden, partner={"realm": world.plain_realm, "id": "intruder"})
    manager.refused("DeletePartner", *hidden, realm=world.plain_realm, partner="acme")
    manager.refused("IssueKey", *hidden, realm=world.plain_realm, partner="acme")
    # The built-in realm is not its own, so it makes neither operators nor gateways nor its like.
    for scope in ("operator", "manage", "verify"):
        manager.refused("IssueKey", *hidden, realm="claviger", partner=world.realm, scopes=[scope])
    manager.refused("ListEvents", *hidden, Code.INVALID_ARGUMENT)


@check
def a_partners_key_without_an_admin_scope_calls_nothing(world: World):
    for fields in ({"full_access": True}, {"scopes": ["admin"]}, {"project": "beta", "full_access": True}):
        issued = world.issue(**fields)
        caller = world.operator.with_key(issued.text)
        # Nobody that this service knows, or somebody that may not: the contract leaves it open.
        refused = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED)
        caller.refused("Verify", *refused, **world.question(issued.text))
        caller.refused("IssueKey", *refused, **world.key_request())
        caller.refused("PutRealm", *refused, realm=world.realm_message())
        caller.refused("GetKey", *refused, Code.NOT_FOUND, key_id=issued.id)
        caller.refused("ListKeys", *refused, Code.NOT_FOUND, realm=world.realm)


@check
def a_partners_key_with_the_admin_scope_governs_the_keys_beside_it(world: World):
    realm = world.new_realm_message() | {"admin_scope": "admin"}
    world.operator.call("PutRealm", realm=realm)
    for partner in ("acme", "umbrella"):
        world.operator.call("PutPartner", partner={"realm": realm["id"], "id": partner})
    world.operator.call("PutProject", project={"realm": realm["id"], "id": "beta", "partner": "acme"})

    def request(**fields) -> dict:
        return world.key_request(**({"realm": realm["id"], "scopes": ["read"]} | fields))

    mine = world.operator.call("IssueKey", **request(scopes=["admin"]))
    foreign = world.operator.call("IssueKey", **request(partner="umbrella"))
    staging = world.operator.call("IssueKey", **request(environment="staging"))
    owner = world.operator.with_key(mine.plain_key)

    issued = owner.call("IssueKey", **request())
    same(issued.key.created_by, mine.key.id, "its maker")
    answer = world.verify(issued.plain_key, realm=realm["id"], scopes=["read"])
    same(world.verdict(answer), "VERDICT_ALLOWED", "a key that a partner issued")
    listed = {key.id for key in owner.every_page("ListKeys", "keys", realm=realm["id"])}
    same(listed, {mine.key.id, issued.key.id}, "what a partner's key sees")
    owner.call("DisableKey", key_id=issued.key.id)
    owner.call("EnableKey", key_id=issued.key.id)
    owner.call("RevokeKey", key_id=issued.key.id, reason="by its partner")
    answer = world.verify(issued.plain_key, realm=realm["id"])
    same(world.verdict(answer), "VERDICT_REVOKED", "a key that a partner revoked")

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
    bound = world.operator.call("IssueKey", **request(scopes=["admin"], project="beta"))
    project = world.operator.with_key(bound.plain_key)
    project.call("IssueKey", **request(project="beta"))
    project.refused("IssueKey", Code.PERMISSION_DENIED, **request())
    project.refused("RevokeKey", Code.NOT_FOUND, key_id=mine.key.id)
    owner.call("RevokeKey", key_id=bound.key.id)
    project.refused("IssueKey", Code.UNAUTHENTICATED, **request(project="beta"))


@check
def a_question_is_explained_check_by_check(world: World):
    issued = world.issue(scopes=["read"])
    question = world.question(issued.text, scopes=["admin"])
    answer = world.operator.call("Explain", verify=question)
    same(world.verdict(answer), "VERDICT_SCOPE_MISSING", "the verdict that is explained")
    same(answer.decided_by, "scope_missing", "what decided")
    same(answer.allowed, False, "whether it is let through")
    same(list(answer.missing_scopes), ["admin"], "what is missing")
    outcomes = {check.name: check.outcome for check in answer.checks}
    same(outcomes["revoked"], 1, "a check that passed")
    same(outcomes["scope_missing"], 2, "the check that failed")
    # The realm names no routes, so a whole request is let through to none.
    http = {"realm": world.realm, "environment": "production", "method": "GET", "target": "/v1/things"}
    answer = world.operator.call("Explain", http=http)
    same((answer.allowed, answer.http_status), (False, 401), "a request without a key")
    gateway = world.operator.with_key(world.key_of_the_authority("verify").text)
    gateway.refused("Explain", Code.PERMISSION_DENIED, verify=question)


# ---- bad input -------------------------------------------------------------------------------------------------------


@check
def a_bad_field_of_a_key_is_named(world: World):
    for what, leaf, fields in (
        ("an unknown scope", "scopes", {"scopes": ["read", "nosuch"]}),
        ("a scope that cannot be one", "scopes", {"scopes": ["Not A Scope"]}),
        ("65 scopes", "scopes", {"scopes": [f"scope{n}" for n in range(65)]}),
        ("scopes beside full access", "full_access", {"scopes": ["read"], "full_access": True}),
        ("a name of 129 characters", "name", {"name": "é" * 129}),
        ("a name with a control character", "name", {"name": "two\nlines"}),
        ("a name with a NUL", "name", {"name": "nul\0"}),
        ("a name with a C1 control character", "name", {"name": "next\x85line"}),
        ("a name of 100,000 bytes", "name", {"name": "x" * 100_000}),
        ("a label's name of 65 characters", "labels", {"labels": {"x" * 65: "value"}}),
        ("a label's value of 257 characters", "labels", {"labels": {"name": "x" * 257}}),
        ("17 labels", "labels", {"labels": {f"label{n}": "value" for n in range(17)}}),
        ("a range that is none", "allowed_cidrs", {"allowed_cidrs": ["10.0.0.0/8", "not a range"]}),
        ("a range too long for v4", "allowed_cidrs", {"allowed_cidrs": ["10.0.0.0/33"]}),
        ("a range with host bits", "allowed_cidrs", {"allowed_cidrs": ["10.0.0.1/8"]}),
        ("a v6 range with host bits", "allowed_cidrs", {"allowed_cidrs": ["2001:db8::1/32"]}),
        ("33 ranges", "allowed_cidrs", {"allowed_cidrs": [f"10.{n}.0.0/16" for n in range(33)]}),
        ("an expiry in the past", "expire_time", {"expire_time": from_now(-60)}),
        ("an expiry of 1970", "expire_time", {"expire_time": {"seconds": 0}}),
        ("an expiry that is no time", "expire_time", {"expire_time": {"seconds": 2**62, "nanos": -1}}),
        ("an unknown level", "level", {"level": 99}),
        ("no level where there are two", "level", {"level": 0}),
        ("a partner's level with a project", "level", {"level": "KEY_LEVEL_PARTNER", "project": "beta"}),
        ("a way to wait that is unknown", "wait", {"wait": 99}),
        ("no environment where there are two", "environment", {"environment": ""}),
        ("an unknown environment", "environment", {"environment": "nowhere"}),
    ):
        with case(f"refused in IssueKey: {what}"):
            world.operator.refused_field(leaf, "IssueKey", **world.key_request(**fields))
    # "No project" is a bad project or a bad level: either name helps.
    refusal = world.operator.refused(
        "IssueKey", Code.INVALID_ARGUMENT, **world.key_request(level="KEY_LEVEL_PROJECT")
    )
    must(any("project" in field or "level" in field for field in refusal.fields), "neither project nor level is named")


@check
def the_widest_good_fields_are_taken(world: World):
    world.issue(
        name="é" * 128,
        labels={f"{n:02}" + "é" * 62: "é" * 256 for n in range(16)},
        allowed_cidrs=[f"10.{n}.0.0/16" for n in range(32)],
    )
    issued = world.issue()
    revoked = world.operator.call("RevokeKey", key_id=issued.id, reason="é" * 256).key
    same(len(revoked.revoke_reason), 256, "the length of the reason")


@check
def every_bad_field_is_named_at_once(world: World):
    refusal = world.operator.refused_field(
        "name", "IssueKey", **world.key_request(name="two\nlines", expire_time=from_now(-60), scopes=["No Such"])
    )
    for leaf in ("name", "expire_time", "scopes"):
        must(any(leaf in field for field in refusal.fields), f"{leaf} is not named beside the others")


@check
def a_bad_field_of_another_request_is_named(world: World):
    issued = world.issue()
    for what, leaf, method, fields in (
        ("a reason of 257 characters", "reason", "RevokeKey", {"key_id": issued.id, "reason": "é" * 257}),
        ("a reason with a control character", "reason", "RevokeKey", {"key_id": issued.id, "reason": "a\x1bb"}),
        *(("a key_id that is no UUID", "key_id", method, {"key_id": bad})
          for method in ("GetKey", "GetKeyScopes", "DisableKey", "EnableKey", "RevokeKey", "DeleteKey")
          for bad in ("not-a-uuid", "")),
        *((f"a page of {size}", "page_size", method, {"page_size": size} | fields)
          for method, fields in (
              ("ListKeys", {"realm": world.realm}),
              ("ListEvents", {"realm": world.realm}),
              ("ListRealms", {}),
              ("ListPartners", {"realm": world.realm}),
              ("ListProjects", {"realm": world.realm}))
          for size in (-1, -(2**31))),
        ("a state that is unknown", "states", "ListKeys", {"realm": world.realm, "states": [99]}),
        *(("a token that is none", "page_token", method, {"page_token": "x"} | fields)
          for method, fields in (
              ("ListRealms", {}),
              ("ListPartners", {"realm": world.realm}),
              ("ListProjects", {"realm": world.realm}))),
        ("a way to wait that is unknown", "wait", "DisableKey", {"key_id": issued.id, "wait": 99}),
    ):
        with case(f"refused in {method}: {what}"):
            world.operator.refused_field(leaf, method, **fields)
    world.expect("VERDICT_ALLOWED", issued)


@check
def a_bad_field_of_a_realm_is_named(world: World):
    environments = [{"name": "production", "tag": "live"}]
    for what, leaf, fields in (
        ("an id with a capital", "id", {"id": "Py-bad"}),
        ("an id of 33 characters", "id", {"id": "a" * 33}),
        ("no id", "id", {"id": ""}),
        ("a prefix that begins with a digit", "prefix", {"prefix": "1bad"}),
        ("a prefix of one character", "prefix", {"prefix": "a"}),
        ("a prefix of 17 characters", "prefix", {"prefix": "a" * 17}),
        ("a prefix with an underscore", "prefix", {"prefix": "a_b"}),
        ("no environment", "environments", {"environments": []}),
        ("a tag with a hyphen", "tag", {"environments": environments + [{"name": "staging", "tag": "te-st"}]}),
        ("a tag of 13 characters", "tag", {"environments": [{"name": "production", "tag": "x" * 13}]}),
        ("no tag", "tag", {"environments": [{"name": "production"}]}),
        ("a tag twice", "tag", {"environments": environments + [{"name": "staging", "tag": "live"}]}),
        ("an environment's name with a space", "name", {"environments": [{"name": "not good", "tag": "live"}]}),
        ("an environment twice", "name", {"environments": environments + [{"name": "production", "tag": "x"}]}),
        ("a scope's name with a space", "name", {"scopes": [{"name": "not good"}]}),
        ("a scope's name of 65 characters", "name", {"scopes": [{"name": "a" * 65}]}),
        ("a scope twice", "name", {"scopes": [{"name": "read"}, {"name": "read"}]}),
        ("257 scopes", "scopes", {"scopes": [{"name": f"scope{n}"} for n in range(257)]}),
        ("a scope's description of 257 characters", "description",
         {"scopes": [{"name": "read", "description": "é" * 257}]}),
        # The ladder as a whole is at fault, so more than one name of a field is as good.
        ("a ladder that is a circle", "scopes",
         {"scopes": [{"name": "read", "implies": ["write"]}, {"name": "write", "implies": ["read"]}]}),
        ("a scope that implies itself", "scopes", {"scopes": [{"name": "read", "implies": ["read"]}]}),
        ("a ladder to nowhere", "implies", {"scopes": [{"name": "read", "implies": ["nosuch"]}]}),
        ("an unknown admin_scope", "admin_scope", {"admin_scope": "nosuch"}),
        ("an unknown policy for unscoped keys", "unscoped_keys", {"unscoped_keys": 99}),
        ("an unknown level", "levels", {"levels": [99]}),
        ("a max_cache of more than a day", "max_cache", {"max_cache": {"seconds": 86_401}}),
        ("a negative max_cache", "max_cache", {"max_cache": {"seconds": -1}}),
        ("a negative max_lifetime", "max_lifetime", {"max_lifetime": {"seconds": -1}}),
    ):
        with case(f"refused in PutRealm: {what}"):
            realm = world.new_realm_message() | fields
            refusal = world.operator.refused_field(leaf, "PutRealm", realm=realm)
            at_home = all(field.startswith("realm") for field in refusal.fields)
            must(at_home, f"{refusal.fields} do not begin with realm")
            if leaf != "id":
                world.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])
    world.operator.refused_field("realm", "PutRealm")


@check
def a_bad_field_of_a_partner_or_project_is_named(world: World):
    for what, leaf, method, fields in (
        ("no partner", "partner", "PutPartner", {}),
        ("a partner's id that begins with a hyphen", "id", "PutPartner", {"partner": {"id": "-bad"}}),
        ("a partner's id of 129 characters", "id", "PutPartner", {"partner": {"id": "x" * 129}}),
        ("a partner's id beyond ASCII", "id", "PutPartner", {"partner": {"id": "партнёр"}}),
        ("no id of a partner", "id", "PutPartner", {"partner": {"id": ""}}),
        ("a display name of 129 characters", "display_name", "PutPartner",
         {"partner": {"id": "fine", "display_name": "é" * 129}}),
        ("no project", "project", "PutProject", {}),
        ("a project's id with a space", "id", "PutProject", {"project": {"id": "not good", "partner": "acme"}}),
        ("a project's id with a slash", "id", "PutProject", {"project": {"id": "not/good", "partner": "acme"}}),
        ("a display name of 129 characters", "display_name", "PutProject",
         {"project": {"id": "fine", "partner": "acme", "display_name": "x" * 129}}),
    ):
        with case(f"refused in {method}: {what}"):
            # Each message stands in the main realm.
            fields = {name: message | {"realm": world.realm} for name, message in fields.items()}
            world.operator.refused_field(leaf, method, **fields)


@check
def a_key_in_the_wrong_place_is_not_repeated(world: World):
    # Somebody pastes a key where its id, a token or a word belongs. Each error is searched for it as it comes in.
    issued = world.issue()
    text = issued.text
    for method, place, fields in (
        ("GetKey", "key_id", {"key_id": text}),
        ("RevokeKey", "key_id", {"key_id": text}),
        ("DeleteKey", "key_id", {"key_id": text}),
        ("ListKeys", "page_token", {"realm": world.realm, "page_token": text}),
        ("ListEvents", "key_id", {"realm": world.realm, "key_id": text}),
        ("IssueKey", "allowed_cidrs", world.key_request(allowed_cidrs=[text])),
        ("IssueKey", "scopes", world.key_request(scopes=[text])),
        ("IssueKey", "environment", world.key_request(environment=text)),
        ("Verify", "realm", world.question(text, realm=text)),
        ("Verify", "environment", world.question(text, environment=text)),
        ("Verify", "scopes", world.question(text, scopes=[text])),
    ):
        with case(f"a key in {place} of {method} is refused and not repeated"):
            world.operator.refused_field(place, method, **fields)
    for fields in ({"realm": text}, {"partner": text}, {"project": text}):
        world.operator.refused("IssueKey", Code.NOT_FOUND, Code.INVALID_ARGUMENT, **world.key_request(**fields))


@check
def a_message_beyond_the_limit_is_an_error_and_the_channel_lives_on(world: World):
    issued = world.issue()
    world.operator.refused("Verify", **world.question("x" * (64 * 1024 + 1)))
    world.expect("VERDICT_ALLOWED", issued)
    world.operator.refused("IssueKey", **world.key_request(name="x" * (1024 * 1024 + 1)))
    same(world.operator.call("GetKey", key_id=issued.id).key.id, issued.id, "the key")


# ---- updating keys ---------------------------------------------------------------------------------------------------


def update(world: World, key: Issued, *paths: str, caller: Caller | None = None, **fields):
    """Changes what the paths name, and answers with the key as it is then."""
    return (caller or world.operator).call("UpdateKey", key_id=key.id, update_mask={"paths": paths}, **fields).key


def time_of(timestamp) -> dict:
    return {"seconds": timestamp.seconds, "nanos": timestamp.nanos}


def refused_by_state(world: World, method: str, reason: str | None = None, **fields) -> Refusal:
    refusal = world.operator.refused(method, Code.FAILED_PRECONDITION, **fields)
    must(refusal.reason, f"{method}: FAILED_PRECONDITION without ErrorInfo")
    if reason is not None:
        same(refusal.reason, reason, f"the reason of {method}")
    return refusal


@check
def an_update_changes_what_its_mask_names_and_nothing_else(world: World):
    issued = world.issue(scopes=["read"], labels={"a": "b"}, allowed_cidrs=["10.0.0.0/8"], expire_time=from_now(3600))
    from_home = {"client_ip": "10.1.2.3"}
    world.expect("VERDICT_ALLOWED", issued, **from_home)
    end = from_now(7200)
    for what, fields, told in (
        ("the name", {"name": "Another näme"}, lambda key: key.name == "Another näme"),
        ("the labels", {"labels": {"c": "d", "e": ""}}, lambda key: dict(key.labels) == {"c": "d", "e": ""}),
        ("the scopes", {"scopes": ["write", "read"]}, lambda key: list(key.scopes) == ["read", "write"]),
        ("the end", {"expire_time": end}, lambda key: time_of(key.expire_time) == end),
        ("the ranges", {"allowed_cidrs": ["10.1.0.0/16"]}, lambda key: list(key.allowed_cidrs) == ["10.1.0.0/16"]),
    ):
        with case(f"an update changes {what}"):
            before = world.operator.call("GetKey", key_id=issued.id).key
            must(not told(before), f"{what}: it is so already")
            [path] = fields
            after = update(world, issued, path, **fields)
            must(told(after), f"{what} was not changed")
            must(world.operator.call("GetKey", key_id=issued.id).key.secrets[0].create_time ==
                 before.secrets[0].create_time, "the secret is another one")
            # The rest is as it was; when it was last used may be told meanwhile.
            for key in (before, after):
                key.ClearField(path)
                key.ClearField("last_used_time")
                key.secrets[0].ClearField("last_used_time")
            must(before == after, f"more than {what} was changed")
    answer = world.expect("VERDICT_ALLOWED", issued, **from_home, scopes=["write"])
    same((answer.key.name, dict(answer.key.labels)), ("Another näme", {"c": "d", "e": ""}), "what Verify tells")
    world.expect("VERDICT_ADDRESS_DENIED", issued, client_ip="10.2.0.1")

    kinds = [event.kind for event in world.operator.every_page("ListEvents", "events", key_id=issued.id)]
    same(kinds, ["key.updated"] * 5 + ["key.issued"], "the events")
    # Several at once, some of them emptied.
    key = update(world, issued, "labels", "allowed_cidrs", "expire_time", "name", name="")
    same((key.name, dict(key.labels), list(key.allowed_cidrs), key.HasField("expire_time")), ("", {}, [], False),
         "what was emptied")
    world.expect("VERDICT_ALLOWED", issued)


@check
def an_update_that_changes_nothing_is_no_event(world: World):
    issued = world.issue(name="same", scopes=["read"])
    first = world.operator.call("UpdateKey", key_id=issued.id, update_mask={"paths": ["name", "scopes"]}, name="same",
                                scopes=["read"])
    must(first.key.name == "same", "the key")
    kinds = [event.kind for event in world.operator.every_page("ListEvents", "events", key_id=issued.id)]
    same(kinds, ["key.issued"], "the events")


@check
def an_update_says_what_it_changes(world: World):
    issued = world.issue(name="before", scopes=["read"])
    for what, leaf, paths, fields in (
        ("no mask", "update_mask", None, {"name": "after"}),
        ("an empty mask", "update_mask", [], {"name": "after"}),
        ("an empty path", "update_mask", [""], {}),
        ("a path to nowhere", "update_mask", ["nosuch"], {}),
        ("a path to nowhere beside a good one", "update_mask", ["name", "nosuch"], {"name": "after"}),
        ("a path within a field", "update_mask", ["labels.x"], {"labels": {"x": "y"}}),
        ("a path within a list", "update_mask", ["scopes[0]"], {"scopes": ["write"]}),
        ("everything", "update_mask", ["*"], {"name": "after"}),
        ("what names the key", "update_mask", ["key_id"], {}),
        ("what never changes", "update_mask", ["partner"], {}),
        ("in other case", "update_mask", ["Name"], {"name": "after"}),
    ):
        with case(f"refused in UpdateKey: {what}"):
            mask = {} if paths is None else {"update_mask": {"paths": paths}}
            world.operator.refused_field(leaf, "UpdateKey", key_id=issued.id, **mask, **fields)
    # A field that is set and not named would be left out in silence. The mask or the field is to blame: either will do.
    for field, value in (
        ("name", "after"),
        ("labels", {"x": "y"}),
        ("scopes", ["write"]),
        ("full_access", True),
        ("expire_time", from_now(60)),
        ("allowed_cidrs", ["10.0.0.0/8"]),
    ):
        with case(f"refused in UpdateKey: {field} is set and not in the mask"):
            path = "labels" if field == "name" else "name"
            refusal = world.operator.refused("UpdateKey", Code.INVALID_ARGUMENT, key_id=issued.id,
                                             update_mask={"paths": [path]}, **{field: value})
            must(any(field in named or "update_mask" in named for named in refusal.fields), f"{refusal.fields}")
    must(world.operator.call("GetKey", key_id=issued.id).key == issued.key, "a refused update changed the key")


@check
def a_bad_field_of_an_update_is_named(world: World):
    issued = world.issue(scopes=["read"])
    for what, leaf, fields in (
        ("an unknown scope", "scopes", {"scopes": ["nosuch"]}),
        ("65 scopes", "scopes", {"scopes": [f"scope{n}" for n in range(65)]}),
        ("scopes beside full access", "full_access", {"scopes": ["read"], "full_access": True}),
        ("a name of 129 characters", "name", {"name": "é" * 129}),
        ("a name with a control character", "name", {"name": "two\nlines"}),
        ("a label's name of 65 characters", "labels", {"labels": {"x" * 65: "value"}}),
        ("a label's value of 257 characters", "labels", {"labels": {"name": "x" * 257}}),
        ("17 labels", "labels", {"labels": {f"label{n}": "value" for n in range(17)}}),
        ("a range that is none", "allowed_cidrs", {"allowed_cidrs": ["10.0.0.0/8", "not a range"]}),
        ("a range with host bits", "allowed_cidrs", {"allowed_cidrs": ["10.0.0.1/8"]}),
        ("a v6 range with host bits", "allowed_cidrs", {"allowed_cidrs": ["2001:db8::1/32"]}),
        ("33 ranges", "allowed_cidrs", {"allowed_cidrs": [f"10.{n}.0.0/16" for n in range(33)]}),
        ("an expiry in the past", "expire_time", {"expire_time": from_now(-60)}),
        ("an expiry of 1970", "expire_time", {"expire_time": {"seconds": 0}}),
        ("an expiry that is no time", "expire_time", {"expire_time": {"seconds": 2**62, "nanos": -1}}),
    ):
        with case(f"refused in UpdateKey: {what}"):
            world.operator.refused_field(leaf, "UpdateKey", key_id=issued.id, update_mask={"paths": list(fields)},
                                         **fields)
    refusal = world.operator.refused_field("name", "UpdateKey", key_id="not-a-uuid", update_mask={"paths": ["name"]},
                                           name="two\nlines")
    must(any("key_id" in field for field in refusal.fields), "key_id is not named beside the others")
    must(world.operator.call("GetKey", key_id=issued.id).key == issued.key, "a refused update changed the key")


@check
def an_update_never_turns_nothing_into_everything(world: World):
    # In this realm a key that is issued without scopes gets all of them.
    use = {"realm": world.plain_realm, "environment": ""}
    issued = world.issue_exactly(realm=world.plain_realm, partner="acme", scopes=["use"])
    key = update(world, issued, "scopes")
    same((list(key.scopes), key.full_access), ([], False), "the access after the scopes were emptied")
    world.expect("VERDICT_SCOPE_MISSING", issued, **use, scopes=["use"])
    key = update(world, issued, "full_access", full_access=True)
    same((list(key.scopes), key.full_access), ([], True), "the access after full access was given")
    world.expect("VERDICT_ALLOWED", issued, **use, scopes=["use", "audit"])
    key = update(world, issued, "scopes", scopes=["audit"])
    same((list(key.scopes), key.full_access), (["audit"], False), "the access by name")
    key = update(world, issued, "full_access", full_access=True)
    key = update(world, issued, "full_access")
    same((list(key.scopes), key.full_access), ([], False), "the access after full access was taken")
    world.expect("VERDICT_SCOPE_MISSING", issued, **use, scopes=["audit"])


@check
def an_expired_key_can_be_given_a_later_end_and_a_revoked_one_cannot(world: World):
    issued = world.issue(expire_time=from_now(0.3))
    until(lambda: world.verdict(world.verify(issued.text)) == "VERDICT_EXPIRED", "the expiry of a key")
    key = update(world, issued, "expire_time", expire_time=from_now(3600))
    same(world.state_of(key), "KEY_STATE_ACTIVE", "the state")
    world.expect("VERDICT_ALLOWED", issued)
    world.operator.call("RevokeKey", key_id=issued.id)
    refused_by_state(world, "UpdateKey", key_id=issued.id, update_mask={"paths": ["expire_time"]})
    refused_by_state(world, "UpdateKey", key_id=issued.id, update_mask={"paths": ["name"]}, name="revived")
    world.expect("VERDICT_REVOKED", issued)


@check
def an_update_keeps_to_the_longest_life_of_its_realm(world: World):
    issued = world.issue_exactly(realm=world.short_realm, partner="acme", expire_time=from_now(60))
    key = update(world, issued, "expire_time")
    same(round(seconds(key.expire_time) - seconds(key.create_time)), 3600, "the life of the key without an end")
    world.operator.refused_field("expire_time", "UpdateKey", key_id=issued.id,
                                 update_mask={"paths": ["expire_time"]}, expire_time=from_now(3700))


# ---- rotating keys ---------------------------------------------------------------------------------------------------


def rotate(world: World, key: Issued, overlap: float | None = None, caller: Caller | None = None, **fields) -> Issued:
    if overlap is not None:
        fields["overlap"] = {"seconds": int(overlap), "nanos": round(overlap % 1 * 1e9)}
    response = (caller or world.operator).call("RotateKey", key_id=key.id, **fields)
    return Issued(response.key, response.plain_key)


@check
def a_rotation_gives_a_new_text_to_the_same_key(world: World):
    old = world.issue(scopes=["write"], labels={"a": "b"}, name="rotated", project="beta")
    new = rotate(world, old, 600)
    must(new.text != old.text, "the text is the old one")
    parts, before = keytext.Parts(new.text), keytext.Parts(old.text)
    same((parts.prefix, parts.tag, parts.key_id), (before.prefix, before.tag, old.id), "what the text begins with")
    must(parts.secret_digits != before.secret_digits, "the secret is the old one")
    same(len(new.key.secrets), 2, "the number of its secrets")
    first, second = new.key.secrets
    must(abs(seconds(first.expire_time) - time.time() - 600) < CLOCK_TOLERANCE_SECONDS, "the overlap")
    must(not second.HasField("expire_time"), "the new text has an end of its own")
    must(not first.imported and not second.imported, "a text of claviger's own is told as imported")
    must(new.key.hint.endswith(new.text[-4:]), "the hint is not that of the newest text")
    answers = [world.expect("VERDICT_ALLOWED", issued, any_target=True, scopes=["read"]) for issued in (old, new)]
    must(answers[0].key == answers[1].key, "the two texts are told as different keys")
    for field in ("id", "realm", "partner", "project", "level", "environment", "name", "scopes", "labels",
                  "create_time", "created_by", "state"):
        must(getattr(new.key, field) == getattr(old.key, field), f"{field} was changed by the rotation")
    world.operator.call("RevokeKey", key_id=old.id)
    for issued in (old, new):
        world.expect("VERDICT_REVOKED", issued, any_target=True)


@check
def an_overlap_comes_to_its_end(world: World):
    old = world.issue()
    new = rotate(world, old, 1.2)
    end = seconds(new.key.secrets[0].expire_time)

    def over():
        asked = time.time()
        answer = world.verify(old.text)
        world.holds_of_every_answer(answer)
        same(answer.key.id, old.id, "the proven key")
        world.expect("VERDICT_ALLOWED", new)
        if world.verdict(answer) == "VERDICT_EXPIRED":
            must(time.time() >= end - 0.01, "expired before its time")
            return answer
        same(world.verdict(answer), "VERDICT_ALLOWED", "the verdict before the end")
        must(asked <= end + 0.01, "allowed after its time")
        must(seconds(answer.cache_for) <= end - asked + 0.01, "cache_for goes beyond the overlap")
        return None

    until(over, "the end of an overlap")
    key = world.operator.call("GetKey", key_id=old.id).key
    same(world.state_of(key), "KEY_STATE_ACTIVE", "the state")
    same(len(key.secrets), 2, "the old text is told until the next rotation")
    refused_by_state(world, "EndRotation", key_id=old.id, survivor="SURVIVOR_OLD")
    newest = rotate(world, old, 600)
    world.expect("VERDICT_UNKNOWN", old)
    world.expect("VERDICT_ALLOWED", new)
    world.expect("VERDICT_ALLOWED", newest)


@check
def without_an_overlap_the_old_text_stops_at_once(world: World):
    for overlap in (None, 0):
        old = world.issue()
        new = rotate(world, old, overlap)
        world.expect("VERDICT_UNKNOWN", old.text)
        world.expect("VERDICT_ALLOWED", new)
        same(len(new.key.secrets), 1, "the number of its secrets")
        for survivor in ("SURVIVOR_NEW", "SURVIVOR_OLD"):
            refused_by_state(world, "EndRotation", "NO_ROTATION", key_id=old.id, survivor=survivor)
    fresh = world.issue()
    refused_by_state(world, "EndRotation", "NO_ROTATION", key_id=fresh.id, survivor="SURVIVOR_NEW")


@check
def an_overlap_never_goes_beyond_the_key(world: World):
    old = world.issue(expire_time=from_now(600))
    new = rotate(world, old, 3600)
    must(new.key.secrets[0].expire_time == old.key.expire_time, "the overlap goes beyond the key's end")
    # The end of the old text moves with the key's.
    end = from_now(300)
    key = update(world, old, "expire_time", expire_time=end)
    same(time_of(key.secrets[0].expire_time), end, "the end of the overlap after the key's own was moved")
    must(not key.secrets[1].HasField("expire_time") or time_of(key.secrets[1].expire_time) == end,
         "the new text has an end of its own")


@check
def a_span_that_cannot_be_an_overlap_is_named(world: World):
    issued = world.issue()
    days = 24 * 3600
    for what, overlap in (
        ("a negative one", {"seconds": -1}),
        ("one that is negative by a nanosecond", {"nanos": -1}),
        ("a second more than 366 days", {"seconds": 366 * days + 1}),
        ("ten thousand years", {"seconds": 315_576_000_000}),
        ("one beyond all spans", {"seconds": 2**62}),
        ("one of two signs", {"seconds": 1, "nanos": -1}),
    ):
        with case(f"refused as an overlap: {what}"):
            world.operator.refused_field("overlap", "RotateKey", key_id=issued.id, overlap=overlap)
    for survivor in ("SURVIVOR_UNSPECIFIED", 99):
        world.operator.refused_field("survivor", "EndRotation", key_id=issued.id, survivor=survivor)
    for bad in ("not-a-uuid", "", issued.text):
        world.operator.refused_field("key_id", "RotateKey", key_id=bad)
        world.operator.refused_field("key_id", "EndRotation", key_id=bad, survivor="SURVIVOR_NEW")
    world.expect("VERDICT_ALLOWED", issued)
    same(len(rotate(world, issued, 366 * days).key.secrets), 2, "the number of secrets after a rotation of 366 days")


@check
def a_rotation_within_an_overlap_replaces_the_newest_text(world: World):
    oldest = world.issue()
    lost = rotate(world, oldest, 600)
    newest = rotate(world, oldest, 1200)
    world.expect("VERDICT_ALLOWED", oldest)
    world.expect("VERDICT_UNKNOWN", lost.text)
    world.expect("VERDICT_ALLOWED", newest)
    same(len(newest.key.secrets), 2, "the number of its secrets")
    left = seconds(newest.key.secrets[0].expire_time) - time.time()
    must(abs(left - 1200) < CLOCK_TOLERANCE_SECONDS, f"the oldest text goes on for {left:.0f} s")


@check
def a_rotation_is_completed_or_taken_back(world: World):
    for survivor, of_old, of_new in (
        ("SURVIVOR_NEW", "VERDICT_UNKNOWN", "VERDICT_ALLOWED"),
        ("SURVIVOR_OLD", "VERDICT_ALLOWED", "VERDICT_UNKNOWN"),
    ):
        with case(f"a rotation ended with {survivor}"):
            old = world.issue()
            new = rotate(world, old, 600)
            ended = world.operator.call("EndRotation", key_id=old.id, survivor=survivor)
            world.expect(of_old, old.text)
            world.expect(of_new, new.text)
            [secret] = ended.key.secrets
            must(not secret.HasField("expire_time"), "the text that stays has an end")
            refused_by_state(world, "EndRotation", "NO_ROTATION", key_id=old.id, survivor=survivor)
            kinds = [event.kind for event in world.operator.every_page("ListEvents", "events", key_id=old.id)]
            same(kinds, ["key.rotation_ended", "key.rotated", "key.issued"], "the events")


@check
def a_rotation_revives_nothing(world: World):
    expired = world.issue(expire_time=from_now(0.3))
    revoked = world.issue()
    world.operator.call("RevokeKey", key_id=revoked.id)
    until(lambda: world.verdict(world.verify(expired.text)) == "VERDICT_EXPIRED", "the expiry of a key")
    for issued, verdict in ((expired, "VERDICT_EXPIRED"), (revoked, "VERDICT_REVOKED")):
        refused_by_state(world, "RotateKey", key_id=issued.id, overlap={"seconds": 60})
        world.expect(verdict, issued)
        same(len(world.operator.call("GetKey", key_id=issued.id).key.secrets), 1, "the number of its secrets")
    disabled = world.issue()
    world.operator.call("DisableKey", key_id=disabled.id)
    new = rotate(world, disabled, 60)
    for issued in (disabled, new):
        world.expect("VERDICT_DISABLED", issued)


@check
def a_caller_goes_on_with_its_new_text_and_not_with_the_old_one(world: World):
    gateway = world.key_of_the_authority("verify")
    issued = world.issue()
    before = world.operator.with_key(gateway.text)
    after = world.operator.with_key(rotate(world, gateway, 600).text)
    for caller in (before, after):
        world.expect("VERDICT_ALLOWED", issued, caller=caller)
    world.operator.call("EndRotation", key_id=gateway.id, survivor="SURVIVOR_NEW")
    before.refused("Verify", Code.UNAUTHENTICATED, **world.question(issued.text))
    world.expect("VERDICT_ALLOWED", issued, caller=after)


# ---- requests that are sent again ------------------------------------------------------------------------------------


@check
def every_change_takes_a_request_id_and_refuses_what_is_none(world: World):
    # By what reflection lists, so that a method which comes later is in it by itself.
    plain = world.operator.with_key(world.issue().text)
    count = 0
    for method in world.schema.methods:
        names = world.schema.request(method).DESCRIPTOR.fields_by_name
        same("request_id" in names, "wait" in names, f"{method} is a change")
        if "request_id" not in names:
            continue
        count += 1
        # If it were answered after all, not with the operator's own key.
        caller = plain if method == "RevokeSelf" else world.operator
        for bad in ("not-a-uuid", "x" * 36, f"{uuid.uuid4()}0", "00000000-0000-4000-8000-00000000000g"):
            with case(f"{method} refuses the request_id {bad[:12]}"):
                caller.refused_field("request_id", method, request_id=bad)
        with case(f"{method} refuses an unknown way to wait"):
            caller.refused_field("wait", method, wait=99)
    must(count >= 17, f"only {count} methods take a request_id")
    plain.call("RevokeSelf")


@check
def a_request_id_is_kept_in_the_audit_trail(world: World):
    issued = world.issue()
    for method, kind, fields in (
        ("UpdateKey", "key.updated", {"update_mask": {"paths": ["name"]}, "name": "kept"}),
        ("DisableKey", "key.disabled", {}),
        ("EnableKey", "key.enabled", {}),
        ("RotateKey", "key.rotated", {"overlap": {"seconds": 60}}),
        ("EndRotation", "key.rotation_ended", {"survivor": "SURVIVOR_OLD"}),
        ("RevokeKey", "key.revoked", {"reason": "kept"}),
        ("DeleteKey", "key.deleted", {}),
    ):
        with case(f"the request_id of {method} is kept"):
            request_id = str(uuid.uuid4())
            world.operator.call(method, key_id=issued.id, request_id=request_id, **fields)
            [event] = world.operator.call("ListEvents", key_id=issued.id, page_size=1).events
            same(event.kind, kind, "the event")
            must(request_id in event.detail.values(), "the request_id is not told")


@check
def the_same_request_to_issue_makes_one_key(world: World):
    request = world.key_request(name=f"once {letters(8)}", request_id=str(uuid.uuid4()))
    first = world.operator.call("IssueKey", **request)
    must(not first.replayed and first.plain_key, "the first answer")
    world.operator.call("DisableKey", key_id=first.key.id)
    again = world.operator.call("IssueKey", **request)
    same((again.replayed, again.plain_key), (True, ""), "the second answer")
    same((again.key.id, again.revision), (first.key.id, first.revision), "the key and the revision of the first time")
    same(world.state_of(again.key), "KEY_STATE_DISABLED", "the key is told as it is now")
    world.operator.call("EnableKey", key_id=first.key.id)
    for what, fields in (
        ("another name", {"name": "other"}),
        ("another partner", {"partner": "globex"}),
        ("a scope more", {"scopes": ["read"]}),
        ("an end", {"expire_time": from_now(60)}),
        ("a label", {"labels": {"a": "b"}}),
    ):
        with case(f"a request_id is not good for a request with {what}"):
            world.operator.refused_field("request_id", "IssueKey", **request | fields)
    # Another caller's is another one.
    manager = world.operator.with_key(world.key_of_the_authority("manage").text)
    other = manager.call("IssueKey", **request)
    must(not other.replayed and other.key.id != first.key.id, "another caller was answered with a foreign key")
    same(manager.call("IssueKey", **request).key.id, other.key.id, "the key of the other caller")
    # Without one each request makes a key.
    del request["request_id"]
    ids = {world.operator.call("IssueKey", **request).key.id for _ in range(2)}
    same(len(ids), 2, "the number of keys without a request_id")


@check
def the_same_request_to_rotate_makes_one_text(world: World):
    issued = world.issue()
    request = {"key_id": issued.id, "overlap": {"seconds": 600}, "request_id": str(uuid.uuid4())}
    first = world.operator.call("RotateKey", **request)
    must(not first.replayed, "the first answer")
    again = world.operator.call("RotateKey", **request)
    same((again.replayed, again.plain_key), (True, ""), "the second answer")
    same(again.revision, first.revision, "the revision of the first time")
    same(len(again.key.secrets), 2, "the number of secrets")
    world.expect("VERDICT_ALLOWED", issued)
    world.expect("VERDICT_ALLOWED", first.plain_key)
    for other in ({"overlap": {"seconds": 601}}, {"overlap": None}, {"key_id": world.issue().id}):
        world.operator.refused_field("request_id", "RotateKey", **request | other)
    # The lost text is replaced by a rotation that is not a repetition.
    newest = rotate(world, issued, 600)
    world.expect("VERDICT_UNKNOWN", first.plain_key)
    world.expect("VERDICT_ALLOWED", issued)
    world.expect("VERDICT_ALLOWED", newest)
    must(world.operator.call("RotateKey", **request).replayed, "the first request is not known any more")
    world.expect("VERDICT_ALLOWED", newest)


# ---- importing keys --------------------------------------------------------------------------------------------------


def old_text() -> str:
    """A key of another system, of the form that Peaka's have: a public part, a dot, 32 characters."""
    characters = string.ascii_letters + string.digits
    return "TtgGcQFq." + "".join(random.choices(characters, k=32))


def hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def entry(world: World, text: str | None = None, **fields) -> dict:
    """A good entry of the main realm; its text is looked for in every answer from now on."""
    for secret in (text, fields.get("sha256")):
        if secret:
            world.secrets.remember(secret)
    known_by = {"text": text} if text is not None else {}
    return known_by | {"partner": "acme", "level": "KEY_LEVEL_PARTNER", "environment": "production"} | fields


@dataclasses.dataclass
class NotImported:
    code: grpc.StatusCode
    reason: str
    metadata: dict
    fields: list


CODES = {code.value[0]: code for code in Code}


def outcome(result) -> str | NotImported:
    """The id of an imported key, or why there is none."""
    if result.WhichOneof("result") == "key_id":
        return result.key_id
    # The class by reflection and that of the requirements have one wire format.
    status = status_pb2.Status.FromString(result.error.SerializeToString())
    must(status.message, "an error without a message")
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad_request)
    fields = [violation.field for violation in bad_request.field_violations]
    return NotImported(CODES[status.code], info.reason, dict(info.metadata), fields)


def import_keys(world: World, *entries: dict, caller: Caller | None = None, **fields) -> list:
    request = {"realm": world.realm, "entries": entries} | fields
    results = (caller or world.operator).call("ImportKeys", **request).results
    same(len(results), len(entries), "the number of results")
    return [outcome(result) for result in results]


def import_one(world: World, text: str, **fields) -> Issued:
    [key_id] = import_keys(world, entry(world, text, **fields))
    must(isinstance(key_id, str), f"it was not imported: {key_id}")
    return Issued(world.operator.call("GetKey", key_id=key_id).key, text)


@check
def reflection_tells_that_imported_texts_are_to_be_redacted(world: World):
    fields = world.schema.request("ImportKeys").DESCRIPTOR.fields_by_name["entries"].message_type.fields_by_name
    for name in ("text", "sha256"):
        must(fields[name].GetOptions().debug_redact, f"{name} of an entry is not debug_redact")
    for method in ("IssueKey", "RotateKey"):
        descriptor = world.schema.response(method).DESCRIPTOR
        must(descriptor.fields_by_name["plain_key"].GetOptions().debug_redact, f"plain_key of {method}")


@check
def a_key_of_another_system_goes_on_with_its_text(world: World):
    text = old_text()
    issued = import_one(world, text, name="from before", scopes=["write"], labels={"a": "b"},
                        expire_time=from_now(3600), allowed_cidrs=["10.0.0.0/8"])
    key = issued.key
    same((key.realm, key.partner, key.environment), (world.realm, "acme", "production"), "where the key belongs")
    same((key.name, dict(key.labels)), ("from before", {"a": "b"}), "its name and labels")
    same((list(key.scopes), key.full_access), (["write"], False), "what it may do")
    same((world.state_of(key), world.level_of(key)), ("KEY_STATE_ACTIVE", "KEY_LEVEL_PARTNER"), "its state and level")
    same(key.created_by, world.operator_id, "who imported it")
    [secret] = key.secrets
    must(secret.imported, "its text is told as one of claviger's own")
    same((uuid.UUID(key.id).version, key.hint[-4:]), (7, text[-4:]), "its id and hint")
    must(len(key.hint) < 16, "the hint shows more than the last four characters")
    answer = world.expect("VERDICT_ALLOWED", issued, scopes=["read"], client_ip="10.1.2.3", partner="acme")
    same((answer.key.id, list(answer.key.scopes)), (key.id, ["read", "write"]), "the proven key")
    world.expect("VERDICT_ADDRESS_DENIED", issued, client_ip="192.0.2.1")
    world.expect("VERDICT_SCOPE_MISSING", issued, scopes=["admin"], client_ip="10.1.2.3")
    world.expect("VERDICT_ENVIRONMENT_MISMATCH", issued, environment="staging")
    # In another realm it is nobody's.
    world.expect("VERDICT_UNKNOWN", text, realm=world.plain_realm, environment="")
    for wrong in (keytext.with_one_character_changed(text, -1), text.lower(), text[:-1], text + "x"):
        world.expect("VERDICT_UNKNOWN", wrong)
    kinds = [event.kind for event in world.operator.every_page("ListEvents", "events", key_id=key.id)]
    same(kinds, ["key.imported"], "the events")
    listed = {key.id for key in world.operator.every_page("ListKeys", "keys", realm=world.realm, partner="acme")}
    must(key.id in listed, "it is not listed")


@check
def a_key_is_imported_by_the_hash_of_its_text(world: World):
    # A hash in which the two alphabets of base64 differ, so that both are tried in earnest.
    text = old_text()
    while not set(b"+/") <= set(base64.b64encode(hash_of(text))):
        text = old_text()
    digest = hash_of(text)
    forms = {
        "hexadecimal digits": digest.hex(),
        "capital hexadecimal digits": digest.hex().upper(),
        "base64": base64.b64encode(digest).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(digest).decode(),
    }
    for what, form in forms.items():
        with case(f"a hash in {what}"):
            [key_id] = import_keys(world, entry(world, sha256=form))
            must(isinstance(key_id, str), f"it was not imported: {key_id}")
            key = world.operator.call("GetKey", key_id=key_id).key
            must(digest.hex()[:8] in key.hint.lower(), "the hint is not of the hash's first eight digits")
            answer = world.expect("VERDICT_ALLOWED", text)
            same(answer.key.id, key_id, "the proven key")
            world.expect("VERDICT_UNKNOWN", form)
            # Each other form is the same text, and so is the text.
            for other in (*({"sha256": other} for other in forms.values()), {"text": text}):
                [refused] = import_keys(world, entry(world, **other))
                same((refused.code, refused.reason), (Code.ALREADY_EXISTS, "ALREADY_IMPORTED"), "the second import")
                same(refused.metadata.get("key_id"), key_id, "the key that has the text")
            world.operator.call("DeleteKey", key_id=key_id)
            world.expect("VERDICT_UNKNOWN", text)


@check
def good_entries_are_imported_and_bad_ones_hurt_only_themselves(world: World):
    good, twice, shortest = old_text(), old_text(), old_text()[-22:]
    longest = "".join(random.choices(string.ascii_letters + string.digits, k=512))
    of_all = "A0a-._~+/" + old_text() + "=="
    invalid, missing, taken = Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS
    rows = [
        ("a good one", entry(world, good), None, ""),
        ("21 characters", entry(world, old_text()[:21]), invalid, "text"),
        ("22 characters", entry(world, shortest), None, ""),
        ("512 characters", entry(world, longest), None, ""),
        ("513 characters", entry(world, longest + "x"), invalid, "text"),
        ("every sign of the alphabet", entry(world, of_all), None, ""),
        ("a space", entry(world, "s3fzXw8Rk2VbN5yL m9Qp4TdHj7CgE1"), invalid, "text"),
        ("a comma", entry(world, "s3fzXw8Rk2VbN5yL,m9Qp4TdHj7CgE1"), invalid, "text"),
        ("a colon", entry(world, "s3fzXw8Rk2VbN5yL:m9Qp4TdHj7CgE1"), invalid, "text"),
        ("a letter beyond ASCII", entry(world, "s3fzXw8Rk2VbN5yLém9Qp4TdHj7CgE1"), invalid, "text"),
        ("an equals sign amidst", entry(world, "s3fzXw8Rk2VbN5yL=m9Qp4TdHj7CgE1"), invalid, "text"),
        ("a line break", entry(world, old_text() + "\n"), invalid, "text"),
        ("one character", entry(world, "x" * 40), invalid, "text"),
        ("two characters", entry(world, "xy" * 20), invalid, "text"),
        ("nothing", entry(world, ""), invalid, "text"),
        ("no secret at all", entry(world), invalid, ""),
        ("one that comes again", entry(world, twice), None, ""),
        ("the same again", entry(world, twice), taken, ""),
        ("the same again by its hash", entry(world, sha256=hash_of(twice).hex()), taken, ""),
        ("63 digits", entry(world, sha256=hash_of("x").hex()[1:]), invalid, "sha256"),
        ("65 digits", entry(world, sha256=hash_of("x").hex() + "0"), invalid, "sha256"),
        ("a digit that is none", entry(world, sha256="g" + hash_of("x").hex()[1:]), invalid, "sha256"),
        ("31 bytes of base64", entry(world, sha256=base64.b64encode(b"x" * 31).decode()), invalid, "sha256"),
        ("an empty hash", entry(world, sha256=""), invalid, "sha256"),
        ("no partner", entry(world, old_text(), partner=""), invalid, "partner"),
        ("an unknown partner", entry(world, old_text(), partner="nobody"), missing, ""),
        ("an unknown project", entry(world, old_text(), project="nosuch", level=0), missing, ""),
        ("another partner's project", entry(world, old_text(), project="gamma", level=0), missing, ""),
        ("no level", entry(world, old_text(), level=0), invalid, "level"),
        ("no environment", entry(world, old_text(), environment=""), invalid, "environment"),
        ("an unknown environment", entry(world, old_text(), environment="nowhere"), invalid, "environment"),
        ("an unknown scope", entry(world, old_text(), scopes=["nosuch"]), invalid, "scopes"),
        ("scopes beside full access", entry(world, old_text(), scopes=["read"], full_access=True), invalid,
         "full_access"),
        ("a range with host bits", entry(world, old_text(), allowed_cidrs=["10.0.0.1/8"]), invalid, "allowed_cidrs"),
        ("an expiry in the past", entry(world, old_text(), expire_time=from_now(-60)), invalid, "expire_time"),
        ("a control character in the name", entry(world, old_text(), name="two\nlines"), invalid, "name"),
        ("17 labels", entry(world, old_text(), labels={f"label{n}": "x" for n in range(17)}), invalid, "labels"),
        ("a project key", entry(world, old_text(), project="beta", level=0), None, ""),
    ]
    entries = [row[1] for row in rows]
    looked = import_keys(world, *entries, dry_run=True)
    world.expect("VERDICT_UNKNOWN", good)
    done = import_keys(world, *entries)
    again = import_keys(world, *entries)
    for (what, sent, code, leaf), in_look, result, repeated in zip(rows, looked, done, again):
        with case(f"{'imported' if code is None else 'not imported'}: {what}"):
            if code is None:
                same(in_look, "", "the look")
                must(isinstance(result, str), f"it was refused: {result}")
                answer = world.expect("VERDICT_ALLOWED", sent["text"], any_target=True)
                same(answer.key.id, result, "the proven key")
                same(repeated.reason, "ALREADY_IMPORTED", "what is said of it the second time")
                same(repeated.metadata.get("key_id"), result, "the key that has the text")
                continue
            for refused in (in_look, result, repeated):
                must(isinstance(refused, NotImported), "it was imported")
                same(refused.code, code, "the code")
                must(refused.reason, "an error without ErrorInfo")
                must(any(leaf in field for field in refused.fields) or not leaf, f"{refused.fields} instead of {leaf}")
                same(refused.reason == "ALREADY_IMPORTED", code == taken, "whether it is there already")
            if "text" in sent and code != taken:
                verdict = world.verdict(world.verify(sent["text"], any_target=True))
                must(verdict in PROVEN_NOTHING, "what was refused was imported all the same")


@check
def a_text_is_imported_once_in_all_realms(world: World):
    text = old_text()
    issued = import_one(world, text)
    plain = {"partner": "acme", "level": 0, "environment": ""}
    [refused] = import_keys(world, entry(world, text, **plain), realm=world.plain_realm)
    same((refused.code, refused.reason), (Code.ALREADY_EXISTS, "ALREADY_IMPORTED"), "the import into another realm")
    manager = world.operator.with_key(world.key_of_the_authority("manage", world.plain_realm).text)
    [refused] = import_keys(world, entry(world, text, **plain), realm=world.plain_realm, caller=manager)
    same(refused.reason, "ALREADY_IMPORTED", "the import by a manager of another realm")
    must(issued.id not in refused.metadata.values(), "a manager was told of a foreign key")
    world.operator.call("RevokeKey", key_id=issued.id)
    [refused] = import_keys(world, entry(world, text))
    same(refused.reason, "ALREADY_IMPORTED", "the import of a revoked key's text")
    world.expect("VERDICT_REVOKED", issued)
    world.operator.call("DeleteKey", key_id=issued.id)
    [refused] = import_keys(world, entry(world, text))
    same(refused.reason, "ALREADY_IMPORTED", "the import of the text of a key that was revoked and deleted")
    text = old_text()
    issued = import_one(world, text)
    world.operator.call("DeleteKey", key_id=issued.id)
    [other] = import_keys(world, entry(world, text, **plain), realm=world.plain_realm)
    must(isinstance(other, str) and other != issued.id, "a deleted key's text was not imported anew")
    world.expect("VERDICT_ALLOWED", text, realm=world.plain_realm, environment="")
    world.expect("VERDICT_UNKNOWN", text)


@check
def an_imported_text_may_begin_like_one_of_clavigers_own(world: World):
    foreign = keytext.with_another_id(world.issue().text, uuid.uuid4())
    for text in (f"{world.prefix}_live_{old_text()[-32:]}", f"{world.prefix}_{old_text()[-32:]}", foreign):
        issued = import_one(world, text)
        world.expect("VERDICT_ALLOWED", issued)
        other = world.verify(keytext.with_one_character_changed(text, -1))
        must(world.verdict(other) in PROVEN_NOTHING, "another text is taken for it")


@check
def an_imported_key_is_rotated_to_a_text_of_clavigers_own(world: World):
    old = import_one(world, old_text())
    new = rotate(world, old, 1.2)
    same(keytext.Parts(new.text).key_id, old.id, "the id in the new text")
    same([secret.imported for secret in new.key.secrets], [True, False], "which of its texts was imported")
    must(new.key.hint.endswith(new.text[-4:]), "the hint is not that of the new text")
    answers = [world.expect("VERDICT_ALLOWED", issued) for issued in (old, new)]
    must(answers[0].key == answers[1].key, "the two texts are told as different keys")
    until(lambda: world.verdict(world.verify(old.text)) == "VERDICT_EXPIRED", "the end of an overlap")
    world.expect("VERDICT_ALLOWED", new)
    newest = rotate(world, old)
    world.expect("VERDICT_UNKNOWN", old.text)
    world.expect("VERDICT_ALLOWED", newest)


@check
def an_import_that_is_sent_again_under_its_name_is_answered_as_before(world: World):
    good, bad = entry(world, old_text()), entry(world, "x" * 40)
    request = {"realm": world.realm, "entries": [good, bad], "request_id": str(uuid.uuid4())}
    first = world.operator.call("ImportKeys", **request)
    must(not first.replayed, "the first answer")
    again = world.operator.call("ImportKeys", **request)
    must(again.replayed, "the second answer")
    same(again.revision, first.revision, "the revision of the first time")
    before, after = ([outcome(result) for result in answer.results] for answer in (first, again))
    same((after[0], after[1].code), (before[0], before[1].code), "the results of the first time")
    must(isinstance(after[0], str), "the good one is told as taken")
    world.operator.refused_field("request_id", "ImportKeys", **request | {"entries": [good]})
    # A look neither takes nor gives a name.
    for other in ({"request_id": str(uuid.uuid4())}, {}):
        look = world.operator.call("ImportKeys", **{"realm": world.realm, "entries": [good], "dry_run": True} | other)
        same(outcome(look.results[0]).reason, "ALREADY_IMPORTED", "the look without the name")


@check
def an_import_as_a_whole_can_be_refused(world: World):
    good = entry(world, old_text())
    world.operator.refused_field("entries", "ImportKeys", realm=world.realm, entries=[good] * 1001)
    world.operator.refused_field("realm", "ImportKeys", entries=[good])
    world.operator.refused("ImportKeys", Code.NOT_FOUND, realm=f"py-{letters(10)}", entries=[good])
    # The keys of this authority itself are not taken over from elsewhere. The contract names no code for this.
    own = entry(world, old_text(), partner=world.realm, level=0, environment="", scopes=["manage"])
    try:
        [refused] = import_keys(world, own, realm="claviger")
        must(isinstance(refused, NotImported), "a key of the authority was imported")
    except grpc.RpcError as error:
        codes = (Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION)
        must(Refusal(error).code in codes, f"the code {Refusal(error).code.name}")
    world.expect("VERDICT_UNKNOWN", good["text"])


# ---- ending keys -----------------------------------------------------------------------------------------------------


def realm_of_its_own(world: World, **fields) -> str:
    """A realm with the partners `acme` and `umbrella`, where a check may end what it likes."""
    realm = world.new_realm_message() | fields
    world.operator.call("PutRealm", realm=realm)
    for partner, project in (("acme", "one"), ("acme", "two"), ("umbrella", "three")):
        world.operator.call("PutPartner", partner={"realm": realm["id"], "id": partner})
        world.operator.call("PutProject", project={"realm": realm["id"], "id": project, "partner": partner})
    return realm["id"]


def expect_each(world: World, realm: str, ended: set[str], keys: dict[str, Issued], caller: Caller | None = None):
    """That those are ended which are named, and no others: by verdict, by state and in the list."""
    states = {}
    for state in ("KEY_STATE_ACTIVE", "KEY_STATE_REVOKED"):
        for key in world.operator.every_page("ListKeys", "keys", realm=realm, states=[state]):
            states[key.id] = state
    for name, issued in keys.items():
        verdict, state = "VERDICT_ALLOWED", "KEY_STATE_ACTIVE"
        if name in ended:
            verdict, state = "VERDICT_REVOKED", "KEY_STATE_REVOKED"
        environment = issued.key.environment
        answer = world.verify(issued.text, caller, realm=realm, environment=environment, any_target=True)
        same(world.verdict(answer), verdict, f"the verdict on the key {name!r}")
        same(world.state_of(world.operator.call("GetKey", key_id=issued.id).key), state, f"the state of {name!r}")
        same(states.get(issued.id), state, f"the list in which {name!r} stands")


@check
def many_keys_are_ended_at_once_at_each_level(world: World):
    def everything(name):
        return True

    for what, filters, belongs in (
        ("a realm", {}, everything),
        ("a partner", {"partner": "acme"}, lambda name: "acme" in name),
        ("a project", {"project": "one"}, lambda name: "one" in name),
        ("a partner's project", {"partner": "acme", "project": "two"}, lambda name: "two" in name),
        ("an environment", {"environment": "staging"}, lambda name: "staging" in name),
        ("a partner's environment", {"partner": "acme", "environment": "production"},
         lambda name: "acme" in name and "production" in name),
    ):
        with case(f"the keys of {what} are ended at once"):
            realm = realm_of_its_own(world)
            keys = {}
            owners = (("acme", None), ("acme", "one"), ("acme", "two"), ("umbrella", None), ("umbrella", "three"))
            for partner, project in owners:
                for environment in ("production", "staging"):
                    bound = {"project": project} if project else {}
                    issued = world.issue(realm=realm, partner=partner, environment=environment, **bound)
                    keys[f"{partner} {project or 'whole'} {environment}"] = issued
            imported = old_text()
            [key_id] = import_keys(world, entry(world, imported), realm=realm)
            keys["acme imported production"] = Issued(world.operator.call("GetKey", key_id=key_id).key, imported)
            ended = {name for name in keys if belongs(name)}
            request = {"realm": realm, "reason": f"all of {what}"} | filters

            look = world.operator.call("RevokeKeys", **request, dry_run=True)
            same(look.would_revoke, len(ended), "how many would be ended")
            same({key.id for key in look.examples} <= {keys[name].id for name in ended}, True, "the examples")
            same(len(look.examples), min(10, len(ended)), "the number of examples")
            ids = [key.id for key in look.examples]
            same(ids, sorted(ids, reverse=True), "the newest first")
            expect_each(world, realm, set(), keys)

            done = world.operator.call("RevokeKeys", **request, wait="WAIT_EVERYWHERE")
            same((done.would_revoke, len(done.examples)), (0, 0), "what a look alone tells")
            same((done.confirmed, done.replayed), (True, False), "the answer")
            expect_each(world, realm, ended, keys)
            told = world.operator.call("GetKey", key_id=keys[min(ended)].id).key
            same(told.revoke_reason, f"all of {what}", "the reason")
            must(abs(time.time() - seconds(told.revoke_time)) < 60, "revoked another day")
            [event] = world.operator.every_page("ListEvents", "events", realm=realm, kind="keys.revoked")
            same(event.revision, done.revision, "the revision in the audit trail")
            must(f"all of {what}" in event.detail.values(), "the reason is not in the audit trail")

            # What is issued afterwards is not affected.
            later = {"later": world.issue(realm=realm, partner="acme"),
                     "later one": world.issue(realm=realm, partner="acme", project="one", environment="staging")}
            expect_each(world, realm, ended, keys | later)
            left = [name for name in ("acme production", "acme one staging") if belongs(name)]
            look = world.operator.call("RevokeKeys", **request, dry_run=True)
            same(look.would_revoke, len(left), "how many are left to end")
            for method, fields in (("RotateKey", {}), ("EnableKey", {}), ("DisableKey", {}),
                                   ("UpdateKey", {"update_mask": {"paths": ["name"]}})):
                refused_by_state(world, method, key_id=keys[min(ended)].id, **fields)


@check
def many_keys_are_ended_that_were_issued_before_a_time(world: World):
    realm = realm_of_its_own(world)
    keys = {name: world.issue(realm=realm) for name in ("first", "second", "third")}
    border = keys["second"].key.create_time
    request = {"realm": realm, "issued_before": time_of(border)}
    same(world.operator.call("RevokeKeys", **request, dry_run=True).would_revoke, 1, "how many would be ended")
    world.operator.call("RevokeKeys", **request)
    expect_each(world, realm, {"first"}, keys)
    for what, leaf, fields in (
        ("a time to come", "issued_before", {"issued_before": from_now(3600)}),
        ("what is no time", "issued_before", {"issued_before": {"seconds": 2**62, "nanos": -1}}),
        ("a reason of 257 characters", "reason", {"reason": "é" * 257}),
        ("a reason with a control character", "reason", {"reason": "a\x1bb"}),
        ("no realm", "realm", {"realm": ""}),
    ):
        with case(f"refused in RevokeKeys: {what}"):
            world.operator.refused_field(leaf, "RevokeKeys", **{"realm": realm} | fields)
    world.operator.refused("RevokeKeys", Code.NOT_FOUND, realm=f"py-{letters(10)}")
    # What does not exist is no word for everything. The contract names no code for this.
    for fields in ({"partner": "nobody"}, {"project": "nosuch"}, {"partner": "acme", "project": "three"},
                   {"environment": "nowhere"}):
        with case(f"nothing is ended by {fields}"):
            with contextlib.suppress(grpc.RpcError):
                world.operator.call("RevokeKeys", realm=realm, **fields)
            expect_each(world, realm, {"first"}, keys)
    expect_each(world, realm, {"first"}, keys)


@check
def a_repeated_end_of_many_spares_what_was_issued_since(world: World):
    realm = realm_of_its_own(world)
    keys = {"old": world.issue(realm=realm)}
    request = {"realm": realm, "reason": "leaked", "request_id": str(uuid.uuid4())}
    first = world.operator.call("RevokeKeys", **request)
    keys["new"] = world.issue(realm=realm)
    again = world.operator.call("RevokeKeys", **request)
    same((again.replayed, again.revision), (True, first.revision), "the second answer")
    expect_each(world, realm, {"old"}, keys)
    for other in ({"partner": "acme"}, {"reason": "other"}, {"issued_before": from_now(-1)}):
        world.operator.refused_field("request_id", "RevokeKeys", **request | other)
    expect_each(world, realm, {"old"}, keys)


@check
def nobody_ends_with_many_what_is_not_theirs(world: World):
    realm = realm_of_its_own(world, admin_scope="admin")
    keys = {"own": world.issue(realm=realm), "foreign": world.issue(realm=realm, partner="umbrella"),
            "staging": world.issue(realm=realm, environment="staging"),
            "project": world.issue(realm=realm, project="one", partner="acme")}
    elsewhere = world.issue()
    gateway_key = world.key_of_the_authority("verify", realm)
    gateway = world.operator.with_key(gateway_key.text)
    gateway.refused("RevokeKeys", Code.PERMISSION_DENIED, realm=realm)
    manager = world.operator.with_key(world.key_of_the_authority("manage", realm).text)
    for other in (world.realm, "claviger"):
        manager.refused("RevokeKeys", Code.PERMISSION_DENIED, Code.NOT_FOUND, realm=other)
    delegate_key = world.issue(realm=realm, scopes=["admin"])
    delegate = world.operator.with_key(delegate_key.text)
    for fields in ({"partner": "umbrella"}, {"partner": "nobody"}, {"environment": "staging"}, {"realm": world.realm}):
        delegate.refused("RevokeKeys", Code.PERMISSION_DENIED, **{"realm": realm} | fields)
    plain = world.operator.with_key(keys["own"].text)
    plain.refused("RevokeKeys", Code.PERMISSION_DENIED, Code.UNAUTHENTICATED, realm=realm)
    expect_each(world, realm, set(), keys)

    same(delegate.call("RevokeKeys", realm=realm, dry_run=True).would_revoke, 3, "what a partner's own key would end")
    delegate.call("RevokeKeys", realm=realm, reason="by its partner")
    expect_each(world, realm, {"own", "project", "delegate"}, keys | {"delegate": delegate_key})
    for method, fields in (("RevokeKeys", {"realm": realm}), ("ListKeys", {"realm": realm}),
                           ("IssueKey", world.key_request(realm=realm))):
        delegate.refused(method, Code.UNAUTHENTICATED, **fields)

    # A manager ends all of its realm; neither itself nor its gateways are of it.
    manager.call("RevokeKeys", realm=realm)
    expect_each(world, realm, {"own", "foreign", "staging", "project"}, keys, caller=gateway)
    # An operator ends those of a realm's gateways and managers.
    world.operator.call("RevokeKeys", realm="claviger", partner=realm)
    gateway.refused("Verify", Code.UNAUTHENTICATED, **world.question(elsewhere.text, realm=realm))
    manager.refused("ListKeys", Code.UNAUTHENTICATED, realm=realm)
    world.expect("VERDICT_ALLOWED", elsewhere)


@check
def an_operator_does_not_lock_itself_out(world: World):
    refused_by_state(world, "RevokeKeys", "LOCKS_OUT_CALLER", realm="claviger")
    same(world.operator.call("GetRealm", realm_id="claviger").realm.id, "claviger", "the operator's answer")


@check
def whoever_holds_a_key_can_end_it(world: World):
    suspended = {"realm": world.realm, "id": "sleepy"}
    keys = {
        "one without scopes": world.issue(name="told to nobody", labels={"a": "b"}),
        "one of a project": world.issue(project="beta", scopes=["read"]),
        "one that is good elsewhere only": world.issue(allowed_cidrs=["192.0.2.0/24"]),
        "a disabled one": world.issue(),
        "one of a suspended partner": world.issue(partner="sleepy"),
        "an imported one": import_one(world, old_text()),
    }
    world.operator.call("DisableKey", key_id=keys["a disabled one"].id)
    world.operator.call("PutPartner", partner=suspended | {"suspended": True})
    for what, issued in keys.items():
        with case(f"{what} ends itself"):
            holder = world.operator.with_key(issued.text)
            for leaf, fields in (("reason", {"reason": "é" * 257}), ("reason", {"reason": "a\nb"})):
                holder.refused_field(leaf, "RevokeSelf", **fields)
            answer = holder.call("RevokeSelf", reason="found on the street ☂")
            told = {field.name for field, _ in answer.key.ListFields()}
            same(told, {"id", "realm", "state", "create_time", "revoke_time"}, "what is told")
            same((answer.key.id, answer.key.realm), (issued.id, world.realm), "the key")
            same(world.state_of(answer.key), "KEY_STATE_REVOKED", "the state")
            key = world.operator.call("GetKey", key_id=issued.id).key
            same(key.revoke_reason, "found on the street ☂", "the reason")
            world.expect("VERDICT_REVOKED", issued, any_target=True)
            again = holder.call("RevokeSelf", reason="another reason")
            must(again.key == answer.key, "to repeat it changed something")
            event = world.operator.call("ListEvents", key_id=issued.id, page_size=1).events[0]
            same((event.kind, event.actor, event.revision), ("key.revoked", issued.id, answer.revision), "the event")
    world.operator.call("PutPartner", partner=suspended)
    # Either text of a rotation is one of the key.
    old = world.issue()
    new = rotate(world, old, 600)
    world.operator.with_key(old.text).call("RevokeSelf")
    world.expect("VERDICT_REVOKED", new)
    # What proves nothing ends nothing.
    issued = world.issue()
    forged = keytext.with_another_secret(issued.text)
    for header in (None, "Bearer garbage", f"Basic {issued.text}", f"Bearer {forged}"):
        world.operator.with_header(header).refused("RevokeSelf", Code.UNAUTHENTICATED)
    world.expect("VERDICT_ALLOWED", issued)


# ---- how keys are used -----------------------------------------------------------------------------------------------

# Servers write their counts down every few seconds.
USAGE_SECONDS = 30


def usage_of(world: World, key: Issued, **fields):
    return world.operator.call("GetKeyUsage", key_id=key.id, **fields)


def counted(world: World, counts) -> dict:
    found = {world.schema.name("Verdict", count.verdict): count.count for count in counts}
    same(len(found), len(counts), "the number of different verdicts")
    must(all(found.values()), "a verdict that did not occur is told")
    return found


@check
def uses_are_counted_by_verdict(world: World):
    began = time.time()
    issued, idle = world.issue(scopes=["read"]), world.issue()
    imported = import_one(world, old_text())
    must(not issued.key.HasField("last_used_time"), "a new key was used")
    same(len(usage_of(world, issued).totals), 0, "the uses of a new key")
    for _ in range(3):
        world.expect("VERDICT_ALLOWED", issued)
    world.operator.call("VerifyBatch", requests=[world.question(issued.text)] * 2)
    world.expect("VERDICT_SCOPE_MISSING", issued, scopes=["admin"])
    world.expect("VERDICT_ENVIRONMENT_MISMATCH", issued, environment="staging")
    world.expect("VERDICT_ALLOWED", imported)
    # What proves nothing is nobody's use, and to explain is not to use.
    world.expect("VERDICT_UNKNOWN", keytext.with_another_secret(issued.text))
    world.expect("VERDICT_MALFORMED", keytext.with_one_character_changed(issued.text, -1))
    world.operator.call("Explain", verify=world.question(issued.text))

    wanted = {"VERDICT_ALLOWED": 5, "VERDICT_SCOPE_MISSING": 1, "VERDICT_ENVIRONMENT_MISMATCH": 1}

    def all_of_them():
        found = usage_of(world, issued)
        return sum(count.count for count in found.totals) >= 7 and found

    usage = until(all_of_them, "the uses of a key", USAGE_SECONDS)
    same(counted(world, usage.totals), wanted, "the uses")
    in_buckets = collections.Counter()
    for bucket in usage.buckets:
        same((bucket.start_time.seconds % 3600, bucket.start_time.nanos), (0, 0), "the begin of an hour")
        must(began - 3600 < bucket.start_time.seconds <= time.time(), "the hour is another one")
        in_buckets.update(counted(world, bucket.counts))
    same(dict(in_buckets), wanted, "the uses hour by hour")
    must(began - CLOCK_TOLERANCE_SECONDS < seconds(usage.last_used_time) < time.time() + CLOCK_TOLERANCE_SECONDS,
         "when it was last used")
    until(lambda: usage_of(world, imported).totals, "the use of an imported key", USAGE_SECONDS)
    same(counted(world, usage_of(world, imported).totals), {"VERDICT_ALLOWED": 1}, "the uses of an imported key")
    same(len(usage_of(world, idle).totals), 0, "the uses of an idle key")

    key = world.operator.call("GetKey", key_id=issued.id).key
    must(key.last_used_time == usage.last_used_time, "the key tells another last use than its usage")
    must(key.secrets[0].last_used_time == usage.last_used_time, "its secret tells another last use")
    must(not world.operator.call("GetKey", key_id=idle.id).key.HasField("last_used_time"), "an idle key was used")
    listed = {key.id: key for key in world.operator.every_page("ListKeys", "keys", realm=world.realm)}
    must(listed[issued.id].last_used_time == usage.last_used_time, "the list tells another last use")

    # Another range holds none of it, and tells of the last use all the same.
    old = usage_of(world, issued, start_time=from_now(-10 * 86400), end_time=from_now(-9 * 86400))
    same((len(old.totals), len(old.buckets)), (0, 0), "the uses of another day")
    must(old.last_used_time == usage.last_used_time, "the last use, whatever the range")
    whole = usage_of(world, issued, start_time=from_now(-399 * 86400))
    same(counted(world, whole.totals), wanted, "the uses of 399 days")
    world.operator.refused_field("_time", "GetKeyUsage", key_id=issued.id, start_time=from_now(-402 * 86400),
                                 end_time=from_now(-1))
    world.operator.refused_field("_time", "GetKeyUsage", key_id=issued.id, start_time={"seconds": 2**62, "nanos": -1})

    # It outlives the key.
    world.operator.call("DeleteKey", key_id=issued.id)
    same(counted(world, usage_of(world, issued).totals), wanted, "the uses of a deleted key")


@check
def to_call_the_authority_is_to_use_a_key(world: World):
    gateway = world.key_of_the_authority("verify")
    world.expect("VERDICT_ALLOWED", world.issue(), caller=world.operator.with_key(gateway.text))
    until(lambda: world.operator.call("GetKey", key_id=gateway.id).key.HasField("last_used_time"),
          "the use of a gateway's key", USAGE_SECONDS)


@check
def it_is_told_which_text_of_a_key_is_still_in_use(world: World):
    old = world.issue()
    new = rotate(world, old, 600)
    world.expect("VERDICT_ALLOWED", old)

    def told():
        secrets = world.operator.call("GetKey", key_id=old.id).key.secrets
        return secrets[0].HasField("last_used_time") and secrets

    secrets = until(told, "the use of the old text", USAGE_SECONDS)
    must(not secrets[1].HasField("last_used_time"), "the new text was used")
    world.expect("VERDICT_ALLOWED", new)
    until(lambda: world.operator.call("GetKey", key_id=old.id).key.secrets[1].HasField("last_used_time"),
          "the use of the new text", USAGE_SECONDS)


@check
def keys_are_listed_by_their_use_and_their_end(world: World):
    realm = realm_of_its_own(world)
    idle, used = world.issue(realm=realm), world.issue(realm=realm)
    soon = world.issue(realm=realm, expire_time=from_now(600))
    late = world.issue(realm=realm, expire_time=from_now(7200))
    over = world.issue(realm=realm, expire_time=from_now(0.3))
    names = {idle.id: "idle", used.id: "used", soon.id: "soon", late.id: "late", over.id: "over"}

    def listed(**filters) -> list[str]:
        found = world.operator.every_page("ListKeys", "keys", realm=realm, page_size=2, **filters)
        return [names[key.id] for key in found]

    until(lambda: world.verdict(world.verify(over.text, realm=realm)) == "VERDICT_EXPIRED", "the expiry of a key")
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
        world.verify(used.text, realm=realm)
        key = world.operator.call("GetKey", key_id=used.id).key
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
            world.operator.refused_field(leaf, "ListKeys", realm=realm, **fields)
    token = world.operator.call("ListKeys", realm=realm, never_expires=True, page_size=1).next_page_token
    for other in ({}, {"never_expires": True, "unused_for": {"seconds": 1}}, {"expires_within": {"seconds": 1}}):
        world.operator.refused_field("page_token", "ListKeys", realm=realm, page_token=token, **other)


# ---- the new calls, and who may make them ----------------------------------------------------------------------------


@check
def a_key_that_is_not_ones_own_does_not_exist_for_the_new_calls_either(world: World):
    foreign = world.issue_exactly(realm=world.plain_realm, partner="acme")
    rotate(world, foreign, 600)
    manager = world.operator.with_key(world.key_of_the_authority("manage").text)
    gateway = world.operator.with_key(world.key_of_the_authority("verify").text)
    never = str(uuid.uuid4())
    calls = (
        ("UpdateKey", {"update_mask": {"paths": ["name"]}, "name": "stolen"}),
        ("RotateKey", {"overlap": {"seconds": 60}}),
        ("EndRotation", {"survivor": "SURVIVOR_NEW"}),
        ("GetKeyUsage", {}),
    )
    for method, fields in calls:
        with case(f"to a manager a foreign key is NOT_FOUND in {method}, like one that never was"):
            of_foreign = manager.refused(method, Code.NOT_FOUND, key_id=foreign.id, **fields)
            of_never = manager.refused(method, Code.NOT_FOUND, key_id=never, **fields)
            same(of_foreign.message, of_never.message, f"what {method} says of a foreign key and of none")
            world.operator.refused(method, Code.NOT_FOUND, key_id=never, **fields)
            for bad in ("not-a-uuid", "", foreign.text):
                world.operator.refused_field("key_id", method, key_id=bad, **fields)
        with case(f"a gateway may not {method}"):
            gateway.refused(method, Code.PERMISSION_DENIED, Code.NOT_FOUND, key_id=world.issue().id, **fields)
    gateway.refused("ImportKeys", Code.PERMISSION_DENIED, realm=world.realm, entries=[entry(world, old_text())])
    same(len(world.operator.call("GetKey", key_id=foreign.id).key.secrets), 2, "the secrets of the foreign key")

    # A manager does all of it in its own realm.
    issued = world.issue()
    new = rotate(world, issued, 600, caller=manager)
    same(update(world, issued, "name", caller=manager, name="managed").name, "managed", "the name")
    manager.call("EndRotation", key_id=issued.id, survivor="SURVIVOR_NEW")
    world.expect("VERDICT_ALLOWED", new)
    text = old_text()
    [key_id] = import_keys(world, entry(world, text), caller=manager)
    world.expect("VERDICT_ALLOWED", text)
    manager.call("GetKeyUsage", key_id=key_id)


@check
def a_partners_own_key_gives_no_more_than_it_holds_by_the_new_calls(world: World):
    scopes = [{"name": "read"}, {"name": "write", "implies": ["read"]}, {"name": "keys"},
              {"name": "owner", "implies": ["write", "keys"]}]
    realm = realm_of_its_own(world, admin_scope="keys", scopes=scopes)

    def issue(**fields) -> Issued:
        return world.issue(realm=realm, **fields)

    lesser = world.operator.with_key(issue(scopes=["read", "keys"], expire_time=from_now(7200)).text)
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
    must(world.operator.call("GetKey", key_id=reader.id).key == reader.key, "a refused update changed the key")
    update(world, reader, "scopes", "expire_time", caller=lesser, scopes=[], expire_time=from_now(600))
    rotate(world, reader, caller=lesser)

    for what, wider in (
        ("more scopes", issue(scopes=["write"], **bounds)),
        ("everything", issue(full_access=True, **bounds)),
        ("no end", issue(scopes=["read"])),
    ):
        with case(f"a partner's own key may not rotate one that has {what}"):
            refusal = lesser.refused("RotateKey", Code.PERMISSION_DENIED, key_id=wider.id)
            same(refusal.reason, "EXCEEDS_CALLER", "the reason")
            new = rotate(world, wider, 600)
            refusal = lesser.refused("EndRotation", Code.PERMISSION_DENIED, key_id=wider.id, survivor="SURVIVOR_OLD")
            same(refusal.reason, "EXCEEDS_CALLER", "the reason")
            lesser.call("EndRotation", key_id=wider.id, survivor="SURVIVOR_NEW")
            same(world.verdict(world.verify(new.text, realm=realm)), "VERDICT_ALLOWED", "the new text")
            # It can be narrowed.
            update(world, wider, "scopes", caller=lesser, scopes=[])
    for method, fields in (("UpdateKey", {"update_mask": {"paths": ["name"]}}), ("RotateKey", {}),
                           ("EndRotation", {"survivor": "SURVIVOR_NEW"}), ("GetKeyUsage", {})):
        for other in (issue(partner="umbrella"), issue(environment="staging")):
            lesser.refused(method, Code.NOT_FOUND, key_id=other.id, **fields)
    lesser.refused("ImportKeys", Code.PERMISSION_DENIED, realm=realm, entries=[entry(world, old_text())])
    lesser.call("GetKeyUsage", key_id=reader.id)


# ---- what has keys stays, and the audit trail ------------------------------------------------------------------------


@check
def what_keys_depend_on_is_frozen(world: World):
    frozen = world.realm_message()
    for what, fields in (
        ("the prefix", {"prefix": f"p{letters(8)}e"}),
        ("a tag", {"environments": [{"name": "production", "tag": "other"}, {"name": "staging", "tag": "test"}]}),
        ("an environment", {"environments": [{"name": "production", "tag": "live"}]}),
        ("a scope", {"scopes": [{"name": "read"}]}),
    ):
        with case(f"{what} that keys depend on stays"):
            world.operator.refused("PutRealm", Code.FAILED_PRECONDITION, realm=frozen | fields)
    world.operator.refused("DeleteRealm", Code.FAILED_PRECONDITION, realm_id=world.realm)
    world.operator.refused("DeletePartner", Code.FAILED_PRECONDITION, realm=world.realm, partner="pages")
    world.operator.refused("DeleteProject", Code.FAILED_PRECONDITION, realm=world.realm, project="night")


@check
def a_realm_without_keys_is_deleted_with_all_that_is_in_it(world: World):
    realm = world.new_realm_message()
    put = world.operator.call("PutRealm", realm=realm)
    world.operator.call("PutPartner", partner={"realm": realm["id"], "id": "acme"})
    world.operator.call("PutProject", project={"realm": realm["id"], "id": "beta", "partner": "acme"})
    issued = world.issue(realm=realm["id"])
    gateway = world.key_of_the_authority("verify", realm["id"])
    world.operator.refused("DeleteRealm", Code.FAILED_PRECONDITION, realm_id=realm["id"])
    world.operator.call("DeleteKey", key_id=issued.id)
    world.operator.refused("DeleteRealm", Code.FAILED_PRECONDITION, realm_id=realm["id"])
    world.operator.call("DeleteKey", key_id=gateway.id)
    world.operator.refused("DeleteRealm", Code.ABORTED, realm_id=realm["id"], if_revision=put.realm.revision + 1)
    deleted = world.operator.call("DeleteRealm", realm_id=realm["id"], if_revision=put.realm.revision)
    world.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])
    world.operator.refused_field("realm", "Verify", **world.question(issued.text, realm=realm["id"]))
    # What was done in it stays on record.
    events = world.operator.every_page("ListEvents", "events", realm=realm["id"])
    same((events[0].kind, events[0].revision), ("realm.deleted", deleted.revision), "the last event of the realm")
    must({"realm.put", "partner.put", "project.put", "key.issued", "key.deleted"} <= {e.kind for e in events},
         "its events are gone")


@check
def the_audit_trail_has_every_change_newest_first_without_gaps(world: World):
    events, token = [], ""
    while not events or events[-1].revision > world.first_revision:
        page = world.operator.call("ListEvents", page_size=1000, page_token=token)
        events.extend(page.events)
        token = page.next_page_token
        if not token:
            break
    revisions = [event.revision for event in events]
    must(revisions[0] >= world.operator.revision, "the last change is not in the audit trail")
    for newer, older in zip(revisions, revisions[1:]):
        same(older, newer - 1, f"the revision that follows on {newer}, newest first")
    must(revisions[-1] <= world.first_revision, "the audit trail does not reach back to the first change")

    kinds = {event.kind for event in events if event.revision >= world.first_revision}
    wanted = {"key.issued", "key.imported", "key.updated", "key.disabled", "key.enabled", "key.rotated",
              "key.rotation_ended", "key.revoked", "keys.revoked", "key.deleted", "realm.put", "realm.deleted",
              "partner.put", "project.put", "project.deleted"}
    must(wanted <= kinds, f"the audit trail lacks {sorted(wanted - kinds)}")
    ours = [event for event in events if event.realm == world.realm]
    must(ours and all(event.actor and event.peer for event in ours), "an event without an author or an origin")
    for event in events:
        # Every answer is searched for keys as it comes in; this looks for anything of that form besides.
        for value in (event.actor, event.peer, event.kind, *event.detail.keys(), *event.detail.values()):
            must(keytext.KEY_TEXT.search(value) is None, "an event holds what looks like a key")


@check
def events_are_found_by_what_they_are_about(world: World):
    everything = world.operator.every_page("ListEvents", "events", realm=world.realm, page_size=1000)
    middle = everything[len(everything) // 2].time
    border = {"seconds": middle.seconds, "nanos": middle.nanos}

    def before_border(event) -> bool:
        return (event.time.seconds, event.time.nanos) < (middle.seconds, middle.nanos)

    some_key = next(event.key_id for event in everything if event.kind == "key.disabled")
    for what, filters, belongs in (
        ("partner", {"partner": "pages"}, lambda event: event.partner == "pages"),
        ("kind", {"kind": "key.revoked"}, lambda event: event.kind == "key.revoked"),
        ("key", {"key_id": some_key}, lambda event: event.key_id == some_key),
        ("start", {"start_time": border}, lambda event: not before_border(event)),
        ("end", {"end_time": border}, before_border),
        ("kind and partner", {"kind": "key.issued", "partner": "acme"},
         lambda event: event.kind == "key.issued" and event.partner == "acme"),
    ):
        with case(f"events are found by {what}"):
            found = world.operator.every_page("ListEvents", "events", realm=world.realm, page_size=7, **filters)
            wanted = [event.revision for event in everything if belongs(event)]
            must(wanted, f"nothing to find by {what}")
            same([event.revision for event in found], wanted, f"the events by {what}")


# ---- the program -----------------------------------------------------------------------------------------------------


def run(endpoint: str, operator_key: str, secrets: Secrets):
    secrets.remember(operator_key)
    with connect(endpoint) as channel:
        world = World(channel, secrets, operator_key)
        for function in CHECKS:
            function(world)
            ok(function.__name__.replace("_", " "))
    print(f"python client: {passed} checks passed")


def main() -> int:
    if sys.argv[1:] == ["--self-test"]:
        print(f"python client: {keytext.self_test()} helper tests passed")
        return 0
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    endpoint, operator_key = os.environ.get("CLAVIGER_ENDPOINT"), os.environ.get("CLAVIGER_KEY")
    if not endpoint or not operator_key:
        print("CLAVIGER_ENDPOINT (host:port) and CLAVIGER_KEY (an operator's key) must be set", file=sys.stderr)
        return 2
    secrets = Secrets()
    try:
        run(endpoint, operator_key, secrets)
    except Exception:
        # Through the filter, because an error's words may come from the server.
        print(secrets.hidden(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
