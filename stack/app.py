"""The CDK entry: ``cdk synth``, ``cdk diff`` and ``cdk deploy`` start here (see ``cdk.json``).

``TICKETCTL_STACK`` names the stack and its table. ``TICKETCTL_SYNTH_CHECKS=off`` leaves out CDK's own
validation of the template, which takes longer than the synthesis.
"""

import os

import aws_cdk as cdk

from tickets_stack import TicketsStack

app = cdk.App(
    analytics_reporting=False,
    tree_metadata=False,
    builtin_cloud_formation_validation=os.environ.get("TICKETCTL_SYNTH_CHECKS") != "off",
)
# The one synthesizer that needs no bootstrapped account: no role, no bucket, no parameter, no version rule.
TicketsStack(app, os.environ.get("TICKETCTL_STACK", "Tickets"), synthesizer=cdk.LegacyStackSynthesizer())
app.synth()
