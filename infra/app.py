"""Huginn's operations on AWS: who looks after the model while nobody looks."""

import json
import logging
import os
import time
from typing import Any

import boto3
from botocore.config import Config
from chalice.app import Chalice, CloudWatchEvent, SQSEvent

from infra.batch import CONSUMERS, BatchWriter, Job, width_for
from infra.canary import metric_line, observe
from infra.llm_function import LlmFunction
from infra.new_checkpoint import Deployment

app = Chalice(app_name="huginn")
app.log.setLevel(logging.INFO)

# What is only known in the stack (bucket, queue, how often) is laid over these by tiers.yaml.
NEW_CHECKPOINT = {
    "source": ["aws.s3"],
    "detail-type": ["Object Created"],
    "detail": {"bucket": {"name": ["set by tiers.yaml"]}, "object": {"key": [{"suffix": "/config.json"}]}},
}

# A cold start of the largest image is in it. Without a second attempt of the client's own: each is a text paid for.
PATIENCE = Config(read_timeout=320, retries={"total_max_attempts": 1})

# The canary has two minutes in all, and has to write down what it saw.
CANARY_PATIENCE = Config(connect_timeout=5, read_timeout=100, retries={"total_max_attempts": 1})

# What only asks or orders is answered at once, or asked again.
PROMPT = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 3})

# Between two questions whether AWS has reconfigured the function, or made a version's snapshot.
PAUSE_S = 5.0


@app.schedule("rate(15 minutes)")
def canary(event: Any) -> dict[str, Any]:
    """Ask the model for a text, and write down whether it came in pieces; being asked keeps the model warm."""
    del event
    name = os.environ["LLM_FUNCTION"]
    observation = observe(LlmFunction(boto3.client("lambda", config=CANARY_PATIENCE), name, os.environ["LLM_ALIAS"]))
    # CloudWatch takes a metric from a line that is JSON and nothing else: no logger's prefix.
    print(metric_line(observation, name, int(time.time() * 1000)), flush=True)
    return {"streamed": observation.streamed, "problem": observation.problem}


@app.on_cw_event(NEW_CHECKPOINT)
def on_checkpoint(event: CloudWatchEvent) -> dict[str, Any]:
    """Try the checkpoint that has come, and have it served if it is good; beside it stands what became of it."""
    bucket, key = event.detail["bucket"]["name"], event.detail["object"]["key"]
    prefix = key.rpartition("/")[0]
    s3 = boto3.client("s3")
    context: Any = event.context
    deployment = Deployment(
        boto3.client("lambda", config=PROMPT),
        _invoker,
        os.environ["LLM_FUNCTION"],
        os.environ["LLM_ALIAS"],
        lambda: context.get_remaining_time_in_millis() / 1000,
        PAUSE_S,
    )
    verdict = deployment.try_checkpoint(s3, bucket, prefix)
    log = app.log.info if verdict.served else app.log.error
    log("%s is %s: %s", verdict.checkpoint, "served" if verdict.served else "refused", verdict.reason)
    body = json.dumps(verdict.as_dict(), indent=2).encode() + b"\n"
    # One object, so that no former verdict stands beside this one.
    s3.put_object(Bucket=bucket, Key=f"{prefix}/verdict.json", Body=body, ContentType="application/json")
    return verdict.as_dict()


def _invoker(seconds: float) -> Any:
    return boto3.client("lambda", config=PATIENCE.merge(Config(connect_timeout=3, read_timeout=min(320, seconds))))


@app.on_sqs_message(queue_arn="arn:aws:sqs:us-east-1:123456789012:batch", batch_size=1, maximum_concurrency=CONSUMERS)
def generate_batch(event: SQSEvent) -> None:
    """Write the texts that a file asks for; what there is no time for goes on in another invocation."""
    function = LlmFunction(boto3.client("lambda", config=PATIENCE), os.environ["LLM_FUNCTION"], os.environ["LLM_ALIAS"])
    width = width_for(int(os.environ["LLM_RESERVED_CONCURRENCY"]))
    writer = BatchWriter(boto3.client("s3"), os.environ["BATCH_BUCKET"], function, width)
    context: Any = event.context
    for record in event:
        job = Job.from_message(record.body)
        if writer.run(job, lambda: context.get_remaining_time_in_millis() / 1000):
            app.log.info("%s is written.", job.output)
        else:
            # A message that is left would count as having failed once more, until it is given up.
            boto3.client("sqs").send_message(QueueUrl=os.environ["BATCH_QUEUE_URL"], MessageBody=job.to_message())
            app.log.info("%s is not finished and has been sent on.", job.output)
