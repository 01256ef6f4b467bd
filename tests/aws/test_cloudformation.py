"""``cloudformation``: change sets, events and outcomes, with a real client whose responses are scripted."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.stub import ANY, Stubber

from tests.support.http_server import Answer, Server
from ticketctl.aws.account import Aws
from ticketctl.aws.cloudformation import CloudFormation
from ticketctl.aws.stacks import Change, Event, Plan, Stack, StackOptions, first_cause, outputs_of
from ticketctl.errors import AccessError, NotDeployedError, NotMintedError, RefusedError, SetupError, StackFailedError
from ticketctl.models import StackOutputs

ID = "arn:aws:cloudformation:us-east-1:123456789012:stack/Tickets/1"
CHANGE_SET = "arn:aws:cloudformation:us-east-1:123456789012:changeSet/ticketctl-1/1"
THEN = datetime(2026, 11, 1, tzinfo=UTC)
TEMPLATE = '{"Parameters": {"AuthType": {}, "Increment": {}, "MaxCount": {}, "Offset": {}}}'
TABLE = "AWS::DynamoDB::Table"
FUNCTION = "AWS::Lambda::Function"


KEPT = [{"ParameterKey": name, "UsePreviousValue": True} for name in ("AuthType", "Increment", "MaxCount", "Offset")]


class CloudFormationScript:
    """A ``CloudFormation`` whose client expects these calls in order; ``said`` and ``slept`` are its effects."""

    def __init__(self, client: Any) -> None:
        self.stubber = Stubber(client)
        self.said: list[str] = []
        self.slept: list[float] = []
        self.stacks = CloudFormation(client, report=self.said.append, sleep=self.slept.append)

    def describe(self, status: str = "", *, by: str = "Tickets", **details: Any) -> None:
        expected = {"StackName": by}
        if not status:
            self.missing("describe_stacks", expected, f"Stack with id {by} does not exist")
            return
        ours = {"Parameters": given(AuthType="AWS_IAM", Increment="1", MaxCount="100", Offset="7")}
        about = {"StackId": ID, "StackName": "Tickets", "CreationTime": THEN, "StackStatus": status}
        description = {**about, **({} if status == "REVIEW_IN_PROGRESS" else ours), **details}
        self.stubber.add_response("describe_stacks", {"Stacks": [description]}, expected)

    def events(self, *events: dict[str, Any], token: str = "", after: str = "") -> None:
        """Answer with a page of ``events``; they are given oldest first and returned newest first, as AWS does."""
        answer = {"StackEvents": list(reversed(events)), **({"NextToken": token} if token else {})}
        expected = {"StackName": ID, **({"NextToken": after} if after else {})}
        self.stubber.add_response("describe_stack_events", answer, expected)

    def delete(self) -> None:
        self.stubber.add_response("delete_stack", {}, {"StackName": ID})

    def change_set(self, status: str, **details: Any) -> None:
        expected = {"ChangeSetName": CHANGE_SET}
        self.stubber.add_response("describe_change_set", {"Status": status, **details}, expected)

    def created(self, kind: str, parameters: list[dict[str, Any]], **options: Any) -> None:
        expected = {
            "StackName": "Tickets",
            "ChangeSetName": ANY,
            "ChangeSetType": kind,
            "TemplateBody": TEMPLATE,
            "Parameters": parameters,
            "Capabilities": ["CAPABILITY_IAM"],
            "ImportExistingResources": True,
            **options,
        }
        self.stubber.add_response("create_change_set", {"Id": CHANGE_SET, "StackId": ID}, expected)

    def discarded(self, *, stack: bool) -> None:
        self.stubber.add_response("delete_change_set", {}, {"ChangeSetName": CHANGE_SET})
        if stack:
            self.describe("REVIEW_IN_PROGRESS", by=ID)
            self.delete()

    def executed(self) -> None:
        self.stubber.add_response("execute_change_set", {}, {"ChangeSetName": CHANGE_SET})

    def protects(self, *, on: bool) -> None:
        expected = {"StackName": ID, "EnableTerminationProtection": on}
        self.stubber.add_response("update_termination_protection", {"StackId": ID}, expected)

    def missing(self, operation: str, expected: dict[str, Any], message: str, code: str = "ValidationError") -> None:
        self.stubber.add_client_error(operation, code, message, 400, expected_params=expected)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with closing(Aws("us-east-1", endpoint_url="http://127.0.0.1:9", embedded=("test", "test"))) as aws:
        yield aws.client("cloudformation", retries=0)


@pytest.fixture
def script(client: Any) -> Iterator[CloudFormationScript]:
    script = CloudFormationScript(client)
    with script.stubber:
        yield script
    script.stubber.assert_no_pending_responses()


def event(number: int, status: str, logical_id: str = "", reason: str = "", *, kind: str = FUNCTION) -> dict[str, Any]:
    """An event; without a ``logical_id`` it is about the stack itself."""
    return {
        "StackId": ID,
        "StackName": "Tickets",
        "EventId": f"event-{number}",
        "Timestamp": THEN,
        "LogicalResourceId": logical_id or "Tickets",
        "PhysicalResourceId": f"physical-{logical_id}" if logical_id else ID,
        "ResourceType": kind if logical_id else "AWS::CloudFormation::Stack",
        "ResourceStatus": status,
        **({"ResourceStatusReason": reason} if reason else {}),
    }


def change(action: str, logical_id: str, kind: str, replacement: str = "") -> dict[str, Any]:
    details = {"Action": action, "LogicalResourceId": logical_id, "ResourceType": kind}
    return {"Type": "Resource", "ResourceChange": {**details, **({"Replacement": replacement} if replacement else {})}}


def given(**values: str) -> list[dict[str, Any]]:
    return [{"ParameterKey": name, "ParameterValue": value} for name, value in values.items()]


# --- find -------------------------------------------------------------------------------------------


def test_find(script: CloudFormationScript) -> None:
    """``describe`` returns a stack's id, name, status and reason, and its parameters and outputs by name."""
    script.describe(
        "ROLLBACK_COMPLETE",
        StackStatusReason="why",
        Parameters=given(AuthType="AWS_IAM"),
        Outputs=[{"OutputKey": "Url", "OutputValue": "https://tickets.example"}],
    )
    assert script.stacks.describe("Tickets") == Stack(
        id=ID,
        name="Tickets",
        status="ROLLBACK_COMPLETE",
        reason="why",
        parameters={"AuthType": "AWS_IAM"},
        outputs={"Url": "https://tickets.example"},
    )


