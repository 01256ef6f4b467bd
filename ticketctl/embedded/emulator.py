"""Everything that depends on ministack's internals. No other module imports ministack, except ``signature``.

The installed ministack is not changed. Its state is read and restored with its own functions; a few of its functions
are wrapped at run time, in this process only. ``open_emulator`` checks that they exist, so a release without them is
an error at the start and not a silent loss later.
"""

import base64
import copy
import hmac
import json
import os
import secrets
import string
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any
from urllib.parse import quote

from ticketctl.embedded.signature import RejectedRequestError
from ticketctl.embedded.store import ItemChange

SERVICES = "cloudformation,dynamodb,iam,lambda,logs,monitoring,sns,sts"
LOG_WAIT_SECONDS = 0.002
"""How long the engine waits for a first log line after each call of a function; ministack's default is 50 ms."""
_ATTEMPTS, _PAUSE_SECONDS = 50, 0.01
_QUERY: ContextVar[str] = ContextVar("query")
"""The query string of the request that is being executed, as it was sent; in ASCII."""
_FINISHED_AS = {"UPDATE": "UPDATE_ROLLBACK_COMPLETE", "DELETE": "DELETE_FAILED"}


class IncompatibleError(Exception):
    """This release of ministack lacks a function that ticketctl needs; the message names it."""


def environment(*, port: int, key: str, secret: str) -> dict[str, str]:
    """The environment variables that ministack reads when it is imported."""
    return {
        "AUTH": "true",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "DOCKER_HOST": "unix:///nonexistent",  # else it removes containers of other ministack processes
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",  # else it listens on every interface
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": "WARNING",
        "PERSIST_STATE": "0",  # the module durability saves the state
        "SERVICES": SERVICES,
        "SFTP_ENABLED": "0",
    }


