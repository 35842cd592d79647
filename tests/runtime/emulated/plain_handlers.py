"""Handlers of the kind that AWS's own Python client runs."""

import json
import os
import time


def echo(event, context):
    """Answer with what was asked."""
    return {
        "statusCode": 201,
        "headers": {"content-type": "application/json"},
        "cookies": ["a=1", "b=2"],
        "body": json.dumps({"event": event, "process": os.getpid(), "left_ms": context.get_remaining_time_in_millis()}),
    }


def sleep(event, context):
    """Take as long as the query says."""
    time.sleep(float(event["queryStringParameters"]["s"]))
    return {"statusCode": 200, "body": "slept"}


def fail(event, context):
    raise ValueError("as asked")


def leave(event, context):
    os._exit(3)
