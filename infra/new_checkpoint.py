"""A checkpoint that has come: tried where nobody is served, then served by all, or refused and nothing changed."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from botocore.exceptions import WaiterError

from infra.checkpoint_files import CheckpointFacts, CheckpointRefused, check_files
from infra.llm_function import PASSING_CODES, LlmError, LlmFunction

CKPT_PATH = "CKPT_PATH"
# Read by nobody but us: with it, other weights under the same address are another configuration, and so a version.
DIGEST = "CHECKPOINT_DIGEST"

# What the descriptions of our versions begin with.
DESCRIPTION = "on_checkpoint: "

# A token's id, for who knows what characters a vocabulary has.
SMOKE_TEST = {"prompt": [0], "max_tokens": 16, "temperature": 0, "seed": 0, "logprobs": 1, "ignore_eos": True}


@dataclass(frozen=True)
class Verdict:
    """What became of a checkpoint.

    Args:
        checkpoint: its address.
        served: whether it is what the alias now serves.
        reason: why not, or what it is.
        version: the published version that serves it; empty if none does.
        former_version: the one that the alias pointed to before, for going back; empty if nothing changed.
    """

    checkpoint: str
    served: bool
    reason: str
    version: str = ""
    former_version: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The same for a file beside the checkpoint."""
        return asdict(self)


class SmokeTestError(Exception):
    """The function answers with the checkpoint, but not as a model does."""


@dataclass(frozen=True)
class Deployment:
    """The llm function as it can be reconfigured.

    Args:
        client: boto3's for Lambda.
        invoker: the same without repetitions, and with the patience for a cold start.
        function: its name.
        alias: which alias is served.
        wait: the delay and the number of the questions whether AWS is done.
    """

    client: Any
    invoker: Any
    function: str
    alias: str
    wait: Mapping[str, int]

    def try_checkpoint(self, s3_client: Any, bucket: str, prefix: str) -> Verdict:
        """Serve the checkpoint if its files fit each other and a model with it writes text; else change nothing.

        Raises:
            botocore's errors: AWS did not do as it was asked, which says nothing of the checkpoint: try again.
        """
        address = f"s3://{bucket}/{prefix}"
        try:
            facts = check_files(s3_client, bucket, prefix)
        except CheckpointRefused as refused:
            return Verdict(address, False, str(refused))
        alias = self.client.get_alias(FunctionName=self.function, Name=self.alias)
        former = alias["FunctionVersion"]
        served = self._variables(former)
        if (served.get(CKPT_PATH), served.get(DIGEST)) == (address, facts.digest):
            return Verdict(address, True, "It was served before.", former)
        latest = self.client.get_function_configuration(FunctionName=self.function)
        variables = latest.get("Environment", {}).get("Variables", {})
        # Who else has changed the function since it was read is not overwritten: AWS refuses, and we come again.
        self.client.update_function_configuration(
            FunctionName=self.function,
            Environment={"Variables": {**variables, CKPT_PATH: address, DIGEST: facts.digest}},
            RevisionId=latest["RevisionId"],
        )
        try:
            self._wait_until_configured()
            version = self._publish(facts, address)
            self.client.update_alias(
                FunctionName=self.function,
                Name=self.alias,
                FunctionVersion=version,
                RevisionId=alias["RevisionId"],
            )
        except (LlmError, SmokeTestError, WaiterError) as failure:
            self._restore(variables)
            if isinstance(failure, LlmError) and failure.code in PASSING_CODES:
                raise  # which is no fault of the checkpoint's
            return Verdict(address, False, f"The smoke generation failed: {failure}")
        except BaseException:
            self._restore(variables)
            raise
        finally:
            self._delete_unserved()
        return Verdict(address, True, _described(facts), version, former)

    def _publish(self, facts: CheckpointFacts, address: str) -> str:
        """The version that serves the checkpoint, having written text with it before and after it was frozen."""
        revision = self.client.get_function_configuration(FunctionName=self.function)["RevisionId"]
        self._smoke_test("$LATEST", facts)
        published = self.client.publish_version(
            FunctionName=self.function, Description=f"{DESCRIPTION}{address}"[:256], RevisionId=revision
        )
        version: str = published["Version"]
        # With SnapStart this is when the snapshot is made: minutes.
        self.client.get_waiter("published_version_active").wait(
            FunctionName=self.function, Qualifier=version, WaiterConfig=dict(self.wait)
        )
        self._smoke_test(version, facts)
        return version

    def _delete_unserved(self) -> None:
        """Delete the versions published here, but for the served one and the newest before it: snapshots cost."""
        served = int(self.client.get_alias(FunctionName=self.function, Name=self.alias)["FunctionVersion"])
        pages = self.client.get_paginator("list_versions_by_function").paginate(FunctionName=self.function)
        # CloudFormation's own are CloudFormation's.
        ours = [
            int(each["Version"])
            for page in pages
            for each in page["Versions"]
            if each["Version"] != "$LATEST" and each.get("Description", "").startswith(DESCRIPTION)
        ]
        former = max((version for version in ours if version < served), default=None)
        for version in ours:
            if version not in {served, former}:
                self.client.delete_function(FunctionName=self.function, Qualifier=str(version))

    def _smoke_test(self, qualifier: str, facts: CheckpointFacts) -> None:
        answer = LlmFunction(self.invoker, self.function, qualifier).generate(SMOKE_TEST)
        if answer.get("model") != facts.name:
            raise SmokeTestError(f"{qualifier} serves {answer.get('model')!r}, expected {facts.name!r}")
        tokens = answer.get("tokens", [])
        if len(tokens) != SMOKE_TEST["max_tokens"]:
            raise SmokeTestError(f"{qualifier} wrote {len(tokens)} tokens, expected {SMOKE_TEST['max_tokens']}")
        if any(not _is_finite(token.get("logprob")) for token in tokens):
            raise SmokeTestError(f"{qualifier} writes tokens whose probability is no number; the weights are damaged")

    def _variables(self, version: str) -> dict[str, str]:
        found = self.client.get_function_configuration(FunctionName=self.function, Qualifier=version)
        variables: dict[str, str] = found.get("Environment", {}).get("Variables", {})
        return variables

    def _restore(self, variables: Mapping[str, str]) -> None:
        self.client.update_function_configuration(
            FunctionName=self.function, Environment={"Variables": dict(variables)}
        )
        self._wait_until_configured()

    def _wait_until_configured(self) -> None:
        self.client.get_waiter("function_updated").wait(FunctionName=self.function, WaiterConfig=dict(self.wait))


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _described(facts: CheckpointFacts) -> str:
    return (
        f"{facts.family}, {facts.parameters} parameters, vocabulary of {facts.vocab_size} ({facts.tokenizer}), "
        f"SHA-256 {facts.digest}"
    )