class Emulator:
    """ministack in this process; created by ``open_emulator``.

    Each change of a table's item is recorded with the item's old value, until ``take_changes`` or ``undo`` is called.
    """

    def __init__(self, app: Any) -> None:
        self._module = app
        self._changes: deque[tuple[ItemChange, Callable[[], object]]] = deque()
        self._tables: set[str] = set()
        self._lock = threading.RLock()
        self._finished_stacks: dict[object, Any] = {}

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        """Execute one request (the ASGI interface)."""
        _QUERY.set(quote(scope.get("query_string", b""), safe=string.punctuation))
        await self._module.app(scope, receive, send)

    def issued_secret(self, key: str, token: str) -> str:
        """The secret of an access key that the emulator issued to a function's role, an IAM user or a session."""
        from ministack.core.iam_evaluator import resolve_credential

        found = resolve_credential(key, session_token=token)
        secret = getattr(found, "secret_access_key", None)
        if not secret or found.principal_type == "Root":  # ministack accepts "test" or twelve digits as root
            raise RejectedRequestError("its access key is unknown here")
        return str(secret)

    def is_public(self, url_id: str) -> bool:
        """Whether a Function URL with this ID exists and has the auth type ``NONE``."""
        from ministack.services import lambda_svc

        found = lambda_svc.resolve_function_url(url_id)
        return found is not None and found[-1].get("AuthType") == "NONE"

    def restore(self, documents: Mapping[str, str], items: Iterable[ItemChange]) -> None:
        """Load what ``snapshot`` and ``take_changes`` returned; raises an exception if any of it cannot be loaded."""
        from ministack.core import persistence
        from ministack.services import cloudformation, dynamodb

        for name, text in documents.items():
            document = json.loads(text, object_hook=persistence._json_object_hook)
            newest = persistence._state_format_version(name)
            if document["version"] > newest:
                raise ValueError(f"{name} was saved by a newer ministack (format {document['version']} of {newest})")
            self._module._get_module(self._module._state_map[name]).load_persisted_state(document["state"])
        tables = {table["TableArn"]: table for _, table in dynamodb._tables.all_items()}
        for change in items:
            if (table := tables.get(change.table_arn)) is None:  # the table was deleted while the item was saved
                continue
            keys = json.loads(change.partition_key), json.loads(change.sort_key)
            if change.item is None:
                dynamodb._remove_item(table, *keys)
            else:
                dynamodb._set_item(table, *keys, json.loads(change.item))
        self._tables = set(tables)
        self._finish_deployments(copy.deepcopy(dict(cloudformation._stacks._data)))  # fills _finished_stacks
        self._record_changes(dynamodb)

    def stacks(self) -> dict[object, str]:
        """The status of each stack; "" during a deployment."""
        from ministack.services import cloudformation

        statuses = {key: str(stack.get("StackStatus", "")) for key, stack in list(cloudformation._stacks._data.items())}
        return {key: status * (not _is_in_progress(status)) for key, status in statuses.items()}

    def snapshot(self, known: Mapping[str, str], without: str = "") -> dict[str, str]:
        """The services' documents that differ from ``known``; skips the service ``without``, which did not change."""
        self._forget_templates()
        for _ in range(_ATTEMPTS):
            try:
                return {
                    name: text
                    for name, text in self._documents(without)
                    if text is not None and text != known.get(name)
                }
            except RuntimeError:  # a deployment changed the state from another thread
                time.sleep(_PAUSE_SECONDS)
        raise RuntimeError("the state changes faster than it can be read")

    def _forget_templates(self) -> None:
        """Drop the templates of deleted stacks and executed change sets: every snapshot would copy them all."""
        from ministack.services import cloudformation

        for record in [*cloudformation._stacks._data.values(), *cloudformation._change_sets._data.values()]:
            if record.get("StackStatus") == "DELETE_COMPLETE" or record.get("ExecutionStatus") == "EXECUTE_COMPLETE":
                record.update(_template={}, _template_body="")

    def _documents(self, without: str) -> Iterable[tuple[str, str | None]]:
        from ministack.core import persistence

        for name, get_state in self._module._build_persistence_save_dict().items():
            if name == without:
                continue
            with self._lock:
                state = get_state()
            if state is None:
                continue
            if name == "cloudformation":
                self._finish_deployments(state["stacks"]._data)
            if name == "dynamodb":
                self._tables = {table["TableArn"] for table in state["tables"].all_values()}
            document = {"version": persistence._state_format_version(name), "state": state}
            yield name, json.dumps(document, default=persistence._json_default)

    def _finish_deployments(self, stacks: dict[object, Any]) -> None:
        """Replace the status of stacks that are being deployed by one from which they can be deployed again.

        After a kill nothing would finish them: their status would stay ``…_IN_PROGRESS``.
        """
        for key, stack in stacks.items():
            status = str(stack.get("StackStatus", ""))
            if not _is_in_progress(status):
                self._finished_stacks[key] = stack
                continue
            kind = status.partition("_")[0]
            before = self._finished_stacks.get(key) if kind == "UPDATE" else None
            finished = {**(before or stack), "StackStatus": _FINISHED_AS.get(kind, "ROLLBACK_COMPLETE")}
            stacks[key] = {**finished, "StackStatusReason": "the embedded AWS was killed during the deployment"}

    def has_changes(self) -> bool:
        """Whether items changed since ``take_changes`` was last called."""
        return bool(self._changes)

    def in_unsaved_table(self) -> bool:
        """Whether a recorded change belongs to a table that is in no snapshot."""
        return any(change.table_arn not in self._tables for change, _ in self._changes)

    def take_changes(self) -> list[tuple[ItemChange, Callable[[], object]]]:
        """Remove and return the recorded changes in order, each with a function that undoes it."""
        with self._lock:
            taken = list(self._changes)
            self._changes.clear()
            return taken

    def undo(self, taken: list[tuple[ItemChange, Callable[[], object]]]) -> None:
        """Undo these changes and all that were recorded since, and forget the tokens of transactions."""
        from ministack.services import dynamodb

        with self._lock:
            for _, undo_one in reversed([*taken, *self._changes]):
                undo_one()
            self._changes.clear()
            self._tables.clear()  # the next change saves everything
            dynamodb._txn_idempotency.clear()  # else a transaction that is sent again is taken for written

    def _record_changes(self, dynamodb: Any) -> None:
        set_item, remove_item = dynamodb._set_item, dynamodb._remove_item

        def record(table: Any, partition_key: Any, sort_key: Any, item: Any, before: Any) -> None:
            def undo_one() -> object:
                if before is None:
                    return remove_item(table, partition_key, sort_key)
                return set_item(table, partition_key, sort_key, before)

            text = None if item is None else json.dumps(item)
            change = ItemChange(table["TableArn"], json.dumps(partition_key), json.dumps(sort_key), text)
            self._changes.append((change, undo_one))

        def set_and_record(table: Any, partition_key: Any, sort_key: Any, item: Any) -> Any:
            with self._lock:
                before = set_item(table, partition_key, sort_key, item)
                record(table, partition_key, sort_key, item, before)
            return before

        def remove_and_record(table: Any, partition_key: Any, sort_key: Any) -> Any:
            with self._lock:
                before = remove_item(table, partition_key, sort_key)
                record(table, partition_key, sort_key, None, before)
            return before

        dynamodb._set_item, dynamodb._remove_item = set_and_record, remove_and_record


def _is_in_progress(status: str) -> bool:
    return status.endswith("_IN_PROGRESS") and not status.startswith("REVIEW_")