def test_find_nothing(script: CloudFormationScript) -> None:
    """If the stack does not exist, the result is ``None``."""
    script.describe()
    assert script.stacks.describe("Tickets") is None


def test_find_deleted(script: CloudFormationScript) -> None:
    """If a stack is found by its id after its deletion, the result is ``None``."""
    script.describe("DELETE_COMPLETE", by=ID)
    assert script.stacks.describe(ID) is None


def test_find_denied(script: CloudFormationScript) -> None:
    """If AWS denies the request, that is an error; it does not mean that there is no stack."""
    message = "User: me is not authorized to perform: cloudformation:DescribeStacks on resource: Tickets"
    script.missing("describe_stacks", {"StackName": "Tickets"}, message, "AccessDenied")
    with pytest.raises(AccessError) as caught:
        script.stacks.describe("Tickets")
    assert caught.value.message == f"CloudFormation in us-east-1: {message}"


@pytest.mark.parametrize(
    ("status", "in_progress"),
    [
        ("CREATE_IN_PROGRESS", True),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", True),
        ("UPDATE_ROLLBACK_IN_PROGRESS", True),
        ("DELETE_IN_PROGRESS", True),
        ("REVIEW_IN_PROGRESS", False),
        ("CREATE_COMPLETE", False),
        ("ROLLBACK_COMPLETE", False),
    ],
)
def test_in_progress(status: str, in_progress: bool) -> None:
    """A stack in review is not in progress: nobody is deploying it."""
    stack = Stack(id=ID, name="Tickets", status=status, reason="", parameters={}, outputs={})
    assert stack.in_progress is in_progress


# --- prepare -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE"])
def test_ready(script: CloudFormationScript, status: str) -> None:
    """A deployed stack needs no preparation."""
    script.describe(status)
    stack = script.stacks.prepare("Tickets")
    assert (stack and stack.status, script.said, script.slept) == (status, [], [])


def test_prepare_without_a_stack(script: CloudFormationScript) -> None:
    """If there is no stack, nothing is deleted."""
    script.describe()
    assert (script.stacks.prepare("Tickets"), script.said) == (None, [])


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"])
def test_a_failed_creation(script: CloudFormationScript, status: str) -> None:
    """If the creation of a stack failed, the reason is reported and the stack is deleted."""
    history = [
        event(1, "CREATE_IN_PROGRESS"),
        event(2, "CREATE_FAILED", "CreateTicket", "no such runtime"),
        event(3, "CREATE_FAILED", "CreateTicketRole", "Resource creation cancelled"),
        event(4, status),
    ]
    script.describe(status)
    script.events(*history)
    script.events(*history)
    script.describe(status, by=ID)
    script.delete()
    script.events(*history, event(5, "DELETE_IN_PROGRESS"), event(6, "DELETE_COMPLETE"))
    assert script.stacks.prepare("Tickets") is None
    assert script.said == [
        f"Tickets is {status} (CreateTicket (AWS::Lambda::Function): no such runtime); deleting it; its table is kept",
        "  DELETE_IN_PROGRESS AWS::CloudFormation::Stack Tickets",
        "  DELETE_COMPLETE AWS::CloudFormation::Stack Tickets",
    ]


def test_never_executed(script: CloudFormationScript) -> None:
    """A stack that has only a change set is not deleted, because another user made it; ticketctl can add another."""
    script.describe("REVIEW_IN_PROGRESS")
    stack = script.stacks.prepare("Tickets")
    assert stack is not None
    assert (stack.is_empty, script.said) == (True, [])
    script.describe("REVIEW_IN_PROGRESS")
    script.created("CREATE", [])
    script.change_set("CREATE_COMPLETE")
    assert script.stacks.plan("Tickets", TEMPLATE, {}).is_new


def test_another_tools_stack(script: CloudFormationScript) -> None:
    """A stack that is not a ticket server is refused before anything is changed, whatever its status is."""
    for call in (
        script.stacks.prepare,
        lambda name: script.stacks.plan(name, TEMPLATE, {}),
        script.stacks.find_ours,
    ):
        for status in ("CREATE_COMPLETE", "ROLLBACK_COMPLETE", "DELETE_FAILED"):
            script.describe(status, Parameters=given(Size="large"))
            with pytest.raises(RefusedError, match="is not a ticket server; nothing was changed"):
                call("Tickets")


def test_discard_keeps_a_deployed_stack(script: CloudFormationScript) -> None:
    """Discarding a plan does not delete the new stack if another user has deployed it."""
    script.discarded(stack=False)
    script.describe("CREATE_IN_PROGRESS", by=ID)
    script.stacks.discard(Plan(CHANGE_SET, ID, is_new=True, changes=()))


