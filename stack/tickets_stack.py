"""The stack: a ticket server whose properties are the parameters of the deployment."""

from typing import Any, cast

from aws_cdk import (
    Acknowledgment,
    Aws,
    CfnCondition,
    CfnOutput,
    CfnParameter,
    Fn,
    Stack,
    Token,
    Validations,
)
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from alarm_receiver import AlarmReceiver
from ticketctl.cdk import TicketServer

LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 180, 365, 731, 1827, 3653)


class TicketsStack(Stack):
    """A ticket server in one template: everything that differs between deployments is a CloudFormation parameter."""

    def __init__(self, scope: Construct, construct_id: str, **kwargs: Any) -> None:
        super().__init__(
            scope, construct_id, description="Serverless integers: one table, one function, one URL.", **kwargs
        )
        self._parameters()
        receiver = AlarmReceiver(self)
        server = TicketServer(
            self,
            "Default",  # an ID that the IDs of the resources leave out
            auth=self.auth.value_as_string,
            offset=self.offset.value_as_number,
            increment=self.increment.value_as_number,
            max_count=self.max_count.value_as_number,
            reserved_concurrency=self._reserved_concurrency(),
            log_retention_days=self.log_retention.value_as_number,
            # A literal: CloudFormation can import an existing table only if its name is a literal.
            table_name=self.stack_name,
            alarm_topic=receiver.topic,
        )
        receiver.make_conditional(server.alarms)
        _trim(server.function)
        CfnOutput(self, "Url", description="Send GET or POST to get a ticket.", value=server.url)
        CfnOutput(self, "TableName", description="The table of the counters.", value=server.table.table_name)

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

    def _reserved_concurrency(self) -> float:
        reserves = CfnCondition(
            self,
            "ReservesConcurrency",
            expression=Fn.condition_not(Fn.condition_equals(self.concurrency.value_as_string, "-1")),
        )
        return Token.as_number(Fn.condition_if(reserves.logical_id, self.concurrency.value_as_string, Aws.NO_VALUE))


def _trim(function: lambda_.Function) -> None:
    """Keep the template small and free of warnings."""
    policy = cast(iam.Policy, cast(iam.Role, function.role).node.find_child("DefaultPolicy"))
    resource = cast(lambda_.CfnFunction, function.node.default_child)
    # CDK also names the role, on which the function depends anyway.
    resource.add_override("DependsOn", [cast(iam.CfnPolicy, policy.node.default_child).logical_id])
    Validations.of(function).acknowledge(
        Acknowledgment(
            id="CloudFormation-Validate::F3034",
            reason="The default -1 means no reservation and is never set on the function.",
        )
    )
