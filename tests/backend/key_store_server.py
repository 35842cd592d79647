"""DynamoDB, as moto serves it, on the loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from unittest import mock

import boto3
from moto.dynamodb.models import DynamoDBBackend
from moto.server import ThreadedMotoServer

REGION = "us-east-1"
TABLE = "huginn-keys"
KEY_SCHEMA = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]


@contextmanager
def dynamodb_server() -> Iterator[dict[str, str]]:
    """Serve it with a table like the template's; gives the variables with which it is reached."""
    # DynamoDB does one thing after another to an item; moto's threads would look all at once, and then write.
    one_at_a_time, update = threading.Lock(), DynamoDBBackend.update_item

    @wraps(update)
    def update_alone(*args, **arguments):
        with one_at_a_time:
            return update(*args, **arguments)

    with mock.patch.object(DynamoDBBackend, "update_item", update_alone):
        yield from _served()


def _served() -> Iterator[dict[str, str]]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environ = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    client = client_of(environ)
    # moto keeps what it has for as long as this process lasts, whichever server it was made through.
    if TABLE in client.list_tables()["TableNames"]:
        client.delete_table(TableName=TABLE)
    try:
        client.create_table(
            TableName=TABLE,
            KeySchema=KEY_SCHEMA,
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        yield environ
    finally:
        server.stop()


def client_of(environ: dict[str, str]):
    """boto3's client of that server."""
    return boto3.client(
        "dynamodb",
        region_name=environ["AWS_REGION"],
        endpoint_url=environ["AWS_ENDPOINT_URL"],
        aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
    )