def open_emulator(variables: Mapping[str, str]) -> Emulator:
    """Import ministack with these environment variables and adapt it; raises ``IncompatibleError``."""
    os.environ.update(variables)
    try:
        import ministack.app as app
        from ministack.core import iam_evaluator, lambda_runtime, persistence, sigv4
        from ministack.services import cloudformation, dynamodb, lambda_svc, sts
        from ministack.services.cloudformation import changesets

        needed = {
            app: ("app", "_build_persistence_save_dict", "_get_module", "_state_map"),
            iam_evaluator: ("resolve_credential",),
            lambda_runtime: ("execution_credentials",),
            lambda_runtime.Worker: ("_drain_stderr_bounded",),
            persistence: ("_json_default", "_json_object_hook", "_state_format_version"),
            sigv4: ("build_canonical_headers", "build_string_to_sign", "calculate_signature", "uri_encode"),
            changesets: ("_evaluate_conditions", "_resolve_props_for_diff"),
            cloudformation: ("_change_sets", "_stacks"),
            dynamodb: (
                "_normalize_table_name",
                "_remove_item",
                "_set_item",
                "_tables",
                "_transact_validation_cancel_response",
                "_transact_write_items",
                "_txn_idempotency",
            ),
            lambda_svc: (
                "_build_function_url_event",
                "_externalize_code_zip",
                "_prune_orphan_code_blobs",
                "resolve_function_url",
            ),
            sts: ("register_session",),
        }
    except (ImportError, AttributeError) as error:
        raise IncompatibleError(str(error)) from error
    missing = [f"{on.__name__}.{name}" for on, names in needed.items() for name in names if not hasattr(on, name)]
    if missing:
        raise IncompatibleError(f"it has no {', '.join(missing)}")
    lambda_runtime.execution_credentials = _role_credentials(sts.register_session)
    wait, *others = lambda_runtime.Worker._drain_stderr_bounded.__defaults__
    lambda_runtime.Worker._drain_stderr_bounded.__defaults__ = (min(LOG_WAIT_SECONDS, wait), *others)
    lambda_svc._externalize_code_zip = lambda func, referenced: None  # code is saved with everything else, atomically
    lambda_svc._prune_orphan_code_blobs = lambda referenced: None
    lambda_svc._build_function_url_event = _exact_event(lambda_svc._build_function_url_event)
    dynamodb._transact_write_items = _with_keys_checked(dynamodb)
    changesets._resolve_props_for_diff = _without_unused_resources(changesets)
    return Emulator(app)


def _role_credentials(register: Callable[[str, dict[str, str]], None]) -> Callable[[Mapping[str, Any]], dict[str, str]]:
    """Credentials of functions, with a secret part. ministack's own can be computed from public names."""
    salt = secrets.token_bytes(32)

    def credentials(config: Mapping[str, Any]) -> dict[str, str]:
        arn, role = str(config["FunctionArn"]), str(config.get("Role", "")).rsplit("/", 1)[-1]
        name, account = str(config.get("FunctionName", "function"))[:64], arn.split(":")[4]
        digest = hmac.digest(salt, f"{arn}:{role}".encode(), "sha512").hex()
        key, secret, token = f"ASIA{digest[:16].upper()}", digest[16:56], digest[56:]
        session = {
            "Arn": f"arn:aws:sts::{account}:assumed-role/{role}/{name}",
            "UserId": f"{role}:{name}",
            "SecretAccessKey": secret,
            "SessionToken": token,
        }
        register(key, session)
        return {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}

    return credentials


def _exact_event(build: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Events of Function URLs with the query and the body as sent. ministack replaces what is not UTF-8 by U+FFFD."""

    def event(*arguments: Any, **more: Any) -> dict[str, Any]:
        built, body = build(*arguments, **more), arguments[6]
        try:
            body.decode()
        except UnicodeDecodeError:
            built.update(body=base64.b64encode(body).decode(), isBase64Encoded=True)
        return {**built, "rawQueryString": _QUERY.get()}

    return event


def _with_keys_checked(dynamodb: Any) -> Callable[[Any], Any]:
    """TransactWriteItems that is canceled because a key does not match its table. ministack loses such a write."""
    write = dynamodb._transact_write_items

    def problem(member: Any) -> str:
        [(kind, operation)] = member.items()
        table = dynamodb._tables.get(dynamodb._normalize_table_name(operation["TableName"]))
        if table is None:
            return ""
        names = {name for name in (table["pk_name"], table["sk_name"]) if name}
        if kind != "Put":
            return "" if names == set(operation["Key"]) else "The provided key element does not match the schema"
        missing = ", ".join(sorted(names - set(operation["Item"])))
        return f"One or more parameter values were invalid: Missing the key {missing} in the item" if missing else ""

    def checked(request: Any) -> Any:
        try:
            problems = [problem(member) for member in request["TransactItems"]]
        except (AttributeError, KeyError, TypeError, ValueError):  # not a valid request, which ``write`` refuses
            problems = []
        reasons = {index: text for index, text in enumerate(problems) if text}
        return dynamodb._transact_validation_cancel_response(len(problems), reasons) if reasons else write(request)

    return checked


def _without_unused_resources(changesets: Any) -> Callable[..., Any]:
    """The resources that change sets compare, without those whose condition is false. ministack would list them."""
    resolve = changesets._resolve_props_for_diff

    def used(template: Any, parameters: Any, *of_stack: Any) -> Any:
        if not template:
            return resolve(template, parameters, *of_stack)
        holds, resources = changesets._evaluate_conditions(template, parameters), template.get("Resources", {})
        kept = {name: each for name, each in resources.items() if holds.get(each.get("Condition"), True)}
        return resolve({**template, "Resources": kept}, parameters, *of_stack)

    return used
