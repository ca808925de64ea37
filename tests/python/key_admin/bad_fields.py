"""Requests about keys with a bad field: each is named."""

from checks import case, check
from fixture import Code, Fixture, from_now
from wire import must, same


@check
def a_bad_field_of_a_key_is_named(fixture: Fixture):
    for what, leaf, fields in (
        ("an unknown scope", "scopes", {"scopes": ["read", "nosuch"]}),
        ("a scope that cannot be one", "scopes", {"scopes": ["Not A Scope"]}),
        ("65 scopes", "scopes", {"scopes": [f"scope{n}" for n in range(65)]}),
        ("scopes beside full access", "full_access", {"scopes": ["read"], "full_access": True}),
        ("a name of 129 characters", "name", {"name": "é" * 129}),
        ("a name with a control character", "name", {"name": "two\nlines"}),
        ("a name with a NUL", "name", {"name": "nul\0"}),
        ("a name with a C1 control character", "name", {"name": "next\x85line"}),
        ("an external id of 129 characters", "external_id", {"external_id": "é" * 129}),
        ("an external id with a control character", "external_id", {"external_id": "two\nlines"}),
        ("an external id with a NUL", "external_id", {"external_id": "nul\0"}),
        ("an external id with a C1 control character", "external_id", {"external_id": "next\x85line"}),
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
            fixture.operator.refused_field(leaf, "IssueKey", **fixture.key_request(**fields))
    # "No project" is a bad project or a bad level: either name helps.
    refusal = fixture.operator.refused(
        "IssueKey", Code.INVALID_ARGUMENT, **fixture.key_request(level="KEY_LEVEL_PROJECT")
    )
    must(any("project" in field or "level" in field for field in refusal.fields), "neither project nor level is named")


@check
def the_widest_good_fields_are_taken(fixture: Fixture):
    fixture.issue(
        name="é" * 128,
        labels={f"{n:02}" + "é" * 62: "é" * 256 for n in range(16)},
        allowed_cidrs=[f"10.{n}.0.0/16" for n in range(32)],
    )
    issued = fixture.issue()
    revoked = fixture.operator.call("RevokeKey", key_id=issued.id, reason="é" * 256).key
    same(len(revoked.revoke_reason), 256, "the length of the reason")


@check
def every_bad_field_is_named_at_once(fixture: Fixture):
    refusal = fixture.operator.refused_field(
        "name", "IssueKey", **fixture.key_request(name="two\nlines", expire_time=from_now(-60), scopes=["No Such"])
    )
    for leaf in ("name", "expire_time", "scopes"):
        must(any(leaf in field for field in refusal.fields), f"{leaf} is not named beside the others")


@check
def a_bad_field_of_another_request_is_named(fixture: Fixture):
    issued = fixture.issue()
    for what, leaf, method, fields in (
        ("a reason of 257 characters", "reason", "RevokeKey", {"key_id": issued.id, "reason": "é" * 257}),
        ("a reason with a control character", "reason", "RevokeKey", {"key_id": issued.id, "reason": "a\x1bb"}),
        *(("a key_id that is no UUID", "key_id", method, {"key_id": bad})
          for method in ("GetKey", "GetKeyScopes", "DisableKey", "EnableKey", "RevokeKey", "DeleteKey")
          for bad in ("not-a-uuid", "")),
        *((f"a page of {size}", "page_size", method, {"page_size": size} | fields)
          for method, fields in (
              ("ListKeys", {"realm": fixture.realm}),
              ("ListEvents", {"realm": fixture.realm}),
              ("ListRealms", {}),
              ("ListPartners", {"realm": fixture.realm}),
              ("ListProjects", {"realm": fixture.realm}))
          for size in (-1, -(2**31))),
        *((f"an external id {what}", "external_id", method, {"external_id": bad} | fields)
          for method, fields in (
              ("ListKeys", {"realm": fixture.realm}),
              ("UpdateKey", {"key_id": issued.id, "update_mask": {"paths": ["external_id"]}}))
          for what, bad in (("of 129 characters", "é" * 129), ("with a NUL", "nul\0"))),
        ("an external id that the mask does not name", "external_id", "UpdateKey",
         {"key_id": issued.id, "update_mask": {"paths": ["name"]}, "external_id": "x"}),
        ("a state that is unknown", "states", "ListKeys", {"realm": fixture.realm, "states": [99]}),
        *(("a token that is none", "page_token", method, {"page_token": "x"} | fields)
          for method, fields in (
              ("ListRealms", {}),
              ("ListPartners", {"realm": fixture.realm}),
              ("ListProjects", {"realm": fixture.realm}))),
        ("a way to wait that is unknown", "wait", "DisableKey", {"key_id": issued.id, "wait": 99}),
    ):
        with case(f"refused in {method}: {what}"):
            fixture.operator.refused_field(leaf, method, **fields)
    fixture.expect("VERDICT_ALLOWED", issued)


@check
def a_field_that_is_not_implemented_is_named_and_changes_nothing(fixture: Fixture):
    issued = fixture.issue()
    before = fixture.operator.call("GetKey", key_id=issued.id).key
    realm = {"realm": fixture.realm}
    for method, leaf, fields in (
        ("RevokeKeys", "filter.states", realm | {"states": ["KEY_STATE_ACTIVE"]}),
        ("RevokeKeys", "filter.unused_for", realm | {"unused_for": {"seconds": 60}}),
        ("RevokeKeys", "filter.never_expires", realm | {"never_expires": True}),
        ("RevokeKeys", "filter.expires_within", realm | {"expires_within": {"seconds": 60}}),
        ("RevokeKeys", "filter.external_id", realm | {"external_id": "x"}),
        ("RevokeKeys", "filter.name", realm | {"name": "x"}),
        ("RevokeKeys", "filter.labels", realm | {"labels": {"team": "a"}}),
        ("RevokeKeys", "filter.hint", realm | {"hint": "abcd"}),
        ("RevokeKeys", "filter.created_by", realm | {"created_by": issued.id}),
        ("RevokeKeys", "filter.issued_after", realm | {"issued_after": from_now(-60)}),
        ("RevokeKeys", "filter.beyond_max_lifetime", realm | {"beyond_max_lifetime": True}),
    ):
        with case(f"{leaf} in {method}"):
            refusal = fixture.operator.refused(method, Code.UNIMPLEMENTED, **fields)
            same(refusal.reason, "FIELD_NOT_IMPLEMENTED", "the reason")
            same(refusal.fields, [leaf], "the field")
    same(fixture.operator.call("GetKey", key_id=issued.id).key, before, "the key")
    fixture.expect("VERDICT_ALLOWED", issued)


@check
def a_key_of_another_partner_than_the_named_one_does_not_exist(fixture: Fixture):
    issued = fixture.issue()
    before = fixture.operator.call("GetKey", key_id=issued.id).key
    change = {"UpdateKey": {"update_mask": {"paths": ["name"]}}, "EndRotation": {"keep": "KEEP_SECRET_NEW"}}
    for method in ("GetKey", "GetKeyScopes", "RevokeKey", "DeleteKey", "GetKeyUsage",
                   "UpdateKey", "RotateKey", "DisableKey", "EnableKey", "EndRotation"):
        with case(method):
            fields = {"key_id": issued.id} | change.get(method, {})
            fixture.operator.refused(method, Code.NOT_FOUND, if_partner="nobody-of-these", **fields)
            fixture.operator.refused_field("if_partner", method, if_partner="/", **fields)
    same(fixture.operator.call("GetKey", key_id=issued.id, if_partner=before.partner).key, before, "the key")
    fixture.expect("VERDICT_ALLOWED", issued)
