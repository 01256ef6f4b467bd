"""The stack: parameters, the table, the function with its role and log group, the Function URL and the alarms."""

import ast
from pathlib import Path
from typing import Any, cast

from aws_cdk import (
    Acknowledgment,
    CfnCondition,
    CfnOutput,
    CfnParameter,
    Duration,
    Fn,
    RemovalPolicy,
    Stack,
    Validations,
)
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from alarms import Alarms

HANDLER = Path(__file__).parent.parent / "lambda" / "create_ticket.py"
LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 180, 365, 731, 1827, 3653)


class TicketsStack(Stack):
    """A ticket server in one template: everything that differs between deployments is a CloudFormation parameter."""

    def __init__(self, scope: Construct, construct_id: str, **kwargs: Any) -> None:
        super().__init__(
            scope, construct_id, description="Serverless integers: one table, one function, one URL.", **kwargs
        )
        self._parameters()
        table = self._table()
        log_group = self._log_group()
        function = self._function(table, log_group)
        url = self._url(function)
        Alarms(self, function=function.function_name, table=table.table_name, log_group=log_group.log_group_name)
        self._outputs(table, url)

    def _parameters(self) -> None:
        self.auth = CfnParameter(
            self,
            "AuthType",
            allowed_values=["AWS_IAM", "NONE"],
            default="AWS_IAM",
            description="Who may call the URL: callers that AWS IAM allows (AWS_IAM), or anyone (NONE).",
        )
        self.offset = self._number(
            "Offset",
            1,
            "The first ticket of a new counter; 0 if its lane comes from another region.",
            at_least=0,
            at_most=10**6,
        )
        self.increment = self._number("Increment", 1, "The step of a new counter.", at_least=1, at_most=10**6)
        self.max_count = self._number("MaxCount", 10_000, "The most tickets per call.", at_least=1, at_most=10_000)
        self.concurrency = self._number(
            "ReservedConcurrency", -1, "Concurrent executions reserved for the function; -1 reserves none.", at_least=-1
        )
        self.log_retention = CfnParameter(
            self,
            "LogRetentionDays",
            type="Number",
            default="30",
            allowed_values=[str(days) for days in LOG_RETENTION_DAYS],
            description="Days to keep the function's logs.",
        )

    def _number(
        self, name: str, default: int, description: str, *, at_least: int, at_most: int | None = None
    ) -> CfnParameter:
        return CfnParameter(
            self,
            name,
            type="Number",
            default=default,
            min_value=at_least,
            max_value=at_most,
            description=description,
        )

    def _table(self) -> dynamodb.Table:
        return dynamodb.Table(
            self,
            "TicketsTable",
            # A literal: CloudFormation can import an existing table only if its name is a literal.
            table_name=self.stack_name,
            partition_key=dynamodb.Attribute(name="partition", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            deletion_protection=True,
            time_to_live_attribute="expires_at",
            removal_policy=RemovalPolicy.RETAIN,
        )

    def _log_group(self) -> logs.LogGroup:
        log_group = logs.LogGroup(self, "CreateTicketLogs", removal_policy=RemovalPolicy.DESTROY)
        resource = cast(logs.CfnLogGroup, log_group.node.default_child)
        resource.retention_in_days = self.log_retention.value_as_number
        return log_group

    def _function(self, table: dynamodb.Table, log_group: logs.LogGroup) -> lambda_.Function:
        role = iam.Role(self, "CreateTicketRole", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        log_group.grant_write(role)
        table.grant(role, "dynamodb:UpdateItem", "dynamodb:GetItem")
        function = lambda_.Function(
            self,
            "CreateTicket",
            description="Returns a new integer on every call.",
            runtime=lambda_.Runtime.PYTHON_3_14,
            architecture=lambda_.Architecture.ARM_64,
            code=lambda_.Code.from_inline(without_comments(HANDLER.read_text(encoding="utf-8"))),
            handler="index.handler",
            memory_size=256,
            timeout=Duration.seconds(10),
            role=role,
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            # Lambda's own three log lines per call would cost more than the call.
            system_log_level_v2=lambda_.SystemLogLevel.WARN,
            environment={
                "TABLE_NAME": table.table_name,
                "DEFAULT_PARTITION": self.region,
                "OFFSET": self.offset.value_as_string,
                "INCREMENT": self.increment.value_as_string,
                "MAX_COUNT": self.max_count.value_as_string,
                "DYNAMODB_ENDPOINT": Fn.sub("https://dynamodb.${AWS::Region}.${AWS::URLSuffix}"),
            },
        )
        reserves = CfnCondition(
            self,
            "ReservesConcurrency",
            expression=Fn.condition_not(Fn.condition_equals(self.concurrency.value_as_string, "-1")),
        )
        resource = cast(lambda_.CfnFunction, function.node.default_child)
        resource.add_property_override(
            "ReservedConcurrentExecutions",
            {"Fn::If": [reserves.logical_id, {"Ref": self.concurrency.logical_id}, {"Ref": "AWS::NoValue"}]},
        )
        policy = cast(iam.Policy, role.node.find_child("DefaultPolicy"))
        # CDK also names the role, on which the function depends anyway.
        resource.add_override("DependsOn", [cast(iam.CfnPolicy, policy.node.default_child).logical_id])
        Validations.of(function).acknowledge(
            Acknowledgment(
                id="CloudFormation-Validate::F3034",
                reason="The default -1 means no reservation and is never set on the function.",
            )
        )
        return function

    def _url(self, function: lambda_.Function) -> lambda_.CfnUrl:
        """The Function URL; if it is public, callers need both permissions (AWS, since October 2025)."""
        url = lambda_.CfnUrl(
            self,
            "CreateTicketUrl",
            auth_type=self.auth.value_as_string,
            target_function_arn=function.function_arn,
        )
        public = CfnCondition(self, "Public", expression=Fn.condition_equals(self.auth.value_as_string, "NONE"))
        permissions = [
            lambda_.CfnPermission(
                self,
                "AnyoneMayCallUrl",
                action="lambda:InvokeFunctionUrl",
                function_name=function.function_arn,
                principal="*",
                function_url_auth_type="NONE",
            ),
            lambda_.CfnPermission(
                self,
                "AnyoneMayInvokeThroughUrl",
                action="lambda:InvokeFunction",
                function_name=function.function_arn,
                principal="*",
                invoked_via_function_url=True,
            ),
        ]
        for permission in permissions:
            permission.cfn_options.condition = public
        return url

    def _outputs(self, table: dynamodb.Table, url: lambda_.CfnUrl) -> None:
        CfnOutput(self, "Url", description="Send GET or POST to get a ticket.", value=url.attr_function_url)
        CfnOutput(self, "TableName", description="The table of the counters.", value=table.table_name)


def without_comments(source: str) -> str:
    """The code of a module without its docstrings, comment lines and blank lines, indented by one space per level.

    An inlined function counts against the 51,200 bytes of a template; the CDK CLI sends it as YAML, which indents
    each line once more. The rest of a line stays as it is, so that the result is the same with every version of
    Python. The source has no other strings of several lines.
    """
    lines = source.splitlines()
    texts = {
        number
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for number in range(node.lineno - 1, node.end_lineno or node.lineno)
    }
    kept = [line for number, line in enumerate(lines) if number not in texts]
    code = [(len(line) - len(line.lstrip()), line.lstrip()) for line in kept if line.strip()]
    return "".join(f"{' ' * (depth // 4)}{text}\n" for depth, text in code if not text.startswith("#"))
