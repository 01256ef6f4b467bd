"""An AWS account in memory: the stacks and tables of each region, for the tests of deployments.

The tables are model tables, which evaluate the real requests; the stacks have only parameters and outputs.
"""

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from botocore.exceptions import ClientError, EndpointConnectionError

from tests.support.model_table import KEY, Client, ModelTable, Request
from ticketctl.aws.account import Aws
from ticketctl.aws.cloudformation import CloudFormation
from ticketctl.aws.dynamodb import SendUntil, sdk_sender
from ticketctl.aws.stacks import TABLE_TYPE, UNCHANGED, URL_TYPE, Change, Plan, Stack, StackOptions
from ticketctl.deployments.dialog import Dialog
from ticketctl.deployments.regional_stack import RegionalStack
from ticketctl.deployments.regions import Regions
from ticketctl.deployments.session import Session
from ticketctl.errors import AccessError, StackFailedError, UnreachableError
from ticketctl.settings import Settings, resolve

US, EU, AP = "us-east-1", "eu-west-1", "ap-southeast-2"
ACCOUNT = "123456789012"
STACK = "Tickets"
DEFAULTS = {"AuthType": "AWS_IAM", "Offset": "1", "Increment": "1", "MaxCount": "10000"}


class Account:
    """An account with its ``stacks`` and ``tables`` by region.

    ``down`` are unreachable regions, ``failing`` regions whose deployments fail, ``codes`` the error codes of DynamoDB
    by region, ``denied`` the denied operations on tables, and ``described`` the additions to DescribeTable's answer.
    ``seconds`` is the duration of a deployment, ``locks`` the number of holders of the lock on deployments. ``owners``
    are the ids of other stacks in the tags of tables; these stacks are deleted unless ``has_live_owner`` is true.
    ``calls`` counts the operations on stacks and the opened sources, by verb and region; ``options`` are those of the
    last plan by region. ``reads`` counts how often tables were described.
    """

    def __init__(self, *regions: str) -> None:
        self.regions = regions or (US, EU, AP)
        self.stacks: dict[str, Stack] = {}
        self.tables: dict[str, ModelTable] = {}
        self.down: set[str] = set()
        self.failing: set[str] = set()
        self.codes: dict[str, str] = {}
        self.denied: set[str] = set()
        self.described: dict[str, dict[str, Any]] = {}
        self.owners: list[str] = []
        self.has_live_owner = False
        self.replaces_table = False
        self.denies_cloudformation = False
        self.engine_restarted = False
        self.seconds = 0.0
        self.locks = 0
        self.calls: Tally[str] = Tally()
        self.reads: Tally[str] = Tally()
        self.planned: dict[str, Stack] = {}
        self.options: dict[str, StackOptions] = {}

    def deploy(self, region: str, **parameters: str) -> None:
        """Deploy a stack with its table, without ticketctl."""
        self.stacks[region] = stack_in(region, parameters)
        self.tables.setdefault(region, ModelTable(STACK))

    def numbers(self, region: str) -> dict[str, int]:
        """Return the last ticket of each counter of a region."""
        return {name: int(row["hand_crafted_int"]["N"]) for name, row in self.tables[region].rows.items()}


def stack_in(region: str, parameters: Mapping[str, str]) -> Stack:
    return Stack(
        id=f"arn:aws:cloudformation:{region}:{ACCOUNT}:stack/{STACK}/1",
        name=STACK,
        status="CREATE_COMPLETE",
        reason="",
        parameters={**DEFAULTS, **parameters},
        outputs={"Url": url_in(region), "TableName": STACK},
    )


def url_in(region: str) -> str:
    return f"https://abc.lambda-url.{region}.on.aws/"


