"""The alarms of a deployment that asks for them: a topic with its subscription, five alarms and a metric filter."""

from collections.abc import Mapping
from typing import Any

from aws_cdk import Aws, CfnCondition, CfnParameter, CfnResource, Fn, Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns

RUNNING_OUT = '{ $.code = "counter_low" || $.code = "counter_exhausted" }'
"""The handler's log lines about counters with few tickets left."""

NOBODY = "none"


class Alarms:
    """Alarms on a function, its URL, a table and the log of the function, all by name.

    Everything here exists only if the parameter ``AlarmEmail`` or ``AlarmTopic`` is set.
    """

    def __init__(self, stack: Stack, *, function: str, table: str, log_group: str) -> None:
        self._stack = stack
        self._email = self._parameter("AlarmEmail", "The email address that gets alarms, through a new topic.")
        self._topic = self._parameter("AlarmTopic", "The ARN of an SNS topic that gets alarms.")
        no_email, no_topic = (Fn.condition_equals(p.value_as_string, NOBODY) for p in (self._email, self._topic))
        self._mails = CfnCondition(stack, "MailsAlarms", expression=Fn.condition_not(no_email))
        self._exist = CfnCondition(
            stack, "HasAlarms", expression=Fn.condition_not(Fn.condition_and(no_email, no_topic))
        )
        self._action = Fn.condition_if("MailsAlarms", self._new_topic().ref, self._topic.value_as_string)
        self._on_function(function)
        self._on_table(table)
        self._on_counters(log_group)

    def _parameter(self, name: str, description: str) -> CfnParameter:
        return CfnParameter(self._stack, name, default=NOBODY, description=description)

    def _new_topic(self) -> sns.CfnTopic:
        topic = sns.CfnTopic(self._stack, "AlarmMails")
        subscription = sns.CfnSubscription(
            self._stack,
            "AlarmSubscription",
            topic_arn=topic.ref,
            protocol="email",
            endpoint=self._email.value_as_string,
        )
        statements = [
            {  # a policy replaces the default one, which lets the account's alarms publish
                "Effect": "Allow",
                "Principal": {"Service": "cloudwatch.amazonaws.com"},
                "Condition": {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            },
            {"Effect": "Deny", "Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        ]
        policy = sns.CfnTopicPolicy(
            self._stack,
            "AlarmTopicPolicy",
            topics=[topic.ref],
            policy_document={
                "Version": "2012-10-17",
                "Statement": [{**each, "Action": "sns:Publish", "Resource": topic.ref} for each in statements],
            },
        )
        self._only_if(self._mails, topic, subscription, policy)
        return topic

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
        namespace = f"ticketctl/{Aws.STACK_NAME}"
        count = logs.CfnMetricFilter.MetricTransformationProperty(
            metric_namespace=namespace, metric_name="CountersRunningOut", metric_value="1"
        )
        metric_filter = logs.CfnMetricFilter(
            self._stack,
            "RunningOutFilter",
            log_group_name=log_group,
            filter_pattern=RUNNING_OUT,
            metric_transformations=[count],
        )
        self._only_if(self._exist, metric_filter)
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
            self._stack,
            name,
            alarm_description=description,
            namespace=namespace,
            metric_name=metric,
            dimensions=[{"name": key, "value": value} for key, value in dimensions.items()] if dimensions else None,
            period=300,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[self._action.to_string()],
            **(over or {"statistic": "Sum", "threshold": 1, "evaluation_periods": 1}),
        )
        self._only_if(self._exist, alarm)
        return alarm

    def _only_if(self, condition: CfnCondition, *resources: CfnResource) -> None:
        for resource in resources:
            resource.cfn_options.condition = condition
