"""Questions that cannot be understood, many at once, and explained."""

import collections

import grpc
from google.rpc import error_details_pb2, status_pb2

from checks import case, check
from fixture import Code, Fixture, letters
from wire import Refusal, must, same


@check
def a_question_that_is_not_understood_is_an_error_that_names_the_field(fixture: Fixture):
    text = fixture.issue(full_access=True).plain_key
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
            fixture.operator.refused_field(leaf, "Verify", **fixture.question(text, **fields))
    # The gateway's mistake is one, whatever key was presented.
    for bad in ("", "foreign", "abc def"):
        fixture.operator.refused_field("realm", "Verify", **fixture.question(bad, realm="nosuch"))
        fixture.operator.refused_field("scopes", "Verify", **fixture.question(bad, scopes=["nosuch"]))


@check
def an_address_that_is_none_lets_nobody_in(fixture: Fixture):
    issued = fixture.issue(allowed_cidrs=["0.0.0.0/0", "::/0"])
    for address in ("not an address", "10.1.2.3/32", "10.1.2.3.4", "10.1.2.3:80"):
        # Left open by the contract: a question that is not understood, or an address outside all ranges.
        try:
            answer = fixture.verify(issued.plain_key, client_ip=address)
        except grpc.RpcError as error:
            refusal = Refusal(error)
            same(refusal.code, Code.INVALID_ARGUMENT, "the code")
            must(any("client_ip" in field for field in refusal.fields), "the violation does not name client_ip")
        else:
            same(fixture.verdict(answer), "VERDICT_ADDRESS_DENIED", "the verdict")


@check
def a_batch_is_answered_in_order_and_each_question_by_itself(fixture: Fixture):
    one, two = fixture.issue(), fixture.issue(project="beta")
    fixture.operator.call("DisableKey", key_id=two.id)
    three = fixture.issue(scopes=["read"])
    batch = fixture.operator.call("VerifyBatch", requests=[
        fixture.question(one.plain_key),
        fixture.question(two.plain_key, any_target=True),
        fixture.question(one.plain_key, realm=f"py-{letters(10)}"),
        fixture.question(three.plain_key, scopes=["admin"]),
        fixture.question(""),
        fixture.question(one.plain_key),
    ])
    outcomes = [
        fixture.verdict(result.response) if result.WhichOneof("result") == "response" else result.error.code
        for result in batch.results
    ]
    invalid_argument = Code.INVALID_ARGUMENT.value[0]
    same(invalid_argument, 3, "the number of INVALID_ARGUMENT")
    same(outcomes, ["VERDICT_ALLOWED", "VERDICT_DISABLED", invalid_argument, "VERDICT_SCOPE_MISSING",
                    "VERDICT_MALFORMED", "VERDICT_ALLOWED"], "the outcomes")
    for position, issued in ((0, one), (1, two), (3, three), (5, one)):
        response = batch.results[position].response
        same(response.key.id, issued.id, f"the key at place {position}")
        fixture.holds_of_every_answer(response)
    same(list(batch.results[3].response.missing_scopes), ["admin"], "the missing scope")

    # The class by reflection and that of the requirements have one wire format.
    error = status_pb2.Status.FromString(batch.results[2].error.SerializeToString())
    must(error.message, "an error without a message")
    violations = error_details_pb2.BadRequest()
    must(len(error.details) > 0 and any(d.Unpack(violations) for d in error.details), "no BadRequest in the error")
    must(any("realm" in violation.field for violation in violations.field_violations), "the realm is not named")


@check
def a_batch_holds_a_hundred_questions_and_no_more(fixture: Fixture):
    question = fixture.question(fixture.issue().plain_key)
    batch = fixture.operator.call("VerifyBatch", requests=[question] * 100)
    verdicts = collections.Counter(fixture.verdict(result.response) for result in batch.results)
    same(verdicts, {"VERDICT_ALLOWED": 100}, "the outcomes")
    fixture.operator.refused_field("requests", "VerifyBatch", requests=[question] * 101)
    same(len(fixture.operator.call("VerifyBatch").results), 0, "the answers to no question")


@check
def a_stream_is_answered_in_order_and_each_question_by_itself(fixture: Fixture):
    one, two = fixture.issue(), fixture.issue(scopes=["read"])
    questions = [
        fixture.question(one.plain_key),
        fixture.question(two.plain_key, scopes=["admin"]),
        fixture.question(one.plain_key, realm=f"py-{letters(10)}"),
        fixture.question(""),
    ] * 250
    outcomes = [
        fixture.verdict(answer.response) if answer.WhichOneof("result") == "response" else answer.error.code
        for answer in fixture.operator.stream("VerifyStream", ({"request": question} for question in questions))
    ]
    expected = ["VERDICT_ALLOWED", "VERDICT_SCOPE_MISSING", Code.INVALID_ARGUMENT.value[0], "VERDICT_MALFORMED"]
    same(outcomes, expected * 250, "the outcomes")
    nobody = fixture.operator.with_header(None)
    try:
        list(nobody.stream("VerifyStream", [{"request": questions[0]}]))
        raise AssertionError("a stream without a key was answered")
    except grpc.RpcError as error:
        same(Refusal(error).code, Code.UNAUTHENTICATED, "the code")


@check
def a_question_is_explained_check_by_check(fixture: Fixture):
    issued = fixture.issue(scopes=["read"])
    question = fixture.question(issued.plain_key, scopes=["admin"])
    answer = fixture.operator.call("Explain", verify=question)
    same(fixture.verdict(answer), "VERDICT_SCOPE_MISSING", "the verdict that is explained")
    same(answer.decided_by, "scope_missing", "what decided")
    same(answer.allowed, False, "whether it is let through")
    same(list(answer.missing_scopes), ["admin"], "what is missing")
    outcomes = {check.name: check.outcome for check in answer.checks}
    same(outcomes["revoked"], 1, "a check that passed")
    same(outcomes["scope_missing"], 2, "the check that failed")
    # The realm names no routes, so a whole request is let through to none.
    http = {"realm": fixture.realm, "environment": "production", "method": "GET", "target": "/v1/things"}
    answer = fixture.operator.call("Explain", http=http)
    same((answer.allowed, answer.http_status), (False, 401), "a request without a key")
    gateway = fixture.operator.with_key(fixture.key_of_the_authority("verify").plain_key)
    gateway.refused("Explain", Code.PERMISSION_DENIED, verify=question)
