"""The CDK app: ``cdk synth``, ``cdk diff`` and ``cdk deploy`` run this file (see ``cdk.json``).

``TICKETCTL_STACK`` is the name of the stack and its table. ``TICKETCTL_SYNTH_CHECKS=off`` skips CDK's own validation of
the template, which takes longer than the synthesis.
"""

import os

import aws_cdk as cdk

from tickets_stack import TicketsStack

app = cdk.App(
    analytics_reporting=False,
    tree_metadata=False,
    builtin_cloud_formation_validation=os.environ.get("TICKETCTL_SYNTH_CHECKS") != "off",
)
# Only this synthesizer works in an account without CDK bootstrap: no role, bucket, parameter or version rule.
TicketsStack(app, os.environ.get("TICKETCTL_STACK", "Tickets"), synthesizer=cdk.LegacyStackSynthesizer())
app.synth()
