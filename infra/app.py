"""Huginn's operations on AWS: who looks after the model while nobody looks."""

from typing import Any

from chalice.app import Chalice

app = Chalice(app_name="huginn")

# What is only known in the stack (bucket, queue, how often) is laid over these by tiers.yaml.
NEW_CHECKPOINT = {
    "source": ["aws.s3"],
    "detail-type": ["Object Created"],
    "detail": {"bucket": {"name": ["set by tiers.yaml"]}, "object": {"key": [{"suffix": "/config.json"}]}},
}


@app.schedule("rate(15 minutes)")
def canary(event: Any) -> None:
    """Ask the model for a text, and whether it came in pieces."""
    del event


@app.on_cw_event(NEW_CHECKPOINT)
def on_checkpoint(event: Any) -> None:
    """Try the checkpoint that has come, and have it served if it is good."""
    del event


@app.on_sqs_message(queue_arn="arn:aws:sqs:us-east-1:123456789012:batch", batch_size=1, maximum_concurrency=2)
def generate_batch(event: Any) -> None:
    """Write the texts that a file asks for."""
    del event
