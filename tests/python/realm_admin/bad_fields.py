"""Requests of RealmAdmin with a bad field: each is named."""

from checks import case, check
from fixture import Code, Fixture
from wire import must


@check
def a_bad_field_of_a_realm_is_named(fixture: Fixture):
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
        # The hierarchy as a whole is at fault, so more than one name of a field is as good.
        ("a hierarchy with a circle", "scopes",
         {"scopes": [{"name": "read", "implies": ["write"]}, {"name": "write", "implies": ["read"]}]}),
        ("a scope that implies itself", "scopes", {"scopes": [{"name": "read", "implies": ["read"]}]}),
        ("a hierarchy that leads nowhere", "implies", {"scopes": [{"name": "read", "implies": ["nosuch"]}]}),
        ("an unknown admin_scope", "admin_scope", {"admin_scope": "nosuch"}),
        ("an unknown policy for unscoped keys", "unscoped_keys", {"unscoped_keys": 99}),
        ("an unknown level", "levels", {"levels": [99]}),
        ("a max_cache of more than a day", "max_cache", {"max_cache": {"seconds": 86_401}}),
        ("a negative max_cache", "max_cache", {"max_cache": {"seconds": -1}}),
        ("a negative max_lifetime", "max_lifetime", {"max_lifetime": {"seconds": -1}}),
        *((f"a key in {name}", "name", {"credentials": {"sources": [{"header": {"name": name}}]}})
          for name in ("host", "X-Claviger-Partner", "x-forwarded-for", "x-original-uri", "proxy-authorization")),
        ("a partner in a header of claviger", "partner_header",
         {"credentials": {"sources": [{"header": {"name": "x-api-key"}}], "partner_header": "x-claviger-partner"}}),
        ("a denial that nginx obeys", 'headers["x-accel-redirect"]',
         {"denials": [{"denial_class": "DENIAL_CLASS_UNAUTHENTICATED", "headers": {"x-accel-redirect": "/"}}]}),
        ("a denial with a length", 'headers["content-length"]',
         {"denials": [{"denial_class": "DENIAL_CLASS_UNDECIDED", "headers": {"content-length": "1"}}]}),
    ):
        with case(f"refused in PutRealm: {what}"):
            realm = fixture.new_realm_message() | fields
            refusal = fixture.operator.refused_field(leaf, "PutRealm", realm=realm)
            at_home = all(field.startswith("realm") for field in refusal.fields)
            must(at_home, f"{refusal.fields} do not begin with realm")
            if leaf != "id":
                fixture.operator.refused("GetRealm", Code.NOT_FOUND, realm_id=realm["id"])
    fixture.operator.refused_field("realm", "PutRealm")


@check
def a_bad_field_of_a_partner_or_project_is_named(fixture: Fixture):
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
            fields = {name: message | {"realm": fixture.realm} for name, message in fields.items()}
            fixture.operator.refused_field(leaf, method, **fields)
