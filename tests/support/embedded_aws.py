"""Reads and changes stacks and tables in the embedded AWS with AWS's own operations."""

from collections.abc import Callable
from typing import Any

from ticketctl.aws.account import Aws
from ticketctl.deployments.regional_stack import RegionalStack

REGION = "us-east-1"
Connect = Callable[..., RegionalStack]


def physical_id(aws: Aws, stack: str, resource_type: str) -> str:
    """Return the name of the only resource of a type in a stack."""
    resources = aws.client("cloudformation").describe_stack_resources(StackName=stack)["StackResources"]
    (found,) = [r["PhysicalResourceId"] for r in resources if r["ResourceType"] == resource_type]
    return str(found)


def put(aws: Aws, table: str, partition: str, **numbers: int | str) -> None:
    """Write an item by hand, as a user might do."""
    item = {name: {"N": str(value)} for name, value in numbers.items()}
    aws.client("dynamodb").put_item(TableName=table, Item={"partition": {"S": partition}, **item})


def table_resource(name: str) -> dict[str, Any]:
    """Return the resource of a table like the article's, with on-demand capacity."""
    return {
        "Type": "AWS::DynamoDB::Table",
        "Properties": {
            "TableName": name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [{"AttributeName": "partition", "AttributeType": "S"}],
            "KeySchema": [{"AttributeName": "partition", "KeyType": "HASH"}],
        },
    }


def route_dynamodb(aws: Aws, stack: str, port: int) -> None:
    """Connect a stack's function to DynamoDB through another port."""
    function, lambda_ = physical_id(aws, stack, "AWS::Lambda::Function"), aws.client("lambda")
    variables = lambda_.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
    variables["AWS_ENDPOINT_URL_DYNAMODB"] = f"http://127.0.0.1:{port}"
    lambda_.update_function_configuration(FunctionName=function, Environment={"Variables": variables})