def test_delete_of_a_deleted_stack(script: CloudFormationScript) -> None:
    """Deleting a stack that is already deleted does nothing; a stack that has changed is not deleted."""
    stack = Stack(id=ID, name="Tickets", status="CREATE_COMPLETE", reason="", parameters={}, outputs={})
    script.events()
    script.describe(by=ID)
    script.stacks.delete(stack)
    script.events()
    script.describe("UPDATE_IN_PROGRESS", by=ID)
    with pytest.raises(RefusedError, match="is now UPDATE_IN_PROGRESS"):
        script.stacks.delete(stack)


def test_stuck(script: CloudFormationScript) -> None:
    """A stack that cannot be updated is refused; the error has the cause and the command that repairs it."""
    script.describe("UPDATE_ROLLBACK_FAILED")
    script.events(
        event(1, "UPDATE_IN_PROGRESS"),
        event(2, "UPDATE_FAILED", "CreateTicket", "no such runtime"),
        event(3, "UPDATE_ROLLBACK_FAILED"),
    )
    with pytest.raises(StackFailedError) as caught:
        script.stacks.prepare("Tickets")
    assert (caught.value.message, caught.value.hint) == (
        "the stack Tickets is UPDATE_ROLLBACK_FAILED: CreateTicket (AWS::Lambda::Function): no such runtime",
        "aws cloudformation continue-update-rollback --stack-name Tickets --region us-east-1",
    )


def test_cause_of_the_last_deployment(script: CloudFormationScript) -> None:
    """The cause comes from the last deployment, not from an earlier one."""
    script.describe("UPDATE_ROLLBACK_FAILED")
    script.events(
        event(1, "UPDATE_IN_PROGRESS"),
        event(2, "UPDATE_FAILED", "CreateTicket", "long ago"),
        event(3, "UPDATE_ROLLBACK_IN_PROGRESS"),
        event(4, "UPDATE_ROLLBACK_COMPLETE"),
        event(5, "UPDATE_IN_PROGRESS"),
        event(6, "UPDATE_FAILED", "CreateTicket", "just now"),
        event(7, "UPDATE_ROLLBACK_IN_PROGRESS"),
        event(8, "UPDATE_ROLLBACK_FAILED"),
    )
    with pytest.raises(StackFailedError, match="just now"):
        script.stacks.prepare("Tickets")


def test_another_user_deploys(script: CloudFormationScript) -> None:
    """If another user is deploying the stack, their deployment is followed to its end."""
    script.describe("UPDATE_IN_PROGRESS")
    script.events(event(1, "UPDATE_IN_PROGRESS"))
    script.describe("UPDATE_IN_PROGRESS", by=ID)
    script.events(event(1, "UPDATE_IN_PROGRESS"), event(2, "UPDATE_COMPLETE", "CreateTicket"))
    script.describe("UPDATE_COMPLETE", by=ID)
    script.events(
        event(1, "UPDATE_IN_PROGRESS"), event(2, "UPDATE_COMPLETE", "CreateTicket"), event(3, "UPDATE_COMPLETE")
    )
    script.describe("UPDATE_COMPLETE")
    stack = script.stacks.prepare("Tickets")
    assert (stack and stack.status, script.slept) == ("UPDATE_COMPLETE", [0.1])
    assert script.said == [
        "Tickets is UPDATE_IN_PROGRESS: waiting for another deployment to finish",
        "  UPDATE_COMPLETE AWS::Lambda::Function CreateTicket",
        "  UPDATE_COMPLETE AWS::CloudFormation::Stack Tickets",
    ]


def test_another_user_deletes(script: CloudFormationScript) -> None:
    """If another user is deleting the stack, the deletion is followed to its end; then there is no stack."""
    script.describe("DELETE_IN_PROGRESS")
    script.events(event(1, "DELETE_IN_PROGRESS"))
    script.describe("DELETE_COMPLETE", by=ID)
    script.events(event(1, "DELETE_IN_PROGRESS"), event(2, "DELETE_COMPLETE"))
    script.describe()
    assert script.stacks.prepare("Tickets") is None


# --- plan -------------------------------------------------------------------------------------------


def test_plan_of_a_new_stack(script: CloudFormationScript) -> None:
    """If there is no stack, the change set creates one; ``plan`` waits until the change set is ready."""
    script.describe()
    script.created("CREATE", given(AuthType="NONE"))
    script.change_set("CREATE_PENDING")
    script.change_set("CREATE_IN_PROGRESS")
    script.change_set("CREATE_COMPLETE", Changes=[change("Import", "TicketsTable", TABLE)])
    assert script.stacks.plan("Tickets", TEMPLATE, {"AuthType": "NONE"}) == Plan(
        change_set_id=CHANGE_SET,
        stack_id=ID,
        is_new=True,
        changes=(Change("Import", "TicketsTable", TABLE, ""),),
    )
    assert script.slept == [0.1, 0.13]


def test_plan_keeps_parameters(script: CloudFormationScript) -> None:
    """A parameter that is not named keeps its value."""
    script.describe("CREATE_COMPLETE", Parameters=given(AuthType="AWS_IAM", Increment="1", MaxCount="100", Offset="7"))
    kept = [parameter for parameter in KEPT if parameter["ParameterKey"] != "MaxCount"]
    script.created("UPDATE", [*given(MaxCount="50"), *kept])
    script.change_set("CREATE_COMPLETE", Changes=[change("Modify", "CreateTicket", FUNCTION, "False")])
    plan = script.stacks.plan("Tickets", TEMPLATE, {"MaxCount": "50"})
    assert (plan.is_new, plan.changes) == (False, (Change("Modify", "CreateTicket", FUNCTION, "False"),))


