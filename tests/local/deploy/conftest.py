"""An AWS on this machine: moto's server, its change sets made whole, and credentials that are worth nothing."""

import hashlib
import json
import logging
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.local.deploy import change_sets

ACCOUNT, REGION = "123456789012", "eu-central-1"
REPOSITORY = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/huginn-llm"
SINGLE_IMAGE = "application/vnd.docker.distribution.manifest.v2+json"


@pytest.fixture(autouse=True)
def no_aws_of_the_user(monkeypatch, tmp_path):
    """Neither files nor variables nor the machine's metadata give credentials, and no service has an address."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """Where moto answers. By name, for of an address it takes the first number for a bucket in a TemplateURL."""
    change_sets.install()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield f"http://localhost:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def aws(moto_url, monkeypatch, no_aws_of_the_user) -> Iterator:
    """An empty AWS, for which credentials and region are set: gives the maker of its clients."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_url)
    import urllib.request

    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        urllib.request.Request(f"{moto_url}/moto-api/reset", method="POST")
    ).close()
    made = []

    def client(service: str):
        made.append(boto3.client(service, region_name=REGION, endpoint_url=moto_url))
        return made[-1]

    yield client
    for each in made:
        each.close()


@pytest.fixture
def image(aws) -> str:
    """An image that is in ECR."""
    return push(aws, "mine")


def push(aws, tag: str, media_type: str = SINGLE_IMAGE) -> str:
    """Put an image there, and give its address by tag."""
    ecr = aws("ecr")
    if not ecr.describe_repositories()["repositories"]:
        ecr.create_repository(repositoryName="huginn-llm")
    # moto's digest of an image is that of its layers' digests.
    content = f"sha256:{hashlib.sha256(tag.encode()).hexdigest()}"
    layer = {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": 7, "digest": content}
    config = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": 1, "digest": f"sha256:{0:064}"}
    manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer], "tag": tag}
    ecr.put_image(
        repositoryName="huginn-llm",
        imageManifest=json.dumps(manifest),
        imageManifestMediaType=media_type,
        imageTag=tag,
    )
    return f"{REPOSITORY}:{tag}"
