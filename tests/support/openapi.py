"""``docs/openapi.yaml``, and whether an answer is as it says."""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema_rs import Draft202012Validator

PATH = Path(__file__).parents[2] / "docs" / "openapi.yaml"
ELSEWHERE = {"404": {"$ref": "#/components/responses/NotFound"}}
OTHER_METHODS = {"405": {"$ref": "#/components/responses/MethodNotAllowed"}}


@cache
def document() -> dict[str, Any]:
    """The document as it is written, with its references."""
    return dict(yaml.load(PATH.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader))


def resolved(node: Any) -> Any:
    """What a node is, or what it refers to."""
    while "$ref" in node:
        target: Any = document()
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name.replace("~1", "/").replace("~0", "~")]
        node = target
    return node


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each path and method with its operation."""
    for path, item in document()["paths"].items():
        for method, operation in item.items():
            yield path, method.upper(), operation


def responses(path: str, method: str) -> Mapping[str, Any]:
    """The responses of a request by status, references resolved; of an undocumented one too."""
    item = document()["paths"].get(path or "/")
    found = ELSEWHERE if item is None else item.get(method.lower(), {"responses": OTHER_METHODS})["responses"]
    return {status: resolved(response) for status, response in found.items()}


def errors(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What of a value is not as a schema of the document says."""
    return [str(error) for error in _validator(json.dumps(schema)).iter_errors(value)]


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator({"components": document()["components"], **json.loads(schema)})


def check(path: str, method: str, answer: Mapping[str, Any]) -> None:
    """Fail if the document does not have the status, a header, the content type or a field of the function's answer."""
    documented = responses(path, method)
    assert str(answer["statusCode"]) in documented, answer
    response = documented[str(answer["statusCode"])]
    kind = answer["headers"]["Content-Type"]
    _check_headers(response.get("headers", {}), {k: v for k, v in answer["headers"].items() if k != "Content-Type"})
    media = kind.partition(";")[0]
    assert media in response["content"], answer
    assert answer["body"].endswith("\n"), answer
    body = answer["body"] if media == "text/plain" else json.loads(answer["body"])
    assert errors(response["content"][media]["schema"], body) == [], answer


def _check_headers(documented: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    definitions = {name: resolved(header) for name, header in documented.items()}
    required = {name for name, header in definitions.items() if header.get("required")}
    assert required <= headers.keys() <= definitions.keys(), headers
    for name, value in headers.items():
        schema = definitions[name]["schema"]
        assert errors(schema, int(value) if schema["type"] == "integer" else value) == [], (name, value)