def test_plan_drops_foreign_parameters(script: CloudFormationScript) -> None:
    """Parameters that the template does not have are not sent, because CloudFormation would refuse the change set."""
    ours = given(AuthType="AWS_IAM", Increment="1", MaxCount="100", Offset="7")
    script.describe("CREATE_COMPLETE", Parameters=[*ours, *given(BootstrapVersion="/cdk-bootstrap/version")])
    script.created("UPDATE", KEPT)
    script.change_set("CREATE_COMPLETE")
    script.stacks.plan("Tickets", TEMPLATE, {})


def test_plan_in_pages(script: CloudFormationScript) -> None:
    """All pages of the changes are read."""
    script.describe("CREATE_COMPLETE")
    script.created("UPDATE", KEPT)
    script.change_set("CREATE_COMPLETE", Changes=[change("Add", "A", FUNCTION)], NextToken="more")
    script.stubber.add_response(
        "describe_change_set",
        {"Status": "CREATE_COMPLETE", "Changes": [change("Remove", "B", TABLE)]},
        {"ChangeSetName": CHANGE_SET, "NextToken": "more"},
    )
    plan = script.stacks.plan("Tickets", TEMPLATE, {})
    assert [str(change) for change in plan.changes] == [
        "add AWS::Lambda::Function A",
        "remove AWS::DynamoDB::Table B",
    ]


@pytest.mark.parametrize(
    "reason",
    [
        "The submitted information didn't contain changes. Submit different information to create a change set.",
        "No updates are to be performed.",
    ],
)
def test_no_changes(script: CloudFormationScript, reason: str) -> None:
    """If a change set has no changes, it is deleted, and the plan has none."""
    script.describe("CREATE_COMPLETE")
    script.created("UPDATE", KEPT)
    script.change_set("FAILED", StatusReason=reason)
    script.discarded(stack=False)
    assert script.stacks.plan("Tickets", TEMPLATE, {}) == Plan(CHANGE_SET, ID, is_new=False, changes=())


@pytest.mark.parametrize(("status", "kind", "is_new"), [("CREATE_COMPLETE", "UPDATE", False), ("", "CREATE", True)])
def test_failed_change_set(script: CloudFormationScript, status: str, kind: str, is_new: bool) -> None:
    """If a change set fails, it is deleted together with its empty stack, and the error has the reason."""
    script.describe(status)
    script.created(kind, KEPT if status else [])
    script.change_set("FAILED", StatusReason="Table Tickets already exists in stack Old")
    script.discarded(stack=is_new)
    with pytest.raises(StackFailedError) as caught:
        script.stacks.plan("Tickets", TEMPLATE, {})
    assert caught.value.message == "CloudFormation refused the change set: Table Tickets already exists in stack Old"


def test_refused_change_set(script: CloudFormationScript) -> None:
    """If CloudFormation refuses the template, the error contains its message."""
    script.describe()
    script.stubber.add_client_error("create_change_set", "ValidationError", "Template format error", 400)
    with pytest.raises(RefusedError) as caught:
        script.stacks.plan("Tickets", TEMPLATE, {})
    assert caught.value.message == "CloudFormation in us-east-1: Template format error"


@pytest.mark.parametrize("is_new", [False, True])
def test_discard(script: CloudFormationScript, is_new: bool) -> None:
    """Discarding a plan deletes its change set and its empty stack."""
    script.discarded(stack=is_new)
    script.stacks.discard(Plan(CHANGE_SET, ID, is_new, ()))


@pytest.mark.parametrize(
    ("change", "danger"),
    [
        (Change("Remove", "TicketsTable", TABLE, ""), True),
        (Change("Modify", "TicketsTable", TABLE, "True"), True),
        (Change("Modify", "TicketsTable", TABLE, "Conditional"), True),
        (Change("Modify", "TicketsTable", TABLE, "False"), False),
        (Change("Add", "TicketsTable", TABLE, ""), False),
        (Change("Import", "TicketsTable", TABLE, ""), False),
        (Change("Remove", "CreateTicket", FUNCTION, ""), False),
        (Change("Modify", "CreateTicket", FUNCTION, "True"), False),
    ],
    ids=str,
)
def test_endangers_table(change: Change, danger: bool) -> None:
    """A change that replaces, deletes, or may replace the table endangers it."""
    plan = Plan(CHANGE_SET, ID, is_new=False, changes=(change,))
    assert plan.endangers_table == ((change,) if danger else ())


@pytest.mark.parametrize(
    ("replacement", "said"), [("True", " (replaced)"), ("Conditional", " (perhaps replaced)"), ("False", ""), ("", "")]
)
def test_change_for_a_person(replacement: str, said: str) -> None:
    """The text of a change says whether the resource is replaced."""
    assert str(Change("Modify", "CreateTicket", FUNCTION, replacement)) == (
        f"modify AWS::Lambda::Function CreateTicket{said}"
    )


ROLE = "arn:aws:iam::123456789012:role/deployer"


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (StackOptions(), {}),
        (StackOptions(tags={}), {"Tags": []}),
        (
            StackOptions(tags={"team": "ids", "a": "b"}),
            {"Tags": [{"Key": "team", "Value": "ids"}, {"Key": "a", "Value": "b"}]},
        ),
        (StackOptions(role_arn=ROLE), {"RoleARN": ROLE}),
    ],
)
def test_plan_with_options(script: CloudFormationScript, options: StackOptions, sent: dict[str, Any]) -> None:
    """Tags and role are sent only if they are given; an empty list of tags removes all tags."""
    script.created("CREATE", [], **sent)
    script.change_set("CREATE_COMPLETE")
    assert script.stacks.plan_from(None, "Tickets", TEMPLATE, {}, options) == Plan(
        CHANGE_SET, ID, is_new=True, changes=()
    )


