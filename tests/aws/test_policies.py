"""The policies in ``docs/policies``: they are valid, and allow every AWS call that the code makes."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore import xform_name
from botocore.session import Session

from ticketctl.aws import template

ROOT = Path(__file__).parents[2]
POLICIES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "docs/policies").glob("*.json")}
SERVICES = ["account", "cloudformation", "cloudwatch", "dynamodb", "iam", "lambda", "logs", "sns", "sts"]
NOT_OPERATIONS = {
    "cloudformation:TagResource",
    "cloudformation:UntagResource",
    "iam:PassRole",
    "lambda:InvokeFunctionUrl",
    "lambda:InvokeFunction",
}
"""Actions that are not operations, or whose names differ from the operation's."""
READS_AND_WRITES = {
    "AWS::DynamoDB::Table": "dynamodb:CreateTable dynamodb:DescribeContinuousBackups dynamodb:DescribeTimeToLive "
    "dynamodb:DescribeContributorInsights dynamodb:DescribeKinesisStreamingDestination dynamodb:GetResourcePolicy",
    "AWS::IAM::Policy": "iam:PutRolePolicy iam:GetRolePolicy iam:DeleteRolePolicy",
    "AWS::IAM::Role": "iam:CreateRole iam:GetRole iam:DeleteRole iam:PassRole iam:ListRolePolicies "
    "iam:ListAttachedRolePolicies iam:TagRole",
    "AWS::Lambda::Function": "lambda:CreateFunction lambda:TagResource lambda:ListTags "
    "lambda:GetFunctionRecursionConfig "
    "lambda:GetFunctionCodeSigningConfig lambda:GetRuntimeManagementConfig lambda:PutFunctionConcurrency",
    "AWS::Lambda::Permission": "lambda:AddPermission lambda:RemovePermission lambda:GetPolicy",
    "AWS::Lambda::Url": "lambda:CreateFunctionUrlConfig lambda:GetFunctionUrlConfig lambda:DeleteFunctionUrlConfig",
    "AWS::Logs::LogGroup": "logs:CreateLogGroup logs:TagResource logs:ListTagsForResource logs:DescribeIndexPolicies "
    "logs:GetDataProtectionPolicy logs:DescribeResourcePolicies logs:PutRetentionPolicy",
    "AWS::Logs::MetricFilter": "logs:PutMetricFilter logs:DescribeMetricFilters logs:DeleteMetricFilter",
    "AWS::SNS::Topic": "sns:CreateTopic sns:GetTopicAttributes sns:DeleteTopic sns:TagResource",
    "AWS::SNS::TopicPolicy": "sns:SetTopicAttributes",
    "AWS::SNS::Subscription": "sns:Subscribe sns:GetSubscriptionAttributes sns:Unsubscribe",
    "AWS::CloudWatch::Alarm": "cloudwatch:PutMetricAlarm cloudwatch:DescribeAlarms cloudwatch:DeleteAlarms",
}
"""The actions that CloudFormation performs for each type of resource."""


def actions(name: str) -> set[str]:
    return {action for statement in POLICIES[name]["Statement"] for action in statement["Action"]}


@cache
def operations() -> dict[str, set[str]]:
    """Return, by method or paginator name of a botocore client, the actions that it may need."""
    found = {"describe_regions": {"ec2:DescribeRegions"}}  # the model of EC2 is slow to load
    for service in SERVICES:
        for operation in Session().get_service_model(service).operation_names:
            found.setdefault(xform_name(operation), set()).add(f"{service}:{operation}")
    waiters = Session().get_waiter_model("dynamodb")
    for name in waiters.waiter_names:
        found[xform_name(name)] = {f"dynamodb:{waiters.get_waiter(name).operation}"}
    return found


def calls_in(source: str) -> Iterator[str]:
    """Yield the names of the methods, paginators and waiters of botocore clients in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and re.search(r"client(\(.*\))?$", ast.unparse(node.value)):
            yield node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".get_paginator", ".get_waiter")):
            yield ast.literal_eval(node.args[0])


def made_calls() -> dict[str, set[str]]:
    """Return, by method name, the possible actions of every AWS call in the code."""
    names = {name for path in (ROOT / "ticketctl").rglob("*.py") for name in calls_in(path.read_text(encoding="utf-8"))}
    return {name: operations()[name] for name in names if name in operations()}


def test_calls_are_found() -> None:
    """The search finds every form of call in the code: methods, paginators, waiters, and stored methods."""
    some = {"create_change_set", "describe_stack_events", "scan", "table_exists", "update_item", "list_regions"}
    assert some <= made_calls().keys()


def test_every_call_is_allowed() -> None:
    """``deploy`` or ``look`` allows each AWS call in the code."""
    allowed = actions("deploy") | actions("look")
    assert {name for name, possible in made_calls().items() if not possible & allowed} == set()


def test_cloudformation_may_manage_each_resource() -> None:
    """``deploy`` allows what CloudFormation calls for each type of resource in the template."""
    for resource in template.load("Tickets")["Resources"].values():
        assert set(READS_AND_WRITES[resource["Type"]].split()) <= actions("deploy"), resource["Type"]


@pytest.mark.parametrize("name", ["deploy", "look", "mint-table", "mint-url"])
def test_a_policy_is_valid(name: str) -> None:
    """Each action exists, each named resource belongs to this stack, and the policy is short enough for IAM."""
    policy: dict[str, Any] = POLICIES[name]
    known = set.union(NOT_OPERATIONS, *operations().values())
    assert actions(name) <= known
    assert len("".join(json.dumps(policy).split())) <= 6144
    names_stack = re.compile(r"^arn:aws:\w+:(REGION|\*)?:ACCOUNT:.*(STACK|changeSet/ticketctl-)")
    for statement in policy["Statement"]:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert all(names_stack.search(resource) or resource == "*" for resource in resources)
    assert POLICIES.keys() == {"deploy", "look", "mint-table", "mint-url"}


@pytest.mark.parametrize("name", ["look", "mint-table", "mint-url"])
def test_only_deploy_changes_more_than_counters(name: str) -> None:
    """The other policies allow no change except of counters, with the write that mints."""
    writes = {"lambda:InvokeFunctionUrl", "lambda:InvokeFunction", "dynamodb:UpdateItem"}
    reads = re.compile(r"\w+:(Describe|Get|List|Scan|Filter)")
    assert [action for action in actions(name) - writes if not reads.match(action)] == []


def test_each_policy_is_explained() -> None:
    """The page links each policy and mentions only existing statements."""
    page = (ROOT / "docs/permissions.md").read_text(encoding="utf-8")
    assert set(re.findall(r"policies/([a-z-]+)\.json\)", page)) == POLICIES.keys()
    sids = {statement["Sid"] for policy in POLICIES.values() for statement in policy["Statement"]}
    assert set(re.findall(r"`((?:Change|Find)The\w+)`", page)) <= sids
