"""An independent client of claviger: does a running server keep what the contract promises?

    CLAVIGER_ENDPOINT=127.0.0.1:7700 CLAVIGER_KEY=... python client.py
    CLAVIGER_ENDPOINT=127.0.0.1:7700 CLAVIGER_JSON_ENDPOINT=127.0.0.1:7701 CLAVIGER_KEY=... python client.py
    python client.py --self-test

`CLAVIGER_KEY` is an operator's API key. With the second line all calls but streams are made as JSON over HTTP, and must be
answered in the same way. Everything is made anew in realms with a random name, so the program can be run
on the same server again and again. It ends at the first promise that is not kept, with a traceback in which no key is
shown, and exit code 1.

The checks stand in modules by service. The modules run in the order of `MODULES`, which begins with the realms that all
others use, and each module's checks in the order in which they stand there. Where the contract leaves more than one
answer open, the check takes each of them and a comment says so.
"""

import os
import sys
import traceback

import callers
import keytext
import key_admin.bad_fields
import key_admin.delegation
import key_admin.events
import key_admin.external_id
import key_admin.idempotency
import key_admin.imports
import key_admin.issue
import key_admin.own_key
import key_admin.revocation
import key_admin.rotation
import key_admin.update
import key_admin.usage
import key_verify.allowed
import key_verify.denials
import key_verify.questions
import realm_admin.bad_fields
import realm_admin.definitions
import realm_admin.deletion
import realm_admin.declared
import realm_admin.renaming
import reflection
import transport
from checks import CHECKS, ok, passed
from fixture import Fixture
from json_calls import JsonCalls
from wire import GrpcCalls, Secrets, connect

MODULES = (
    reflection,
    realm_admin.definitions,
    key_admin.issue,
    key_verify.allowed,
    key_verify.denials,
    key_verify.questions,
    callers,
    key_admin.bad_fields,
    realm_admin.bad_fields,
    transport,
    key_admin.update,
    key_admin.rotation,
    key_admin.idempotency,
    key_admin.imports,
    key_admin.external_id,
    key_admin.revocation,
    key_admin.usage,
    key_admin.delegation,
    key_admin.own_key,
    realm_admin.renaming,
    realm_admin.declared,
    realm_admin.deletion,
    # Last, because they look at the events of all the others.
    key_admin.events,
)


def run(endpoint: str, json_endpoint: str | None, operator_key: str, secrets: Secrets):
    secrets.remember(operator_key)
    run_so_far = set()
    with connect(endpoint) as channel:
        calls = JsonCalls(json_endpoint) if json_endpoint else GrpcCalls(channel)
        fixture = Fixture(channel, calls, secrets, operator_key)
        for module in MODULES:
            for function in CHECKS:
                if function.__module__ == module.__name__:
                    function(fixture)
                    run_so_far.add(function)
                    ok(function.__name__.replace("_", " "))
    forgotten = [function.__name__ for function in CHECKS if function not in run_so_far]
    if forgotten:
        raise AssertionError(f"in no module of MODULES: {forgotten}")
    print(f"python client: {passed()} checks passed")


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
        run(endpoint, os.environ.get("CLAVIGER_JSON_ENDPOINT"), operator_key, secrets)
    except Exception:
        # Through the filter, because an error's words may come from the server.
        print(secrets.hidden(traceback.format_exc()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
