"""Who gets the alarms of a deployment: an email address, a topic, or nobody."""

from collections.abc import Iterable

from aws_cdk import Aws, CfnCondition, CfnParameter, CfnResource, Fn, Stack
from aws_cdk import aws_sns as sns

NOBODY = "none"


class AlarmReceiver:
    """The parameters ``AlarmEmail`` and ``AlarmTopic``, and the topic that mails to the address.

    ``topic`` gets the alarms. Alarms exist only if one of the parameters is set.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        email = self._parameter("AlarmEmail", "The email address that gets alarms, through a new topic.")
        topic = self._parameter("AlarmTopic", "The ARN of an SNS topic that gets alarms.")
        no_email, no_topic = (Fn.condition_equals(p.value_as_string, NOBODY) for p in (email, topic))
        mails = CfnCondition(stack, "MailsAlarms", expression=Fn.condition_not(no_email))
        self._exist = CfnCondition(
            stack, "HasAlarms", expression=Fn.condition_not(Fn.condition_and(no_email, no_topic))
        )
        new_topic = self._new_topic(email.value_as_string, mails)
        arn = Fn.condition_if(mails.logical_id, new_topic.ref, topic.value_as_string).to_string()
        self.topic = sns.Topic.from_topic_arn(stack, "AlarmReceiver", arn)

    def make_conditional(self, alarms: Iterable[CfnResource]) -> None:
        """Let the alarms exist only if somebody gets them."""
        for alarm in alarms:
            alarm.cfn_options.condition = self._exist

    def _parameter(self, name: str, description: str) -> CfnParameter:
        return CfnParameter(self._stack, name, default=NOBODY, description=description)

    def _new_topic(self, email: str, mails: CfnCondition) -> sns.CfnTopic:
        topic = sns.CfnTopic(self._stack, "AlarmMails")
        subscription = sns.CfnSubscription(
            self._stack, "AlarmSubscription", topic_arn=topic.ref, protocol="email", endpoint=email
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
        for resource in (topic, subscription, policy):
            resource.cfn_options.condition = mails
        return topic
