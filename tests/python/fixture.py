"""The realms in which the checks take place, and the requests that most of them make."""

import dataclasses
import random
import string
import time

import grpc

import keytext
from wire import Caller, Schema, Secrets, must, same

Code = grpc.StatusCode

MAX_CACHE_SECONDS = 5

# Both clocks are those of one machine, or nearly so.
CLOCK_TOLERANCE_SECONDS = 5

PROVEN_NOTHING = ("VERDICT_MALFORMED", "VERDICT_UNKNOWN")


@dataclasses.dataclass
class IssuedKey:
    """A key as the server tells of it, and the API key, which is kept out of every representation."""

    key: object
    plain_key: str = dataclasses.field(repr=False)

    @property
    def id(self) -> str:
        return self.key.id


def letters(count: int) -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=count))


class Fixture:
    """One realm with two partners and their projects, and two realms more which differ in their rules."""

    def __init__(self, channel: grpc.Channel, calls, secrets: Secrets, operator_key: str):
        self.channel, self.secrets = channel, secrets
        self.schema = Schema(channel)
        self.operator = Caller(channel, calls, self.schema, secrets, key=operator_key)
        self.nobody = self.operator.with_header(None)
        self.operator_text = operator_key
        self.operator_id = keytext.Parts(operator_key).key_id

        suffix = letters(8)
        self.realm, self.prefix = f"py-{suffix}", f"p{suffix}a"
        # One environment, one level, and full access for who asks for no scope.
        self.plain_realm, self.plain_prefix = f"py-{suffix}-plain", f"p{suffix}b"
        # Keys live for at most an hour.
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

    def issue(self, caller: Caller | None = None, **fields) -> IssuedKey:
        response = (caller or self.operator).call("IssueKey", **self.key_request(**fields))
        return IssuedKey(response.key, response.plain_key)

    def issue_exactly(self, **fields) -> IssuedKey:
        """With nothing filled in."""
        response = self.operator.call("IssueKey", **fields)
        return IssuedKey(response.key, response.plain_key)

    def key_of_the_authority(self, scope: str, realm: str | None = None) -> IssuedKey:
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

    def expect(self, verdict: str, issued: IssuedKey | str, caller: Caller | None = None, **fields):
        """Asks, and checks the verdict and all that holds of every answer."""
        text = issued if isinstance(issued, str) else issued.plain_key
        response = self.verify(text, caller, **fields)
        same(self.verdict(response), verdict, "the verdict")
        self.holds_of_every_answer(response)
        if verdict not in PROVEN_NOTHING and isinstance(issued, IssuedKey):
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


def without_use(key):
    """The key without the times of its use, which are written at any moment after it."""
    copy = type(key)()
    copy.CopyFrom(key)
    for used in (copy, *copy.secrets):
        used.ClearField("last_used_time")
    return copy


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
