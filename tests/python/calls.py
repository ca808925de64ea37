"""Calls of KeyAdmin that several modules of checks make."""

import dataclasses
import hashlib
import random
import string

import grpc
from google.rpc import error_details_pb2, status_pb2

from fixture import Code, IssuedKey, Fixture
from wire import Caller, Refusal, must, same


def update(fixture: Fixture, key: IssuedKey, *paths: str, caller: Caller | None = None, **fields):
    """Changes what the paths name, and answers with the key as it is then."""
    return (caller or fixture.operator).call("UpdateKey", key_id=key.id, update_mask={"paths": paths}, **fields).key


def time_of(timestamp) -> dict:
    return {"seconds": timestamp.seconds, "nanos": timestamp.nanos}


def refused_by_state(fixture: Fixture, method: str, reason: str | None = None, **fields) -> Refusal:
    refusal = fixture.operator.refused(method, Code.FAILED_PRECONDITION, **fields)
    must(refusal.reason, f"{method}: FAILED_PRECONDITION without ErrorInfo")
    if reason is not None:
        same(refusal.reason, reason, f"the reason of {method}")
    return refusal


def rotate(fixture: Fixture, key: IssuedKey, overlap: float | None = None, caller: Caller | None = None,
           **fields) -> IssuedKey:
    if overlap is not None:
        fields["overlap"] = {"seconds": int(overlap), "nanos": round(overlap % 1 * 1e9)}
    response = (caller or fixture.operator).call("RotateKey", key_id=key.id, **fields)
    return IssuedKey(response.key, response.plain_key)


def old_text() -> str:
    """A key of another system, of the form that Peaka's have: a public part, a dot, 32 characters."""
    characters = string.ascii_letters + string.digits
    return "TtgGcQFq." + "".join(random.choices(characters, k=32))


def hash_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def entry(fixture: Fixture, text: str | None = None, **fields) -> dict:
    """A good entry of the main realm; its text is looked for in every answer from now on."""
    for secret in (text, fields.get("sha256")):
        if secret:
            fixture.secrets.remember(secret)
    known_by = {"plain_key": text} if text is not None else {}
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


def import_keys(fixture: Fixture, *entries: dict, caller: Caller | None = None, **fields) -> list:
    request = {"realm": fixture.realm, "entries": entries} | fields
    results = (caller or fixture.operator).call("ImportKeys", **request).results
    same(len(results), len(entries), "the number of results")
    return [outcome(result) for result in results]


def import_one(fixture: Fixture, text: str, **fields) -> IssuedKey:
    [key_id] = import_keys(fixture, entry(fixture, text, **fields))
    must(isinstance(key_id, str), f"it was not imported: {key_id}")
    return IssuedKey(fixture.operator.call("GetKey", key_id=key_id).key, text)


def realm_of_its_own(fixture: Fixture, **fields) -> str:
    """A realm with the partners `acme` and `umbrella`, where a check may end what it likes."""
    realm = fixture.new_realm_message() | fields
    fixture.operator.call("PutRealm", realm=realm)
    for partner, project in (("acme", "one"), ("acme", "two"), ("umbrella", "three")):
        fixture.operator.call("PutPartner", partner={"realm": realm["id"], "id": partner})
        fixture.operator.call("PutProject", project={"realm": realm["id"], "id": project, "partner": partner})
    return realm["id"]
