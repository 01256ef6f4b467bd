"""The construct: a table, a function with its role and log group, a Function URL and, if wanted, alarms."""

import math
import re
from collections.abc import Sequence
from typing import Any, cast

from aws_cdk import CfnCondition, CfnResource, Duration, Fn, RemovalPolicy, Stack, Token, Tokenization
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from constructs import Construct

from ticketctl.cdk.alarms import Alarms
from ticketctl.cdk.inline_code import inline_code
from ticketctl.settings import TABLE

MOST_LANE = 10**6
MOST_COUNT = 10_000
MOST_CONCURRENCY = 2**31 - 1  # Lambda's quota is less, and differs between accounts
LOG_RETENTION_DAYS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545),
    *(731, 1096, 1827, 2192, 2557, 2922, 3288, 3653),
)  # what CloudWatch Logs accepts


class TicketServer(Construct):
    """A ticket server: one DynamoDB table, one Lambda function, one Function URL.

    - ``auth``: who may call the URL. ``AWS_IAM``: callers with ``grant_mint``; ``NONE``: anyone.
    - ``offset``, ``increment``: the lane of new counters: ``offset, offset + increment, …``, each at most 1,000,000.
      ``offset`` 0: the default counter does not begin by itself.
    - ``max_count``: the most tickets per call, 1 to 10,000.
    - ``reserved_concurrency``: executions reserved for the function. Default: none.
    - ``log_retention_days``: days to keep the function's logs, one of those that CloudWatch Logs accepts.
    - ``removal_policy``: of the table. It has deletion protection unless this is ``DESTROY``.
    - ``table_name``: default: CloudFormation makes one.
    - ``alarm_topic``: the topic that gets the alarms. Default: no alarms.

    Every value may be a token, for example of a ``CfnParameter``, which only the deployment checks. Raises
    ``ValueError`` if a value cannot be deployed.

    ``url``, ``table``, ``function`` and ``log_group`` are what it has made; ``alarms`` are the resources of the alarms.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        auth: lambda_.FunctionUrlAuthType | str = lambda_.FunctionUrlAuthType.AWS_IAM,
        offset: float = 1,
        increment: float = 1,
        max_count: float = MOST_COUNT,
        reserved_concurrency: float | None = None,
        log_retention_days: float = 30,
        removal_policy: RemovalPolicy = RemovalPolicy.RETAIN,
        table_name: str | None = None,
        alarm_topic: sns.ITopic | None = None,
    ) -> None:
        auth = auth.value if isinstance(auth, lambda_.FunctionUrlAuthType) else auth
        _require_one_of("auth", auth, ("AWS_IAM", "NONE"))
        _require_within("offset", offset, 0, MOST_LANE)
        _require_within("increment", increment, 1, MOST_LANE)
        _require_within("max_count", max_count, 1, MOST_COUNT)
        _require_one_of("log_retention_days", log_retention_days, LOG_RETENTION_DAYS)
        if reserved_concurrency is not None:
            _require_within("reserved_concurrency", reserved_concurrency, 0, MOST_CONCURRENCY)
        if removal_policy == RemovalPolicy.SNAPSHOT:
            raise ValueError("removal_policy must not be SNAPSHOT: a table has none")
        if table_name is not None:
            _require_table_name(table_name)
        super().__init__(scope, construct_id)
        self.table = self._table(table_name, removal_policy)
        self.log_group = self._log_group(log_retention_days)
        self.function = self._function(
            {"OFFSET": offset, "INCREMENT": increment, "MAX_COUNT": max_count}, reserved_concurrency
        )
        self.url = self._url(auth)
        self.alarms = self._alarms(alarm_topic) if alarm_topic else []

    def grant_mint(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow to mint through the URL, and to invoke the function in no other way."""
        return self.function.grant_invoke_url(grantee)

    def grant_mint_from_table(self, grantee: iam.IGrantable) -> iam.Grant:
        """Allow to mint from the table, without the function: ``UpdateItem``, and ``GetItem`` for typed keys."""
        return self.table.grant(grantee, "dynamodb:UpdateItem", "dynamodb:GetItem")

    def _table(self, name: str | None, removal_policy: RemovalPolicy) -> dynamodb.Table:
        return dynamodb.Table(
            self,
            "TicketsTable",
            table_name=name,
            partition_key=dynamodb.Attribute(name="partition", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=removal_policy != RemovalPolicy.DESTROY,
            time_to_live_attribute="expires_at",
            removal_policy=removal_policy,
        )

    def _log_group(self, retention_days: float) -> logs.LogGroup:
        log_group = logs.LogGroup(self, "CreateTicketLogs", removal_policy=RemovalPolicy.DESTROY)
        resource = cast(logs.CfnLogGroup, log_group.node.default_child)
        resource.retention_in_days = retention_days
        return log_group

    def _function(self, numbers: dict[str, float], reserved_concurrency: float | None) -> lambda_.Function:
        role = iam.Role(self, "CreateTicketRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.log_group.grant_write(role)
        self.table.grant(role, "dynamodb:UpdateItem", "dynamodb:GetItem")
        return lambda_.Function(
            self,
            "CreateTicket",
            description="Returns a new integer on every call.",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            code=lambda_.Code.from_inline(inline_code()),
            handler="index.handler",
            memory_size=256,
            timeout=Duration.seconds(10),
            reserved_concurrent_executions=reserved_concurrency,
            role=role,
            log_group=self.log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            # Lambda's own three log lines per call would cost more than the call.
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
            environment={
                "TABLE_NAME": self.table.table_name,
                "DEFAULT_PARTITION": Stack.of(self).region,
                **{name: Tokenization.stringify_number(number) for name, number in numbers.items()},
                "DYNAMODB_ENDPOINT": Fn.sub("https://dynamodb.${AWS::Region}.${AWS::URLSuffix}"),
            },
        )

    def _url(self, auth: str) -> str:
        """Make the Function URL; if it is public, callers need both permissions (AWS, since October 2025)."""
        arn = self.function.function_arn
        url = lambda_.CfnUrl(self, "CreateTicketUrl", auth_type=auth, target_function_arn=arn)
        if Token.is_unresolved(auth):
            public = CfnCondition(self, "Public", expression=Fn.condition_equals(auth, "NONE"))
            for permission in self._allow_anyone():
                permission.cfn_options.condition = public
        elif auth == "NONE":
            self._allow_anyone()
        return url.attr_function_url

    def _allow_anyone(self) -> list[lambda_.CfnPermission]:
        anyone: dict[str, Any] = {"function_name": self.function.function_arn, "principal": "*"}
        return [
            lambda_.CfnPermission(
                self, "AnyoneMayCallUrl", action="lambda:InvokeFunctionUrl", function_url_auth_type="NONE", **anyone
            ),
            lambda_.CfnPermission(
                self,
                "AnyoneMayInvokeThroughUrl",
                action="lambda:InvokeFunction",
                invoked_via_function_url=True,
                **anyone,
            ),
        ]

    def _alarms(self, topic: sns.ITopic) -> list[CfnResource]:
        return Alarms(
            self,
            topic=topic.topic_arn,
            function=self.function.function_name,
            table=self.table.table_name,
            log_group=self.log_group.log_group_name,
        ).resources


def _require_within(name: str, value: float, least: int, most: int) -> None:
    if not _is_token(name, value, float) and (type(value) is not int or not least <= value <= most):
        raise ValueError(f"{name} must be a whole number, from {least} to {most}, not {value!r}")


def _require_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    kind = str if isinstance(allowed[0], str) else float
    if not _is_token(name, value, kind) and (isinstance(value, bool) or value not in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")


def _require_table_name(name: str) -> None:
    if not _is_token("table_name", name, str) and not re.fullmatch(TABLE, name):
        raise ValueError(f"table_name must have 3 to 255 letters, digits, '_', '.' and '-', not {name!r}")


def _is_token(name: str, value: object, kind: type[float | str]) -> bool:
    """Whether only the deployment knows the value, which must then be a token of this kind.

    CDK cannot be asked about NaN and infinity: they end its process.
    """
    if (isinstance(value, float) and not math.isfinite(value)) or not Token.is_unresolved(value):
        return False
    if isinstance(value, kind):
        return True
    word = "string" if kind is str else "number"
    raise ValueError(f"{name} must be a {word} token: use value_as_{word} or Token.as_{word}")
