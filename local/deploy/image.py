"""The llm function's image: found in ECR, or built and pushed there."""

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.deploy.account import Account
from local.errors import CommandError

REPOSITORY = "huginn-llm"
DOCKERFILE = "functions/llm/Dockerfile"
# Lambda's limit for an image, unpacked; what ECR reports is compressed, and therefore less.
MAX_IMAGE_BYTES = 10 * 10**9

ADDRESS = re.compile(
    r"(?P<registry>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?"
    r"/(?P<repository>[a-z0-9][a-z0-9._/-]*)(?::(?P<tag>[\w.-]+)|@(?P<digest>sha256:[0-9a-f]{64}))"
)
SINGLE_IMAGES = {
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
}


@dataclass(frozen=True)
class Image:
    """An image that Lambda can run: its address by digest, which no later push changes."""

    uri: str
    size_bytes: int


def find_image(account: Account, uri: str) -> Image:
    """Give the image of an address.

    Raises:
        CommandError: it is no address of ECR in the stack's region, not there, or of a kind that Lambda refuses.
    """
    from botocore.exceptions import ClientError

    parts = ADDRESS.fullmatch(uri)
    if parts is None:
        raise CommandError(
            f"--image {uri} is no image in ECR by tag or digest",
            f"expected: {account.id}.dkr.ecr.{account.region}.amazonaws.com/{REPOSITORY}:TAG; Lambda runs no others",
            2,
        )
    if parts["region"] != account.region:
        raise CommandError(
            f"the image is in {parts['region']}, the stack in {account.region}",
            f"push it to {account.region}: Lambda reads images of its own region only",
            2,
        )
    wanted = {"imageTag": parts["tag"]} if parts["tag"] else {"imageDigest": parts["digest"]}
    try:
        found = account.client("ecr").describe_images(
            registryId=parts["registry"], repositoryName=parts["repository"], imageIds=[wanted]
        )["imageDetails"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"ImageNotFoundException", "RepositoryNotFoundException"}:
            raise
        found = []
    if not found:
        raise CommandError(
            f"there is no image {uri}", "push it, or leave out --image: then it is built here, with Docker", 3
        )
    details: Mapping[str, Any] = found[0]
    kind, size_bytes = details.get("imageManifestMediaType"), int(details.get("imageSizeInBytes") or 0)
    if kind is not None and kind not in SINGLE_IMAGES:
        raise CommandError(
            f"{uri} is a list of images ({kind}), which Lambda refuses",
            "build for one platform, without attestations: docker build --platform linux/amd64 --provenance=false",
            3,
        )
    if size_bytes > MAX_IMAGE_BYTES:
        raise CommandError(f"{uri} is {size_bytes / 1e9:.1f} GB", "Lambda takes at most 10 GB, unpacked", 3)
    return Image(f"{uri.rpartition('@')[0] or uri.rpartition(':')[0]}@{details['imageDigest']}", size_bytes)


def to_be_built(account: Account) -> str:
    """Give an address that stands for the image that `build_image` would push, to see what that would change."""
    return f"{account.id}.dkr.ecr.{account.region}.amazonaws.com/{REPOSITORY}:to-be-built"


def refuse_missing_docker(deployed: str | None) -> None:
    """Raise CommandError if no image can be built here: before minutes of other work, not after them."""
    docker = shutil.which("docker")
    if docker is not None:
        asked = subprocess.run([docker, "version"], capture_output=True, check=False)  # noqa: S603 - the user's own
        if asked.returncode == 0:
            return
    remedy = "start Docker, or name an image that is in ECR: --image URI"
    if deployed is not None:
        remedy += f"\n  the deployed one: --image {deployed}"
    raise CommandError("the model's image is built with Docker, which is not here or not running", remedy, 4)


def build_image(account: Account, source: Path, say: Callable[[str], None], also: str = "") -> Image:
    """Build the llm function's image from the sources, push it, and give it.

    ``also`` names what of requirements/ is in it besides the function's own.

    Raises:
        CommandError: building or pushing failed; what Docker said stands above, on standard error.
    """
    repository = _ensure_repository(account)
    say("huginn: building the image")
    added = ["--build-arg", f"ALSO={also}"] if also else []
    _docker(
        *("build", "--platform", "linux/amd64", "-f", DOCKERFILE, *added, "-t", f"{repository}:building", "."),
        source=source,
    )
    # The tag is the content's: an image that is there already is pushed in a moment.
    identity = _docker("image", "inspect", "--format", "{{.Id}}", f"{repository}:building", source=source)
    uri = f"{repository}:{identity.strip().removeprefix('sha256:')[:16]}"
    _docker("tag", f"{repository}:building", uri, source=source)
    say("huginn: pushing the image")
    _log_in(account, repository, source)
    _docker("push", uri, source=source)
    return find_image(account, uri)


def _ensure_repository(account: Account) -> str:
    from botocore.exceptions import ClientError

    ecr = account.client("ecr")
    try:
        return str(ecr.describe_repositories(repositoryNames=[REPOSITORY])["repositories"][0]["repositoryUri"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "RepositoryNotFoundException":
            raise
    made = ecr.create_repository(repositoryName=REPOSITORY, imageScanningConfiguration={"scanOnPush": True})
    return str(made["repository"]["repositoryUri"])


def _log_in(account: Account, repository: str, source: Path) -> None:
    granted = account.client("ecr").get_authorization_token()["authorizationData"][0]["authorizationToken"]
    user, _, password = base64.b64decode(granted).decode().partition(":")
    registry = repository.partition("/")[0]
    # By standard input: what stands on a command line can be read by everybody on the machine.
    _docker("login", "--username", user, "--password-stdin", registry, source=source, text=password)


def _docker(*arguments: str, source: Path, text: str | None = None) -> str:
    """Give what docker prints; what it says on the way goes to standard error."""
    # BuildKit's attestations make a list of images, which Lambda refuses; a variable, for older Dockers lack the flag.
    environ = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    done = subprocess.run(  # noqa: S603 - fixed words and addresses that AWS gave
        [shutil.which("docker") or "docker", *arguments],
        cwd=source,
        env=environ,
        input=text,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CommandError(
            f"`docker {arguments[0]}` failed with {done.returncode}; what it said stands above",
            "put it right, or name an image that is in ECR: --image URI",
            1,
        )
    return done.stdout
