"""CloudFormation stacks: change sets, live events, outcomes. The only module that calls CloudFormation."""

import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ticketctl.aws.sdk_errors import translated_errors
from ticketctl.aws.stacks import (
    OUR_PARAMETERS,
    TABLE_TYPE,
    UNCHANGED,
    URL_TYPE,
    Change,
    Event,
    Plan,
    Stack,
    StackOptions,
    first_cause,
)
from ticketctl.errors import (
    AccessError,
    NotDeployedError,
    RefusedError,
    SetupError,
    StackFailedError,
    TicketctlError,
)

_FUNCTION_TYPE = "AWS::Lambda::Function"
_LOG_GROUP_TYPE = "AWS::Logs::LogGroup"
_NAMES_NO_CAUSE = ("DescribeEvents", "hook(s)")
"""The words of a reason that mentions failed checks, but neither the resource nor the cause."""
_NO_CHANGES = ("didn't contain changes", "No updates are to be performed")
_DEAD = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}
_BEGINS = {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"}
_UNKNOWN_OPERATION = (400, 404, 405, 501)  # how other servers answer a request to CloudFormation


class CloudFormation:
    """The stacks of one account and region. ``report`` gets one line per event and decision."""

    def __init__(
        self,
        client: Any,
        *,
        profile: str | None = None,
        report: Callable[[str], None] = lambda line: None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._profile = profile
        self._report = report
        self._sleep = sleep
        self._region = client.meta.region_name
        self._target = f"CloudFormation in {self._region}"

    def describe(self, stack: str) -> Stack | None:
        """The stack of that name or id; ``None`` if there is none or it was deleted."""
        try:
            with self._errors():
                (description,) = self._client.describe_stacks(StackName=stack)["Stacks"]
        except NotDeployedError:
            return None
        if description["StackStatus"] == "DELETE_COMPLETE":
            return None
        return Stack(
            id=description["StackId"],
            name=description["StackName"],
            status=description["StackStatus"],
            reason=description.get("StackStatusReason", ""),
            parameters={p["ParameterKey"]: p.get("ParameterValue", "") for p in description.get("Parameters", [])},
            outputs={o["OutputKey"]: o["OutputValue"] for o in description.get("Outputs", [])},
            is_protected=description.get("EnableTerminationProtection", False),
        )

    def find_ours(self, stack: str) -> Stack | None:
        """As ``describe``, but ``RefusedError`` if the stack of that name is not a ticket server."""
        found = self.describe(stack)
        if found is not None and not found.is_empty and not found.parameters.keys() >= OUR_PARAMETERS:
            raise RefusedError(
                f"the stack {stack} in {self._region} is not a ticket server; nothing was changed",
                hint="use another name: --stack NAME",
            )
        return found

    def has_table(self, stack_id: str, table: str) -> bool:
        """Whether a stack has the table; not if the stack was deleted or has given the table up."""
        if self.describe(stack_id) is None:
            return False
        with self._errors():
            pages = self._client.get_paginator("list_stack_resources").paginate(StackName=stack_id)
            found = [resource for page in pages for resource in page["StackResourceSummaries"]]
        return any(
            resource["ResourceType"] in (TABLE_TYPE, "AWS::DynamoDB::GlobalTable")
            and resource.get("PhysicalResourceId") == table
            and resource["ResourceStatus"] not in ("DELETE_COMPLETE", "DELETE_SKIPPED")
            for resource in found
        )

    def resource(self, stack: str, resource_type: str) -> str | None:
        """The physical ID of the first resource of a type that a stack has; ``None`` if it has none."""
        with self._errors():
            resources = self._client.describe_stack_resources(StackName=stack)["StackResources"]
        found = (each.get("PhysicalResourceId") for each in resources if each["ResourceType"] == resource_type)
        return next(filter(None, found), None)

    def log_group(self, stack: str) -> str | None:
        """The log group of the stack's function: a resource, or the one that Lambda makes; ``None`` without one."""
        if group := self.resource(stack, _LOG_GROUP_TYPE):
            return group
        function = self.resource(stack, _FUNCTION_TYPE)
        return f"/aws/lambda/{function}" if function else None

    def prepare(self, stack: str) -> Stack | None:
        """Wait for a deployment in progress and delete a stack that failed to be created; return the stack."""
        found = self.find_ours(stack)
        if found is not None and found.in_progress:
            self._report(f"{stack} is {found.status}: waiting for another deployment to finish")
            self._await_others(found)
            found = self.find_ours(stack)
        if found is not None and found.status == "UPDATE_ROLLBACK_FAILED":
            raise StackFailedError(
                f"the stack {stack} is UPDATE_ROLLBACK_FAILED: {self._first_cause(found.id) or found.reason}",
                hint=f"aws cloudformation continue-update-rollback --stack-name {stack} --region {self._region}",
            )
        if found is not None and found.status in _DEAD:
            why = self._first_cause(found.id) or found.reason or "without a reason"
            self._report(f"{stack} is {found.status} ({why}); deleting it; its table is kept")
            self.delete(found)
            return None
        return found

    def plan(self, stack: str, template_body: str, parameters: Mapping[str, str]) -> Plan:
        """Create a change set for the stack as it is now; see ``plan_from``."""
        return self.plan_from(self.find_ours(stack), stack, template_body, parameters)

    def plan_from(
        self,
        current: Stack | None,
        stack: str,
        template_body: str,
        parameters: Mapping[str, str],
        options: StackOptions = UNCHANGED,
    ) -> Plan:
        """Create a change set. Parameters that are not given keep their ``current`` values, or get their defaults.

        If AWS's validation rejects only the table, because it exists, the change set is created without validation:
        it imports that table.
        """
        is_new = current is None or current.is_empty
        template = json.loads(template_body)
        known = template.get("Parameters", {})
        old = [] if current is None or is_new else current.parameters
        kept = [name for name in old if name in known and name not in parameters]
        request = {
            "StackName": stack,
            "ChangeSetType": "CREATE" if is_new else "UPDATE",
            "TemplateBody": template_body,
            "Parameters": [
                *({"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()),
                *({"ParameterKey": name, "UsePreviousValue": True} for name in kept),
            ],
            "Capabilities": ["CAPABILITY_NAMED_IAM" if '"RoleName"' in template_body else "CAPABILITY_IAM"],
            "ImportExistingResources": True,
            **options.of_change_set(),
        }
        tables = {name for name, kind in template.get("Resources", {}).items() if kind["Type"] == TABLE_TYPE}
        try:
            plan = self._planned(request, is_new=is_new, tables=tables)
        except _TableExistsError:
            self._report(
                f"AWS's validation rejects the table {stack} because it exists: importing it without validation"
            )
            plan = self._planned({**request, "DisableValidation": True}, is_new=is_new)
        was_protected = current is not None and current.is_protected
        differs = options.protects is not None and options.protects != was_protected
        return replace(plan, protects=options.protects) if differs else plan

    def discard(self, plan: Plan) -> None:
        """Delete a change set, and the empty stack that was created with it."""
        with self._errors():
            self._client.delete_change_set(ChangeSetName=plan.change_set_id)
        left = self.describe(plan.stack_id) if plan.is_new else None
        if left is not None and left.is_empty:  # otherwise another user has deployed it in the meantime
            with self._errors():
                self._client.delete_stack(StackName=plan.stack_id)

    def execute(self, plan: Plan) -> None:
        """Execute a plan and follow it to its end; ``StackFailedError`` names the first resource that failed."""
        if plan.changes:
            self._execute_change_set(plan)
        if plan.protects is not None:
            with self._errors():
                self._client.update_termination_protection(
                    StackName=plan.stack_id, EnableTerminationProtection=plan.protects
                )

    def _execute_change_set(self, plan: Plan) -> None:
        seen = {event.id for event in self._events(plan.stack_id)}
        with self._errors():
            self._client.execute_change_set(ChangeSetName=plan.change_set_id)
        status, events = self._follow(plan.stack_id, seen)
        if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "IMPORT_COMPLETE"):
            cause = first_cause(events) or "CloudFormation gave no reason"
            raise StackFailedError(
                f"the deployment failed and was rolled back ({status}): {cause}",
                hint="fix the cause and run ticketctl deploy again",
            )

    def delete(self, stack: Stack) -> None:
        """Delete a stack and follow it to its end. The table is retained by its own deletion policy."""
        seen = {event.id for event in self._events(stack.id)}
        now = self.describe(stack.id)
        if now is None:
            return
        if now.status != stack.status:
            raise RefusedError(f"the stack {stack.name} is now {now.status}", hint="run the command again")
        with self._errors():
            self._client.delete_stack(StackName=stack.id)
        status, events = self._follow(stack.id, seen)
        if status != "DELETE_COMPLETE":
            raise StackFailedError(
                f"the stack {stack.name} could not be deleted ({status}): {first_cause(events)}",
                hint="fix the cause and run ticketctl destroy again",
            )

    def _planned(self, request: Mapping[str, Any], *, is_new: bool, tables: Collection[str] = ()) -> Plan:
        """Create a change set; ``_TableExistsError`` if nothing but the existence of one of ``tables`` stops it."""
        with self._errors(), self._function_urls_missing(request):
            made = self._client.create_change_set(ChangeSetName=f"ticketctl-{time.time_ns()}", **request)
        change_set_id, stack_id = made["Id"], made["StackId"]
        for pause in _pauses():
            with self._errors():
                description = self._client.describe_change_set(ChangeSetName=change_set_id)
            if description["Status"] not in ("CREATE_PENDING", "CREATE_IN_PROGRESS"):
                break
            self._sleep(pause)
        plan = Plan(change_set_id, stack_id, is_new, tuple(self._changes(change_set_id, description)))
        if description["Status"] == "CREATE_COMPLETE":
            return plan
        reason = description.get("StatusReason", "")
        if any(words in reason for words in _NO_CHANGES):
            self.discard(plan)
            return Plan(change_set_id, stack_id, is_new, ())
        failures, hint = self._validation_failures(change_set_id, reason)
        if failures and all(failure.is_existence_of(tables) for failure in failures):
            with self._errors():  # an empty stack stays for the next change set
                self._client.delete_change_set(ChangeSetName=change_set_id)
            raise _TableExistsError
        self.discard(plan)
        why = "; ".join(map(str, failures)) or reason or "it gave no reason"
        raise StackFailedError(f"CloudFormation refused the change set: {why}", hint=hint)

    def _validation_failures(self, change_set_id: str, reason: str) -> tuple[Sequence["_Failure"], str]:
        """The failed checks of a change set whose ``reason`` names no cause, and a hint if they cannot be read."""
        if reason and not any(words in reason for words in _NAMES_NO_CAUSE):
            return (), ""
        try:
            with self._errors():
                pages = self._client.get_paginator("describe_events").paginate(
                    ChangeSetName=change_set_id, Filters={"FailedEvents": True}
                )
                found = [_failure(entry) for page in pages for entry in page.get("OperationEvents", [])]
        except AccessError:
            return (), "allow cloudformation:DescribeEvents, which tells the cause"
        except TicketctlError as error:
            return (), f"the cause cannot be read: {error.message}"
        return tuple(dict.fromkeys(failure for failure in found if failure is not None)), ""

    @contextmanager
    def _function_urls_missing(self, request: Mapping[str, Any]) -> Iterator[None]:
        """Say so if CloudFormation does not know Function URLs: AWS does not have them in every region."""
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as error:
            if not re.search(rf"Unrecognized resource types:.*\b{URL_TYPE}\b", str(error)):
                raise
            given = {p["ParameterKey"]: p.get("ParameterValue", "0") for p in request["Parameters"]}
            lane = {name: given[name] for name in ("Offset", "Increment") if given.get(name, "0") != "0"}
            options = "".join(f" --{name.lower()} {value}" for name, value in lane.items())
            raise RefusedError(
                f"AWS has no Lambda Function URLs in {self._region}",
                hint=f"ticketctl deploy --table-only --region {self._region}{options}",
            ) from error

    def _changes(self, change_set_id: str, description: Mapping[str, Any]) -> Iterator[Change]:
        while True:
            for change in description.get("Changes", []):
                resource = change.get("ResourceChange", {})
                yield Change(
                    action=resource.get("Action", ""),
                    logical_id=resource.get("LogicalResourceId", ""),
                    type=resource.get("ResourceType", ""),
                    replacement=resource.get("Replacement", ""),
                )
            if not (token := description.get("NextToken")):
                return
            with self._errors():
                description = self._client.describe_change_set(ChangeSetName=change_set_id, NextToken=token)

    def _follow(self, stack_id: str, seen: set[str]) -> tuple[str, list[Event]]:
        """Report events until the stack is complete or has failed; return its last status and the events."""
        events: list[Event] = []
        for pause in _pauses():
            for event in reversed(self._events(stack_id, until=seen)):
                seen.add(event.id)
                events.append(event)
                self._report(f"  {event}")
                if event.is_stack and not event.status.endswith("_IN_PROGRESS"):
                    return event.status, events
            self._sleep(pause)
        raise AssertionError("the pauses never end")

    def _await_others(self, stack: Stack) -> None:
        """Report the events of another user's deployment until it ends."""
        seen = {event.id for event in self._events(stack.id)}
        for pause in _pauses():
            current = self.describe(stack.id)
            for event in reversed(self._events(stack.id, until=seen)):
                seen.add(event.id)
                self._report(f"  {event}")
            if current is None or not current.in_progress:
                return
            self._sleep(pause)

    def _events(self, stack_id: str, until: set[str] | None = None) -> list[Event]:
        """The events of a stack, newest first, down to the first that is in ``until``."""
        events: list[Event] = []
        with self._errors():
            for page in self._client.get_paginator("describe_stack_events").paginate(StackName=stack_id):
                for entry in page["StackEvents"]:
                    if until and entry["EventId"] in until:
                        return events
                    events.append(
                        Event(
                            id=entry["EventId"],
                            logical_id=entry["LogicalResourceId"],
                            type=entry.get("ResourceType", ""),
                            status=entry.get("ResourceStatus", ""),
                            reason=entry.get("ResourceStatusReason", ""),
                            is_stack=entry.get("PhysicalResourceId") == entry["StackId"],
                        )
                    )
        return events

    def _first_cause(self, stack_id: str) -> str:
        """Why the last deployment failed, from the events since it began."""
        events = self._events(stack_id)
        begins = (n for n, event in enumerate(events) if event.is_stack and event.status in _BEGINS)
        return first_cause(list(reversed(events[: next(begins, len(events))])))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Translate errors. A missing stack has the code ValidationError, like any other invalid request."""
        from botocore.exceptions import ClientError
        from botocore.parsers import ResponseParserError

        with translated_errors(self._target, profile=self._profile):
            try:
                yield
            except (ResponseParserError, KeyError) as error:
                if self._is_of_aws():
                    raise
                raise self._no_cloudformation() from error
            except ClientError as error:
                details = error.response.get("Error", {})
                status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                has_no_code = details.get("Code", "") in ("", "Unknown", "InvalidAction", str(status))
                if has_no_code and status in _UNKNOWN_OPERATION and not self._is_of_aws():
                    raise self._no_cloudformation() from error
                message = details.get("Message", "")
                if "does not exist" in message:
                    raise NotDeployedError(message) from error
                if details.get("Code") in (
                    "ValidationError",
                    "InsufficientCapabilitiesException",
                    "LimitExceededException",
                ):
                    raise RefusedError(f"{self._target}: {message}") from error
                raise

    def _is_of_aws(self) -> bool:
        return "amazonaws." in self._client.meta.endpoint_url

    def _no_cloudformation(self) -> SetupError:
        """The error for an endpoint that does not answer as CloudFormation does, such as DynamoDB Local."""
        return SetupError(
            f"{self._client.meta.endpoint_url} has no CloudFormation, which finds the stack",
            hint="ticketctl next --table NAME",
        )


class _TableExistsError(Exception):
    """AWS's validation rejects only the table, because it exists."""


@dataclass(frozen=True)
class _Failure:
    """One failed check of a change set. ``check`` is the name of the validation or the type of the hook."""

    logical_id: str
    type: str
    check: str
    reason: str

    def __str__(self) -> str:
        return f"{self.logical_id} ({self.type}): {self.reason} ({self.check})"

    def is_existence_of(self, resources: Collection[str]) -> bool:
        """Whether it says only that one of these resources exists."""
        return self.check == "NAME_CONFLICT_VALIDATION" and self.logical_id in resources


def _failure(entry: Mapping[str, Any]) -> _Failure | None:
    """An event of DescribeEvents as a failed check; ``None`` if it is another event or only a warning."""
    check = entry.get("ValidationName") or entry.get("HookType")
    if not check or "WARN" in (entry.get("ValidationFailureMode"), entry.get("HookFailureMode")):
        return None
    reason = entry.get("ValidationStatusReason") or entry.get("HookStatusReason") or "no reason given"
    return _Failure(entry.get("LogicalResourceId", "the stack"), entry.get("ResourceType", ""), check, reason)


def _pauses() -> Iterator[float]:
    """Seconds between two polls: 0.1 at first, at most 3."""
    pause = 0.1
    while True:
        yield pause
        pause = min(pause * 1.3, 3.0)
