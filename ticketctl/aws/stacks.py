"""Stacks, change sets and their events as data, as CloudFormation describes them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ticketctl.errors import NotDeployedError
from ticketctl.models import StackOutputs

TABLE_TYPE = "AWS::DynamoDB::Table"
URL_TYPE = "AWS::Lambda::Url"
OUR_PARAMETERS = frozenset({"Offset", "Increment", "MaxCount"})
"""The parameters that every ticket server has, with or without a function."""
_CANCELLED = ("Resource creation cancelled", "Resource update cancelled")


@dataclass(frozen=True)
class Stack:
    """A stack as CloudFormation describes it. ``parameters`` and ``outputs`` are by name."""

    id: str
    name: str
    status: str
    reason: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    is_protected: bool = False
    """Whether it has termination protection: AWS refuses to delete it."""

    @property
    def is_empty(self) -> bool:
        """Whether it has only a change set that was never executed; another user may still execute it."""
        return self.status == "REVIEW_IN_PROGRESS"

    @property
    def in_progress(self) -> bool:
        """Whether it is being deployed or deleted now."""
        return self.status.endswith("_IN_PROGRESS") and not self.is_empty


@dataclass(frozen=True)
class Change:
    """What a change set would do to one resource. ``replacement`` is ``True``, ``False``, ``Conditional`` or empty."""

    action: str
    logical_id: str
    type: str
    replacement: str

    def __str__(self) -> str:
        replaced = {"True": " (replaced)", "Conditional": " (perhaps replaced)"}.get(self.replacement, "")
        return f"{self.action.lower()} {self.type} {self.logical_id}{replaced}"


@dataclass(frozen=True)
class Event:
    """One step of a deployment."""

    id: str
    logical_id: str
    type: str
    status: str
    reason: str
    is_stack: bool

    def __str__(self) -> str:
        return f"{self.status} {self.type} {self.logical_id}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class StackOptions:
    """What a deployment sets besides the template's parameters; ``None`` keeps the current value.

    ``tags`` replace the stack's tags, and CloudFormation puts them on its resources. ``role_arn`` is the IAM role with
    which CloudFormation deploys the stack, now and later. ``protects``: turn termination protection on or off.
    """

    tags: Mapping[str, str] | None = None
    role_arn: str | None = None
    protects: bool | None = None

    def of_change_set(self) -> dict[str, Any]:
        """The options that a change set has, as CloudFormation names them."""
        tags = [{"Key": key, "Value": value} for key, value in (self.tags or {}).items()]
        given = {"Tags": tags if self.tags is not None else None, "RoleARN": self.role_arn}
        return {name: value for name, value in given.items() if value is not None}


UNCHANGED = StackOptions()


@dataclass(frozen=True)
class Plan:
    """A change set that was not executed yet; it is already discarded if it has no ``changes``.

    ``protects``: termination protection is to be turned on or off, besides the change set.
    """

    change_set_id: str
    stack_id: str
    is_new: bool
    changes: tuple[Change, ...]
    protects: bool | None = None

    @property
    def differences(self) -> tuple[Change, ...]:
        """All that the deployment would change; empty if the stack is up to date."""
        name = f"termination protection {'on' if self.protects else 'off'}"
        own = Change("Modify", name, "AWS::CloudFormation::Stack", "False")
        return self.changes if self.protects is None else (*self.changes, own)

    @property
    def imports_table(self) -> bool:
        """Whether it takes an existing table into the stack."""
        return any(change.type == TABLE_TYPE and change.action == "Import" for change in self.changes)

    @property
    def removes_url(self) -> bool:
        """Whether the function and its URL would be removed."""
        return any(change.type == URL_TYPE and change.action == "Remove" for change in self.changes)

    @property
    def endangers_table(self) -> tuple[Change, ...]:
        """The changes that would, or might, replace or delete the table."""
        return tuple(
            change
            for change in self.changes
            if change.type == TABLE_TYPE
            and (change.action == "Remove" or change.replacement in ("True", "Conditional"))
        )


def first_cause(events: list[Event]) -> str:
    """The first resource that failed and why, without the cancellations after it; ``events`` are oldest first."""
    failures = [event for event in events if event.status.endswith("_FAILED")]
    for event in failures:
        if not event.is_stack and not event.reason.startswith(_CANCELLED):
            return f"{event.logical_id} ({event.type}): {event.reason}"
    return failures[0].reason if failures else ""


def outputs_of(stack: Stack, region: str) -> StackOutputs:
    """The outputs and parameters of a deployed stack; ``NotDeployedError`` if it is not a ticket server."""
    try:
        return StackOutputs(
            account=stack.id.split(":")[4],
            region=region,
            stack=stack.name,
            url=stack.outputs.get("Url"),
            table=stack.outputs["TableName"],
            auth=stack.parameters.get("AuthType", "AWS_IAM"),
            offset=int(stack.parameters["Offset"]),
            increment=int(stack.parameters["Increment"]),
            max_count=int(stack.parameters["MaxCount"]),
        )
    except KeyError as missing:
        raise NotDeployedError(
            f"the stack {stack.name} in {region} ({stack.status}) is not a ticket server: it has no {missing}",
            hint="deploy under another name: ticketctl deploy --stack NAME",
        ) from None