@pytest.mark.parametrize(
    ("is_protected", "wanted", "planned"),
    [
        (None, True, True),
        (None, False, None),
        (False, True, True),
        (True, False, False),
        (True, True, None),
        (True, None, None),
    ],
)
def test_plan_of_protection(
    script: CloudFormationScript, *, is_protected: bool | None, wanted: bool | None, planned: bool | None
) -> None:
    """Termination protection is in the plan only if it changes."""
    if is_protected is None:
        script.describe()
    else:
        script.describe("CREATE_COMPLETE", EnableTerminationProtection=is_protected)
    current = script.stacks.describe("Tickets")
    script.created("CREATE" if current is None else "UPDATE", [] if current is None else KEPT)
    script.change_set("CREATE_COMPLETE")
    plan = script.stacks.plan_from(current, "Tickets", TEMPLATE, {}, StackOptions(protects=wanted))
    assert plan.protects is planned
    assert [str(change) for change in plan.differences] == (
        []
        if planned is None
        else [f"modify AWS::CloudFormation::Stack termination protection {'on' if planned else 'off'}"]
    )


# --- execute and delete -----------------------------------------------------------------------------

PLAN = Plan(CHANGE_SET, ID, is_new=False, changes=(Change("Modify", "CreateTicket", FUNCTION, ""),))


@pytest.mark.parametrize("on", [True, False])
def test_protection_without_a_change_set(script: CloudFormationScript, *, on: bool) -> None:
    """If only the protection changes, the change set is already deleted and is not executed."""
    script.protects(on=on)
    script.stacks.execute(Plan(CHANGE_SET, ID, is_new=False, changes=(), protects=on))


def test_protection_after_the_deployment(script: CloudFormationScript) -> None:
    """The stack is protected after the deployment is complete."""
    script.events()
    script.executed()
    script.events(event(1, "CREATE_COMPLETE"))
    script.protects(on=True)
    script.stacks.execute(replace(PLAN, protects=True))


def test_execute(script: CloudFormationScript) -> None:
    """A plan is followed to its end: each new event is reported once, and no event of an earlier deployment."""
    old = event(1, "CREATE_COMPLETE")
    started = event(2, "UPDATE_IN_PROGRESS")
    cleaning = event(3, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS")
    script.events(old)
    script.executed()
    script.events(old)
    script.events(old, started)
    script.events(old, started, cleaning, event(4, "UPDATE_COMPLETE"))
    script.stacks.execute(PLAN)
    assert script.said == [
        "  UPDATE_IN_PROGRESS AWS::CloudFormation::Stack Tickets",
        "  UPDATE_COMPLETE_CLEANUP_IN_PROGRESS AWS::CloudFormation::Stack Tickets",
        "  UPDATE_COMPLETE AWS::CloudFormation::Stack Tickets",
    ]
    assert script.slept == [0.1, 0.13]


def test_execute_with_pages_of_events(script: CloudFormationScript) -> None:
    """Events are read page by page, back to the last one that is already known."""
    script.events(event(1, "CREATE_COMPLETE"))
    script.executed()
    script.events(event(3, "UPDATE_COMPLETE"), token="more")
    script.events(event(1, "CREATE_COMPLETE"), event(2, "UPDATE_IN_PROGRESS"), after="more")
    script.stacks.execute(PLAN)
    assert script.said == [
        "  UPDATE_IN_PROGRESS AWS::CloudFormation::Stack Tickets",
        "  UPDATE_COMPLETE AWS::CloudFormation::Stack Tickets",
    ]


def test_pauses_grow(script: CloudFormationScript) -> None:
    """The pauses between two requests for events grow up to three seconds."""
    script.events()
    script.executed()
    for _ in range(20):
        script.events()
    script.events(event(1, "CREATE_COMPLETE"))
    script.stacks.execute(PLAN)
    assert script.slept == sorted(script.slept)
    assert (script.slept[0], script.slept[-1]) == (0.1, 3.0)


def test_failed_deployment(script: CloudFormationScript) -> None:
    """If a deployment fails, the error names the first resource that failed and why."""
    script.events()
    script.executed()
    script.events(
        event(1, "UPDATE_IN_PROGRESS"),
        event(2, "UPDATE_FAILED", "CreateTicket", "ReservedConcurrentExecutions is too high"),
        event(3, "UPDATE_FAILED", "CreateTicketUrl", "Resource update cancelled"),
        event(4, "UPDATE_ROLLBACK_IN_PROGRESS", reason="The following resource(s) failed to update: [CreateTicket]."),
        event(5, "UPDATE_ROLLBACK_COMPLETE"),
    )
    with pytest.raises(StackFailedError) as caught:
        script.stacks.execute(PLAN)
    assert (caught.value.message, caught.value.hint) == (
        "the deployment failed and was rolled back (UPDATE_ROLLBACK_COMPLETE): CreateTicket (AWS::Lambda::Function): "
        "ReservedConcurrentExecutions is too high",
        "fix the cause and run ticketctl deploy again",
    )


def test_failed_without_a_reason(script: CloudFormationScript) -> None:
    """If a deployment fails without a reason, the error says so."""
    script.events()
    script.executed()
    script.events(event(1, "ROLLBACK_COMPLETE"))
    with pytest.raises(StackFailedError, match="CloudFormation gave no reason"):
        script.stacks.execute(PLAN)


def test_failed_deletion(script: CloudFormationScript) -> None:
    """If a stack cannot be deleted, the error says why."""
    script.events()
    script.describe("CREATE_COMPLETE", by=ID)
    script.delete()
    script.events(
        event(1, "DELETE_FAILED", "CreateTicket", "access denied"),
        event(2, "DELETE_FAILED", reason="The following resource(s) failed to delete: [CreateTicket]."),
    )
    stack = Stack(id=ID, name="Tickets", status="CREATE_COMPLETE", reason="", parameters={}, outputs={})
    with pytest.raises(StackFailedError) as caught:
        script.stacks.delete(stack)
    assert (caught.value.message, caught.value.hint) == (
        "the stack Tickets could not be deleted (DELETE_FAILED): CreateTicket (AWS::Lambda::Function): access denied",
        "fix the cause and run ticketctl destroy again",
    )


# --- reading the answers ---------------------------------------------------------------------------


def told(status: str, logical_id: str, reason: str, *, is_stack: bool = False) -> Event:
    kind = "AWS::CloudFormation::Stack" if is_stack else FUNCTION
    return Event(id=logical_id, logical_id=logical_id, type=kind, status=status, reason=reason, is_stack=is_stack)


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([], ""),
        ([told("CREATE_COMPLETE", "A", "fine")], ""),
        (
            [told("CREATE_FAILED", "A", "first"), told("CREATE_FAILED", "B", "second")],
            "A (AWS::Lambda::Function): first",
        ),
        (
            [told("CREATE_FAILED", "A", "Resource creation cancelled"), told("CREATE_FAILED", "B", "cause")],
            "B (AWS::Lambda::Function): cause",
        ),
        (
            [told("UPDATE_FAILED", "A", "Resource update cancelled"), told("UPDATE_FAILED", "B", "cause")],
            "B (AWS::Lambda::Function): cause",
        ),
        (
            [told("DELETE_FAILED", "S", "the stack failed", is_stack=True), told("DELETE_FAILED", "B", "cause")],
            "B (AWS::Lambda::Function): cause",
        ),
        ([told("CREATE_FAILED", "S", "the stack failed", is_stack=True)], "the stack failed"),
        ([told("CREATE_FAILED", "A", "Resource creation cancelled")], "Resource creation cancelled"),
    ],
)
def test_first_cause(events: list[Event], cause: str) -> None:
    """The cause is the first resource that failed by itself, otherwise the first reason that there is."""
    assert first_cause(events) == cause


