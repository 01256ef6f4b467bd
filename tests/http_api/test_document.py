"""docs/openapi.yaml by itself: it is valid, and says no more and no less than the handler does."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.openapi import document, errors, operations, resolved, responses
from ticketctl import __version__
from ticketctl.handler import handler

OF_AWS = {403, 502}  # what AWS answers without the function
MEDIA_OF_PROBLEMS = "application/problem+json"


def test_the_document_is_valid_openapi() -> None:
    """Every tool that reads OpenAPI 3.1 can read it."""
    from openapi_spec_validator import validate  # it takes long to import, and only this test needs it

    validate(document())


def test_the_version_is_the_packages() -> None:
    """A reader of the document knows which release it describes."""
    assert document()["info"]["version"] == __version__


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping below a node."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def test_every_component_is_used() -> None:
    """Nothing is left over."""
    used = {node["$ref"] for node in nodes(document()) if "$ref" in node}
    kinds = ("parameters", "headers", "responses", "schemas")
    assert used == {f"#/components/{kind}/{name}" for kind in kinds for name in document()["components"][kind]}


def problems() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Each documented problem: its code, the status that it stands at and its example."""
    for path, method, _ in operations():
        for status, response in responses(path, method).items():
            content = response.get("content", {}).get(MEDIA_OF_PROBLEMS, {"examples": {}})
            for code, example in content["examples"].items():
                yield code, int(status), example["value"]


def test_the_problems_are_the_handlers() -> None:
    """Every code stands at its status with an example, and there is no other code."""
    assert {(code, status) for code, status, _ in problems()} == set(handler.STATUS.items())
    properties = document()["components"]["schemas"]["Problem"]["properties"]
    assert sorted(properties["code"]["enum"]) == sorted(handler.STATUS)
    assert properties["status"]["enum"] == sorted(set(handler.STATUS.values()))


def test_each_response_allows_exactly_the_codes_that_it_shows() -> None:
    """The schema of a response narrows the problem to its status and its codes."""
    for path, method, _ in operations():
        for status, response in responses(path, method).items():
            if (content := response.get("content", {}).get(MEDIA_OF_PROBLEMS)) is None:
                continue
            example = next(iter(content["examples"].values()))["value"]
            allowed = {
                (code, number)
                for code, number in [(code, number) for code in handler.STATUS for number in {*handler.STATUS.values()}]
                if not errors(content["schema"], example | {"code": code, "status": number})
            }
            assert allowed == {(code, int(status)) for code in content["examples"]}


@pytest.mark.parametrize(("path", "method"), [("/", "GET"), ("/", "POST"), ("/status", "GET")])
def test_the_statuses_are_the_handlers_and_awss(path: str, method: str) -> None:
    """An operation documents what the function can answer, what AWS can answer, and nothing else."""
    assert {int(status) for status in responses(path, method)} == {200, *handler.STATUS.values()} | OF_AWS


def test_the_operations_are_the_handlers() -> None:
    """The documented paths and methods are those that the function has."""
    documented = {(path, method) for path, method, _ in operations()}
    assert documented == {("/", "GET"), ("/", "POST"), ("/status", "GET")}


def test_the_limits_are_the_handlers() -> None:
    """Numbers that stand in the document are those of the handler."""
    schemas = document()["components"]["schemas"]
    assert schemas["Count"]["maximum"] == schemas["Block"]["properties"]["count"]["maximum"] == handler.MAX_COUNT
    assert schemas["Partition"]["maxLength"] == handler.MAX_NAME
    assert {schemas["Block"]["properties"][name]["maximum"] for name in ("first", "last", "hand_crafted_int")} == {
        handler.MAX_TICKET
    }


def examples() -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Every example of the document with its name and its schema."""
    for node in nodes(document()):
        for name, example in node.get("examples", {}).items():
            yield name, node["schema"], example["value"]


def test_every_example_is_valid() -> None:
    """An example is as its schema says."""
    seen = list(examples())
    assert len(seen) > len(handler.STATUS)
    assert [(name, found) for name, schema, value in seen if (found := errors(schema, value))] == []


NAMES = ["a", "us-east-1", "é" * 255, "\U0001f600" * 255, "a b", "Receipt#", "x receipt#", "'\"\\/", "\u00a0", "\ue000"]
NO_NAMES = ["", "a" * 256, "receipt#", "receipt#a", "a\n", "\n", "a\0", "\x7f", "a\x9fb", "\x1f"]
KEYS = [
    "a",
    '"a"',
    '"a b"',
    '"\\""',
    '"\\\\"',
    "!",
    "a" * 255,
    f'"{"a" * 255}"',
    "once:a",
    "#$%&'()*+-./:;<=>?@[\\]^_`{|}~",
]
NO_KEYS = [
    '""',
    '"',
    '"a',
    'a"',
    "a b",
    "a,b",
    '"\\a"',
    '"""',
    "é",
    "a" * 256,
    f'"{"a" * 256}"',
    "a\t",
    '"\x7f"',
    '"a"b',
]


def accepted(check: Any, value: str) -> bool:
    try:
        check(value)
    except handler.ProblemError:
        return False
    return True


@pytest.mark.parametrize(("name", "valid"), [*((name, True) for name in NAMES), *((name, False) for name in NO_NAMES)])
def test_a_name_is_valid_in_the_document_and_for_the_handler(name: str, *, valid: bool) -> None:
    """The pattern of a counter's name is the handler's check."""
    schema = resolved(document()["components"]["schemas"]["Partition"])
    assert (accepted(handler.check_name, name), errors(schema, name) == []) == (valid, valid)


@pytest.mark.parametrize(("key", "valid"), [*((key, True) for key in KEYS), *((key, False) for key in NO_KEYS)])
def test_a_key_is_valid_in_the_document_and_for_the_handler(key: str, *, valid: bool) -> None:
    """The pattern of an Idempotency-Key is the handler's check."""
    schema = document()["components"]["parameters"]["IdempotencyKey"]["schema"]
    assert (accepted(handler.check_key, key), errors(schema, key) == []) == (valid, valid)