class MemoryCloudFormation(CloudFormation):
    """The stacks of one region."""

    def __init__(self, account: Account, region: str, report: Callable[[str], None]) -> None:
        super().__init__(SimpleNamespace(meta=SimpleNamespace(region_name=region)), report=report)
        self._account = account

    def describe(self, stack: str) -> Stack | None:  # noqa: ARG002 - there is one
        self._count("describe")
        return self._account.stacks.get(self._region)

    def plan_from(
        self,
        current: Stack | None,
        stack: str,  # noqa: ARG002
        template_body: str,
        parameters: Mapping[str, str],
        options: StackOptions = UNCHANGED,
    ) -> Plan:
        self._count("plan")
        self._account.options[self._region] = options
        kept = current.parameters if current else {}
        was_protected = current is not None and current.is_protected
        planned = replace(stack_in(self._region, {**kept, **parameters}), is_protected=was_protected)
        if URL_TYPE not in template_body:
            planned = replace(planned, outputs={"TableName": STACK})
        self._account.planned[self._region] = planned
        protects = None if options.protects == was_protected else options.protects
        return Plan("change-set", planned.id, current is None, self._changes_to(current, planned), protects)

    def _changes_to(self, current: Stack | None, planned: Stack) -> tuple[Change, ...]:
        if current is None:
            return (Change("Import" if self._region in self._account.tables else "Add", "Table", TABLE_TYPE, ""),)
        if self._account.replaces_table:
            return (Change("Modify", "Table", TABLE_TYPE, "True"),)
        if "Url" in current.outputs and "Url" not in planned.outputs:
            return (Change("Remove", "Url", URL_TYPE, ""),)
        return () if planned == current else (Change("Modify", "Function", "AWS::Lambda::Function", "False"),)

    def has_table(self, stack_id: str, table: str) -> bool:  # noqa: ARG002
        return self._account.has_live_owner

    def discard(self, plan: Plan) -> None:  # noqa: ARG002
        self._count("discard")

    def execute(self, plan: Plan) -> None:
        self._count("execute")
        time.sleep(self._account.seconds)
        if self._region in self._account.failing:
            raise StackFailedError(f"the deployment failed in {self._region}")
        planned = self._account.planned[self._region]
        protected = planned.is_protected if plan.protects is None else plan.protects
        self._account.stacks[self._region] = replace(planned, is_protected=protected)
        self._account.tables.setdefault(self._region, ModelTable(STACK))

    def delete(self, stack: Stack) -> None:  # noqa: ARG002
        self._count("delete")
        if self._region in self._account.failing:
            raise StackFailedError(f"the deletion failed in {self._region}")
        del self._account.stacks[self._region]

    def _count(self, verb: str) -> None:
        self._account.calls[f"{verb} {self._region}"] += 1
        if self._region in self._account.down:
            raise UnreachableError(f"CloudFormation in {self._region} cannot be reached")
        if self._account.denies_cloudformation:
            raise AccessError(f"CloudFormation in {self._region}: not authorized")


class TableClient(Client):
    """DynamoDB in one region, with the methods of a botocore client."""

    def __init__(self, account: Account, region: str) -> None:
        self._account = account
        self._region = region
        self.meta = SimpleNamespace(region_name=region)

    def call(self, operation: str, request: Request) -> dict[str, Any]:
        return self._table(operation, request["TableName"]).call(operation, request)

    def describe_table(self, TableName: str) -> dict[str, Any]:  # noqa: N803 - botocore's name
        self._account.reads[f"describe table {self._region}"] += 1
        self._table("DescribeTable", TableName)
        described = {
            "AttributeDefinitions": [{"AttributeName": KEY, "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": KEY, "KeyType": "HASH"}],
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "DeletionProtectionEnabled": True,
        }
        return {"Table": {**described, **self._account.described.get(self._region, {})}}

    def get_paginator(self, operation: str) -> Any:
        if operation == "list_tags_of_resource":
            tags = [{"Key": "aws:cloudformation:stack-id", "Value": owner} for owner in self._account.owners]
            return SimpleNamespace(paginate=lambda **_: [{"Tags": tags}])
        return super().get_paginator(operation)

    def describe_time_to_live(self, TableName: str) -> dict[str, Any]:  # noqa: N803 - botocore's name
        self._account.reads[f"describe time to live {self._region}"] += 1
        self._table("DescribeTimeToLive", TableName)
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}}

    def describe_continuous_backups(self, TableName: str) -> dict[str, Any]:  # noqa: N803 - botocore's name
        self._table("DescribeContinuousBackups", TableName)
        recovery = {"PointInTimeRecoveryStatus": "ENABLED"}
        return {"ContinuousBackupsDescription": {"PointInTimeRecoveryDescription": recovery}}

    def update_table(self, TableName: str, **change: Any) -> None:  # noqa: N803 - botocore's name
        self._table("UpdateTable", TableName)
        assert len(change) == 1, "DynamoDB makes one kind of change at a time"

    def delete_table(self, TableName: str) -> None:  # noqa: N803 - botocore's name
        self._table("DeleteTable", TableName)
        del self._account.tables[self._region]

    def get_waiter(self, name: str) -> Any:  # noqa: ARG002 - all is done at once
        return SimpleNamespace(wait=lambda **_: None)

    def _table(self, operation: str, name: str) -> ModelTable:
        if self._region in self._account.down:
            raise EndpointConnectionError(endpoint_url=f"https://dynamodb.{self._region}.amazonaws.com")
        table = self._account.tables.get(self._region)
        denied = "AccessDeniedException" if operation in self._account.denied else None
        code = denied or self._account.codes.get(self._region)
        if code or table is None or table.name != name:
            details = {"Code": code or "ResourceNotFoundException", "Message": "no"}
            raise ClientError({"Error": details, "ResponseMetadata": {"HTTPStatusCode": 400}}, operation)
        return table