DEPLOYED = Stack(
    id=ID,
    name="Tickets",
    status="CREATE_COMPLETE",
    reason="",
    parameters={"AuthType": "AWS_IAM", "Offset": "2", "Increment": "3", "MaxCount": "100", "LogRetentionDays": "30"},
    outputs={"Url": "https://tickets.example/", "TableName": "Tickets"},
)


def test_outputs() -> None:
    """The outputs of a deployed stack contain everything that ticketctl needs."""
    assert outputs_of(DEPLOYED, "us-east-1") == StackOutputs(
        account="123456789012",
        region="us-east-1",
        stack="Tickets",
        url="https://tickets.example/",
        auth="AWS_IAM",
        table="Tickets",
        offset=2,
        increment=3,
        max_count=100,
    )


def test_outputs_of_a_foreign_stack() -> None:
    """If the stack is not a ticket server, the error suggests another name."""
    foreign = Stack(id=ID, name="Shop", status="CREATE_COMPLETE", reason="", parameters={}, outputs={"Bucket": "b"})
    with pytest.raises(NotDeployedError) as caught:
        outputs_of(foreign, "us-east-1")
    assert (caught.value.message, caught.value.hint) == (
        "the stack Shop in us-east-1 (CREATE_COMPLETE) is not a ticket server: it has no 'TableName'",
        "deploy under another name: ticketctl deploy --stack NAME",
    )


def test_plan_from_a_stack_that_is_known(script: CloudFormationScript) -> None:
    """A stack that was just described is not described again, and its parameters are kept."""
    script.describe("CREATE_COMPLETE")
    known = script.stacks.find_ours("Tickets")
    script.created("UPDATE", KEPT)
    script.change_set("CREATE_COMPLETE")
    plan = script.stacks.plan_from(known, "Tickets", TEMPLATE, {})
    assert (plan.is_new, plan.changes) == (False, ())


# --- an existing table -------------------------------------------------------------------------------


def resources(script: CloudFormationScript, *found: tuple[str, str, str]) -> None:
    """Answer with a stack's resources: type, name and status of each."""
    summaries = [
        {
            "LogicalResourceId": "R",
            "ResourceType": kind,
            "PhysicalResourceId": name,
            "ResourceStatus": status,
            "LastUpdatedTimestamp": THEN,
        }
        for kind, name, status in found
    ]
    script.stubber.add_response("list_stack_resources", {"StackResourceSummaries": summaries}, {"StackName": ID})


@pytest.mark.parametrize(
    ("found", "has"),
    [
        ([(FUNCTION, "Tickets", "CREATE_COMPLETE"), (TABLE, "Tickets", "CREATE_COMPLETE")], True),
        ([("AWS::DynamoDB::GlobalTable", "Tickets", "UPDATE_COMPLETE")], True),
        ([(TABLE, "Tickets", "DELETE_FAILED")], True),
        ([(TABLE, "Tickets", "DELETE_SKIPPED")], False),
        ([(TABLE, "Tickets", "DELETE_COMPLETE")], False),
        ([(TABLE, "Orders", "CREATE_COMPLETE"), (FUNCTION, "Tickets", "CREATE_COMPLETE")], False),
    ],
)
def test_a_stack_has_a_table(script: CloudFormationScript, found: list[tuple[str, str, str]], *, has: bool) -> None:
    """A stack has a table if one is among its resources and was not removed from the stack."""
    script.describe("UPDATE_COMPLETE", by=ID)
    resources(script, *found)
    assert script.stacks.has_table(ID, "Tickets") is has


@pytest.mark.parametrize("status", ["", "DELETE_COMPLETE"])
def test_a_deleted_stack_has_no_table(script: CloudFormationScript, status: str) -> None:
    """A retained table keeps the tag of its deleted stack; the resources of a deleted stack are not requested."""
    script.describe(status, by=ID)
    assert script.stacks.has_table(ID, "Tickets") is False


