"""Health and reflection, which need no credential."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from checks import check
from fixture import Code, Fixture
from wire import DEADLINE_SECONDS, PACKAGE, SERVICES, must, same


@check
def every_service_is_healthy_without_a_credential(fixture: Fixture):
    health = health_pb2_grpc.HealthStub(fixture.channel)
    for service in ("", *(f"{PACKAGE}.{name}" for name in SERVICES)):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_SECONDS)
        same(answer.status, health_pb2.HealthCheckResponse.SERVING, f"the health of {service!r}")


@check
def the_health_of_an_unknown_service_is_not_found(fixture: Fixture):
    health = health_pb2_grpc.HealthStub(fixture.channel)
    try:
        health.Check(health_pb2.HealthCheckRequest(service="claviger.v1.Nothing"), timeout=DEADLINE_SECONDS)
    except grpc.RpcError as error:
        same(error.code(), Code.NOT_FOUND, "the code")
    else:
        raise AssertionError("an unknown service has a health")


@check
def reflection_lists_the_services_without_a_credential(fixture: Fixture):
    listed = set(fixture.schema.database.get_services())
    wanted = {f"{PACKAGE}.{name}" for name in SERVICES} | {"grpc.health.v1.Health"}
    must(wanted <= listed, f"reflection does not list {sorted(wanted - listed)}")


@check
def reflection_tells_that_a_plain_key_is_to_be_redacted(fixture: Fixture):
    for method, message, field in (
        ("IssueKey", "response", "plain_key"),
        ("RotateSelf", "response", "plain_key"),
        ("Verify", "request", "key"),
    ):
        descriptor = getattr(fixture.schema, message)(method).DESCRIPTOR
        must(descriptor.fields_by_name[field].GetOptions().debug_redact, f"{field} of {method} is not debug_redact")


@check
def no_method_answers_without_a_credential(fixture: Fixture):
    # By what reflection lists, so that a method which comes later is in it by itself.
    for method in fixture.schema.methods:
        fixture.nobody.refused(method, Code.UNAUTHENTICATED)