class MemoryAws(Aws):
    """One region of an account."""

    def __init__(self, account: Account, region: str) -> None:
        super().__init__(region, embedded=("key", "secret"))
        self._account = account

    def in_region(self, region: str) -> "MemoryAws":
        return MemoryAws(self._account, region)

    def regions(self) -> list[str]:
        return list(self._account.regions)

    def account(self) -> str:
        if self.region in self._account.down:
            raise UnreachableError(f"sts in {self.region} cannot be reached")
        return ACCOUNT

    def client(self, service: str, **_: Any) -> TableClient:
        assert service == "dynamodb"
        return TableClient(self._account, self.region)


class MemorySession(Session):
    """A session with an account in memory."""

    def __init__(
        self, settings: Settings, account: Account, environ: Mapping[str, str], *, parent: Session | None = None
    ) -> None:
        super().__init__(settings, environ=environ, parent=parent)
        self._account = account

    def in_region(self, region: str) -> "MemorySession":
        return MemorySession(self.settings.in_region(region), self._account, self.environ, parent=self)

    def follow_engine(self) -> bool:
        restarted, self._account.engine_restarted = self._account.engine_restarted, False
        return restarted

    @property
    def aws(self) -> Aws:
        return MemoryAws(self._account, self.settings.require_region())

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        self._account.locks += 1
        try:
            yield
        finally:
            self._account.locks -= 1

    def cloudformation(
        self,
        report: Callable[[str], None] = lambda line: None,
        *,
        timeout: float = 30.0,  # noqa: ARG002
        retries: int = 1,  # noqa: ARG002
    ) -> CloudFormation:
        return MemoryCloudFormation(self._account, self.settings.require_region(), report)

    def sender(self, table: str, *, sdk: bool = False) -> SendUntil:  # noqa: ARG002
        self._account.calls[f"sender {self.settings.region}"] += 1
        send = sdk_sender(self.aws.client("dynamodb"), f"the table {table} in {self.settings.region}")
        return lambda deadline: send


class Said:
    """Keeps messages, warnings and questions; every question raises ``refusal`` if it is set."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.questions: list[str] = []
        self.refusal: Exception | None = None

    def confirm(self, question: str) -> None:
        self.questions.append(question)
        if self.refusal is not None:
            raise self.refusal

    @contextmanager
    def progress(self, names: object) -> Iterator[Callable[[str, str], None]]:  # noqa: ARG002
        yield lambda region, line: self.lines.append(f"{region}: {line}")

    @property
    def dialog(self) -> Dialog:
        return Dialog(self.lines.append, self.warnings.append, self.confirm, self.progress)


def regions_of(account: Account, home: Path, *names: str, said: Said | None = None, **flags: Any) -> Regions:
    """Open the regions of a command line, each with its own connections; ``home`` is ``TICKETCTL_HOME``."""
    environ = {"TICKETCTL_HOME": str(home)}
    settings = resolve({"region": names, "via": "dynamodb", **flags}, environ)
    stack = RegionalStack(MemorySession(replace(settings), account, environ))
    lines = [] if said is None else said.lines
    return Regions(stack, environ=environ, note=lines.append, warn=lines.append)