@pytest.mark.parametrize(
    ("change", "imports"),
    [
        (Change("Import", "T", TABLE, ""), True),
        (Change("Add", "T", TABLE, ""), False),
        (Change("Import", "L", "AWS::Logs::LogGroup", ""), False),
    ],
)
def test_a_plan_that_imports_the_table(change: Change, *, imports: bool) -> None:
    """A plan imports the table only if it has an import of the table's type."""
    assert Plan("c", ID, True, (change,)).imports_table is imports


# --- regions without Function URLs, and why a change set failed -------------------------------------------


def test_a_region_without_function_urls(script: CloudFormationScript) -> None:
    """If CloudFormation does not know Function URLs, the hint is ``--table-only`` with the lane."""
    script.describe()
    unknown = "Template format error: Unrecognized resource types: [AWS::Lambda::Url]"
    script.stubber.add_client_error("create_change_set", "ValidationError", unknown, 400)
    with pytest.raises(RefusedError) as caught:
        script.stacks.plan("Tickets", TEMPLATE, {"Offset": "3", "Increment": "9", "MaxCount": "7"})
    assert (caught.value.message, caught.value.hint) == (
        "AWS has no Lambda Function URLs in us-east-1",
        "ticketctl deploy --table-only --region us-east-1 --offset 3 --increment 9",
    )


def test_other_unknown_resources(script: CloudFormationScript) -> None:
    """For any other unknown type, the error contains CloudFormation's message."""
    script.describe()
    unknown = "Template format error: Unrecognized resource types: [AWS::Lambda::UrlX]"
    script.stubber.add_client_error("create_change_set", "ValidationError", unknown, 400)
    with pytest.raises(RefusedError) as caught:
        script.stacks.plan("Tickets", TEMPLATE, {})
    assert caught.value.message == f"CloudFormation in us-east-1: {unknown}"


EARLY = (
    "The following hook(s)/validation failed: [AWS::EarlyValidation::ResourceExistenceCheck]. To troubleshoot Early "
    "Validation errors, use the DescribeEvents API for detailed failure information."
)
WITH_TABLE = TEMPLATE[:-1] + f', "Resources": {{"Table": {{"Type": "{TABLE}"}}}}}}'


def invalid(logical_id: str, kind: str, name: str, reason: str, mode: str = "FAIL") -> dict[str, Any]:
    """A failed check, as in the answer of DescribeEvents."""
    return {
        "EventId": f"{logical_id}-{name}",
        "StackId": ID,
        "OperationType": "CREATE_CHANGESET",
        "EventType": "VALIDATION_ERROR",
        "LogicalResourceId": logical_id,
        "ResourceType": kind,
        "Timestamp": THEN,
        "ValidationFailureMode": mode,
        "ValidationName": name,
        "ValidationStatus": "FAILED",
        "ValidationStatusReason": reason,
        "ValidationPath": f"/Resources/{logical_id}",
    }


FINISHED = {
    "EventId": "end",
    "StackId": ID,
    "OperationStatus": "FAILED",
    "EventType": "STACK_EVENT",
    "LogicalResourceId": "Tickets",
    "Timestamp": THEN,
}
TABLE_EXISTS = invalid(
    "Table", TABLE, "NAME_CONFLICT_VALIDATION", f"Resource of type '{TABLE}' with identifier 'Tickets' already exists."
)
NO_RUNTIME = invalid("CreateTicket", FUNCTION, "PROPERTY_VALIDATION", "Required property [Code] not found")


def wanted(body: str, **more: Any) -> dict[str, Any]:
    return {
        "StackName": "Tickets",
        "ChangeSetName": ANY,
        "ChangeSetType": "CREATE",
        "TemplateBody": body,
        "Parameters": [],
        "Capabilities": ["CAPABILITY_IAM"],
        "ImportExistingResources": True,
        **more,
    }


def rejected(script: CloudFormationScript, *failed: dict[str, Any], reason: str = EARLY) -> None:
    """Prepare a new stack whose change set fails with these events, one per page."""
    script.describe()
    made = {"Id": CHANGE_SET, "StackId": ID}
    script.stubber.add_response("create_change_set", made, wanted(WITH_TABLE))
    script.change_set("FAILED", **({"StatusReason": reason} if reason else {}))
    for page, entry in enumerate(failed):
        expected = {"ChangeSetName": CHANGE_SET, "Filters": {"FailedEvents": True}}
        answer = {"OperationEvents": [entry], **({"NextToken": str(page + 1)} if page + 1 < len(failed) else {})}
        asked = {**expected, **({"NextToken": str(page)} if page else {})}
        script.stubber.add_response("describe_events", answer, asked)


@pytest.mark.parametrize("reason", [EARLY, ""])
def test_the_cause_of_a_failed_validation(script: CloudFormationScript, reason: str) -> None:
    """If the reason names no cause, each failed check is reported once with its resource; warnings are omitted."""
    warning = invalid("Other", TABLE, "SERVICE_QUOTA", "near the limit", "WARN")
    rejected(script, FINISHED, NO_RUNTIME, warning, TABLE_EXISTS, NO_RUNTIME, reason=reason)
    script.discarded(stack=True)
    with pytest.raises(StackFailedError) as caught:
        script.stacks.plan("Tickets", WITH_TABLE, {})
    assert (caught.value.message, caught.value.hint) == (
        "CloudFormation refused the change set: "
        "CreateTicket (AWS::Lambda::Function): Required property [Code] not found (PROPERTY_VALIDATION); "
        "Table (AWS::DynamoDB::Table): Resource of type 'AWS::DynamoDB::Table' with identifier 'Tickets' already "
        "exists. (NAME_CONFLICT_VALIDATION)",
        "",
    )


