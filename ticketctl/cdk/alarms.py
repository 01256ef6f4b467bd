"""The alarms of a ticket server: five alarms and a metric filter."""

import re
from collections.abc import Mapping
from typing import Any

from aws_cdk import Aws, CfnResource, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from constructs import Construct

RUNNING_OUT = '{ $.code = "counter_low" || $.code = "counter_exhausted" }'
"""The handler's log lines about counters with few tickets left."""


class Alarms:
    """Alarms on a function, its URL, a table and the log of the function, all by name.

    ``topic`` is the ARN of the topic that gets them; ``resources`` are all that were made.
    """

    def __init__(self, scope: Construct, *, topic: str, function: str, table: str, log_group: str) -> None:
        self._scope = scope
        self._topic = topic
        self.resources: list[CfnResource] = []
        self._on_function(function)
        self._on_table(table)
        self._on_counters(log_group)

    def _on_function(self, function: str) -> None:
        of_function: dict[str, Any] = {"namespace": "AWS/Lambda", "dimensions": {"FunctionName": function}}
        self._alarm(
            "UrlFails",
            "The URL answered with a 5xx: tickets may be lost, or nothing was minted.",
            metric="Url5xxCount",
            **of_function,
        )
        self._alarm(
            "UrlIsSlow",
            "For 15 minutes, 1% of the URL's answers took over a second.",
            metric="UrlRequestLatency",
            over={"extended_statistic": "p99", "threshold": 1000, "evaluation_periods": 3},
            **of_function,
        )
        self._alarm(
            "FunctionIsThrottled",
            "Lambda refused calls: the account's or the function's concurrency is used up.",
            metric="Throttles",
            **of_function,
        )

    def _on_table(self, table: str) -> None:
        self._alarm(
            "TableIsThrottled",
            "DynamoDB refused writes: a counter takes at most 1000 writes per second.",
            namespace="AWS/DynamoDB",
            metric="WriteThrottleEvents",
            dimensions={"TableName": table},
        )

    def _on_counters(self, log_group: str) -> None:
        namespace = metric_namespace(self._scope)
        count = logs.CfnMetricFilter.MetricTransformationProperty(
            metric_namespace=namespace, metric_name="CountersRunningOut", metric_value="1"
        )
        metric_filter = logs.CfnMetricFilter(
            self._scope,
            "RunningOutFilter",
            log_group_name=log_group,
            filter_pattern=RUNNING_OUT,
            metric_transformations=[count],
        )
        self.resources.append(metric_filter)
        alarm = self._alarm(
            "CounterRunsOut",
            "A counter has less than a tenth or a hundredth of its ceiling left, or nothing. Run: ticketctl status",
            namespace=namespace,
            metric="CountersRunningOut",
        )
        alarm.add_resource_dependency(
            metric_filter
        )  # without its metric, as in a table-only stack, it would never ring

    def _alarm(
        self,
        name: str,
        description: str,
        *,
        namespace: str,
        metric: str,
        dimensions: Mapping[str, str] | None = None,
        over: Mapping[str, Any] | None = None,
    ) -> cloudwatch.CfnAlarm:
        """An alarm that rings if the sum over 5 minutes is 1 or more, unless ``over`` says something else."""
        alarm = cloudwatch.CfnAlarm(
            self._scope,
            name,
            alarm_description=description,
            namespace=namespace,
            metric_name=metric,
            dimensions=[{"name": key, "value": value} for key, value in dimensions.items()] if dimensions else None,
            period=300,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[self._topic],
            **(over or {"statistic": "Sum", "threshold": 1, "evaluation_periods": 1}),
        )
        self.resources.append(alarm)
        return alarm


def metric_namespace(scope: Construct) -> str:
    """The namespace of the metrics of one ticket server: two in a stack have two namespaces.

    A character that a namespace cannot have is written as its code, for example ``#20#`` for a space.
    """
    stack = Stack.of(scope)
    path = [each.node.id for each in scope.node.scopes[len(stack.node.scopes) :] if each.node.id != "Default"]
    names = [re.sub(r"[^0-9A-Za-z_.-]", lambda found: f"#{ord(found[0]):x}#", name) for name in path]
    return "/".join(["ticketctl", Aws.STACK_NAME, *names])
