"""DynamoDB's operations as the handler's functions want them sent: with the AWS SDK, and without it."""

import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ticketctl import handler as bundle
from ticketctl.aws.account import Aws, proxies_in_force, refused, translated_errors
from ticketctl.errors import OutcomeUnknownError, TicketctlError, UnreachableError
from ticketctl.http_client import HttpClient, Response, TransportError


def sdk_sender(
    client: Any, target: str, *, profile: str | None = None
) -> Callable[[str, dict[str, Any]], Mapping[str, Any]]:
    """What sends for the handler's functions, through a botocore client; ``target`` names it in errors."""
    from botocore.exceptions import ClientError

    calls = {"GetItem": client.get_item, "PutItem": client.put_item, "UpdateItem": client.update_item}

    def send(operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        with translated_errors(target, profile=profile, spends=operation != "GetItem"):
            try:
                answer: Mapping[str, Any] = calls[operation](**request)
            except ClientError as error:
                if error.response["Error"]["Code"] == "ConditionalCheckFailedException":
                    raise bundle.handler.ConditionFailedError(error.response.get("Item") or None) from None
                raise
        if operation == "UpdateItem" and "Attributes" not in answer:
            raise OutcomeUnknownError(f"{target} gave no usable answer; a ticket may have been spent")
        return answer

    return send


def needs_sdk(region: str, environ: Mapping[str, str]) -> bool:
    """Whether the AWS settings say more of where DynamoDB is, and whom to trust, than ``plain_sender`` knows."""
    named = ("AWS_ENDPOINT_URL_DYNAMODB", "AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT")
    if any(environ.get(name) for name in (*named, "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")):
        return True
    if re.match(r"eusc-|[a-z]+-iso", region):  # other domains
        return True
    try:
        file = Path(environ.get("AWS_CONFIG_FILE") or "~/.aws/config").expanduser()
        return re.search("endpoint|ca_bundle|services", file.read_text(errors="replace")) is not None
    except (FileNotFoundError, RuntimeError):  # a user without a home folder has no such file
        return False
    except OSError:
        return True


def plain_sender(
    aws: Aws, http: HttpClient, target: str, *, timeout: float, connect: float
) -> Callable[[str, dict[str, Any]], Mapping[str, Any]]:
    """The same without an SDK, for credentials that need no look-up (``Aws.plain_credentials``).

    ``timeout`` and ``connect`` are in seconds, for each request and connection.
    """
    suffix = ".cn" if aws.region.startswith("cn-") else ""
    url = (aws.endpoint_url or f"https://dynamodb.{aws.region}.amazonaws.com{suffix}").rstrip("/") + "/"

    def send(operation: str, request: dict[str, Any]) -> Mapping[str, Any]:
        spends, body = operation != "GetItem", bundle.handler.encode(request)
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": f"DynamoDB_20120810.{operation}"}
        signed = aws.signed_headers("POST", url, headers, body, service="dynamodb")
        try:
            response = http.request("POST", url, signed, body, connect=connect, answer=timeout)
        except TransportError as error:
            raise _no_answer(target, str(error), spends=spends and error.sent) from error
        document = _document(response)
        if response.status == 200 and document is not None and (operation != "UpdateItem" or "Attributes" in document):
            return document
        if response.status < 300 or document is None:
            raise _no_answer(target, f"status {response.status}", spends=spends)
        code = str(document.get("__type", "")).rpartition("#")[2]
        if code == "ConditionalCheckFailedException":
            raise bundle.handler.ConditionFailedError(document.get("Item") or None)
        message = str(document.get("message") or document.get("Message") or code)
        raise refused(code, message, response.status, target=target, profile=None, spends=spends)

    return send


def _document(response: Response) -> dict[str, Any] | None:
    """The JSON object of an answer, ``None`` where it did not come whole; a refusal may be without."""
    checksum = response.headers.get("x-amz-crc32")
    if checksum is not None and checksum != str(zlib.crc32(response.body)):
        return None
    try:
        document = json.loads(response.body)
    except ValueError:
        document = None
    if isinstance(document, dict):
        return document
    return None if response.status < 300 else {}


def _no_answer(target: str, what: str, *, spends: bool) -> TicketctlError:
    if spends:
        return OutcomeUnknownError(
            f"{target} did not answer: {what}; a ticket may have been spent", hint="ticketctl status"
        )
    return UnreachableError(f"{target} cannot be reached: {what}{proxies_in_force()}", hint="try again")