def test_the_cause_of_a_failed_hook(script: CloudFormationScript) -> None:
    """If a hook of the account rejects a resource, the error names the hook and its reason."""
    hook = {
        **FINISHED,
        "EventType": "HOOK_INVOCATION_ERROR",
        "LogicalResourceId": "Table",
        "ResourceType": TABLE,
        "HookType": "Acme::Tags::Hook",
        "HookStatus": "HOOK_COMPLETE_FAILED",
        "HookStatusReason": "a tag is missing",
        "HookFailureMode": "FAIL",
    }
    rejected(script, hook, reason="The following hook(s) failed: [Acme::Tags::Hook]")
    script.discarded(stack=True)
    with pytest.raises(StackFailedError, match=r"Table \(AWS::DynamoDB::Table\): a tag is missing \(Acme::Tags::Hook"):
        script.stacks.plan("Tickets", WITH_TABLE, {})


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("AccessDenied", "allow cloudformation:DescribeEvents, which tells the cause"),
        ("ValidationError", "the cause cannot be read: CloudFormation in us-east-1: no"),
    ],
)
def test_a_cause_that_cannot_be_read(script: CloudFormationScript, code: str, hint: str) -> None:
    """If DescribeEvents fails, the error has the reason and how to learn more; the change set is deleted."""
    rejected(script)
    script.missing("describe_events", {"ChangeSetName": CHANGE_SET, "Filters": {"FailedEvents": True}}, "no", code)
    script.discarded(stack=True)
    with pytest.raises(StackFailedError) as caught:
        script.stacks.plan("Tickets", WITH_TABLE, {})
    assert (caught.value.message, caught.value.hint) == (f"CloudFormation refused the change set: {EARLY}", hint)


@pytest.mark.parametrize("imports", [True, False])
def test_a_retained_table_that_validation_rejects(script: CloudFormationScript, imports: bool) -> None:
    """If validation rejects only the existing table, the change set is created once more without validation."""
    rejected(script, FINISHED, TABLE_EXISTS)
    script.stubber.add_response("delete_change_set", {}, {"ChangeSetName": CHANGE_SET})
    second = {"Id": CHANGE_SET, "StackId": ID}
    script.stubber.add_response("create_change_set", second, wanted(WITH_TABLE, DisableValidation=True))
    if imports:
        script.change_set("CREATE_COMPLETE", Changes=[change("Import", "Table", TABLE)])
        plan = script.stacks.plan("Tickets", WITH_TABLE, {})
        assert plan == Plan(CHANGE_SET, ID, is_new=True, changes=(Change("Import", "Table", TABLE, ""),))
    else:
        script.change_set("FAILED", StatusReason="the table Tickets belongs to the stack Old")
        script.discarded(stack=True)
        with pytest.raises(StackFailedError, match="belongs to the stack Old"):
            script.stacks.plan("Tickets", WITH_TABLE, {})
    assert script.said == [
        "AWS's validation rejects the table Tickets because it exists: importing it without validation"
    ]


def test_table_only_is_a_ticket_server(script: CloudFormationScript) -> None:
    """A stack without a function is a ticket server; its outputs have no URL, and its auth is AWS_IAM."""
    lane = given(Increment="3", MaxCount="100", Offset="2")
    table = [{"OutputKey": "TableName", "OutputValue": "Tickets"}]
    script.describe("CREATE_COMPLETE", Parameters=lane, Outputs=table)
    found = script.stacks.find_ours("Tickets")
    assert found is not None
    outputs = outputs_of(found, "us-east-1")
    assert (outputs.url, outputs.auth, outputs.offset, outputs.increment) == (None, "AWS_IAM", 2, 3)


# --- servers without CloudFormation -----------------------------------------------------------------


def describe_at(server: Server, monkeypatch: pytest.MonkeyPatch) -> Stack | None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0000000000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with closing(Aws("us-east-1", endpoint_url=server.url)) as aws:
        return CloudFormation(aws.client("cloudformation", retries=0)).describe("Tickets")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(400, "application/x-amz-json-1.0", b'{"__type": "UnknownOperationException", "message": "x"}'),
        Answer(404, "application/xml", b"<UnknownOperationException/>"),
        Answer(404, "text/html", b"<html><body>Not found</body></html>"),
        Answer(404, "text/plain", b""),
        Answer(405, "text/plain", b"no"),
        Answer(501, "text/plain", b"no"),
        Answer(200, "text/plain", b"hello"),
        Answer(200, "text/html", b"<html>hello</html>"),
        Answer(400, "text/xml", b"<ErrorResponse><Error><Code>InvalidAction</Code></Error></ErrorResponse>"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_aws")
def test_an_endpoint_without_cloudformation(server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """If an endpoint has no CloudFormation, such as DynamoDB Local, the error says so and names ``--table``."""
    server.answers = [answer]
    with pytest.raises(SetupError, match="has no CloudFormation") as caught:
        describe_at(server, monkeypatch)
    assert server.url in caught.value.message
    assert caught.value.hint == "ticketctl next --table NAME"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(503, "text/html", b"<html>unavailable</html>"), NotMintedError),
        (Answer(403, "text/html", b"<html>a proxy</html>"), NotMintedError),
        (Answer(400, "text/xml", b"<E><Error><Code>ValidationError</Code></Error></E>"), RefusedError),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.usefixtures("no_aws")
def test_other_failures_of_an_endpoint(
    server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[Exception]
) -> None:
    """Failures that CloudFormation itself may return keep their meaning."""
    server.answers = [answer]
    with pytest.raises(error):
        describe_at(server, monkeypatch)
