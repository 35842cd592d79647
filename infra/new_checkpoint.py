"""A checkpoint that has come: tried where nobody is served, then served by all, or refused and nothing changed."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from infra.checkpoint_files import CheckpointFacts, CheckpointRefused, check_files
from infra.llm_function import PASSING_CODES, LlmError, LlmFunction

logger = logging.getLogger(__name__)

CKPT_PATH = "CKPT_PATH"
# The llm function loads no other weights then, whatever comes to lie under the same address.
DIGEST = "CHECKPOINT_DIGEST"

# What the descriptions of our versions begin with.
DESCRIPTION = "on_checkpoint: "

# A token's id, for who knows what characters a vocabulary has.
SMOKE_TEST = {"prompt": [0], "max_tokens": 16, "temperature": 0, "seed": 0, "logprobs": 1, "ignore_eos": True}

# Before Lambda ends us, $LATEST has to be put back and the verdict written.
RESERVE_S = 60.0

# Who has less than this left when it is his turn leaves it to another invocation.
TRIAL_S = 600.0

# After so long nobody tries any more: Lambda has ended him.
LONGEST_TRIAL_S = 900.0


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


class OvertakenError(Exception):
    """Somebody else changes the function at the same time, which says nothing of the checkpoint: try again."""


@dataclass(frozen=True)
class Deployment:
    """The llm function as it can be reconfigured.

    Args:
        client: boto3's for Lambda.
        invoker: the same without repetitions, which waits for an answer as many seconds as it is given.
        function: its name.
        alias: which alias is served.
        seconds_left: until Lambda ends this process.
        pause_s: between two questions whether AWS is done.
    """

    client: Any
    invoker: Callable[[float], Any]
    function: str
    alias: str
    seconds_left: Callable[[], float]
    pause_s: float

    def try_checkpoint(self, s3_client: Any, bucket: str, prefix: str) -> Verdict:
        """Serve the checkpoint if its files fit each other and a model with it writes text; else change nothing.

        Raises:
            OvertakenError: another checkpoint is being tried: try again.
            botocore's errors: AWS did not do as it was asked, which says nothing of the checkpoint: try again.
        """
        address = f"s3://{bucket}/{prefix}"
        try:
            facts = check_files(s3_client, bucket, prefix)
        except CheckpointRefused as refused:
            return Verdict(address, False, str(refused))
        checkpoint = (address, facts.digest)
        alias, served, latest = self._turn(checkpoint)
        former = alias["FunctionVersion"]
        if _checkpoint(served) == checkpoint:
            return Verdict(address, True, "It was served before.", former)
        # What is served, and not $LATEST, which may be what another left behind when Lambda ended him.
        tried = {**served, CKPT_PATH: address, DIGEST: facts.digest}
        # Who else has changed the function since it was read is not overwritten: AWS refuses, and we come again.
        self._configure(tried, latest["RevisionId"])
        version = ""
        try:
            version = self._publish(facts, address, tried)
            # With SnapStart this is when the snapshot is made: minutes.
            self._wait("published_version_active", Qualifier=version)
            self._smoke_test(version, facts)
            self.client.update_alias(
                FunctionName=self.function,
                Name=self.alias,
                FunctionVersion=version,
                RevisionId=alias["RevisionId"],
            )
        except (LlmError, SmokeTestError, WaiterError) as failure:
            self._restore(tried, served)
            if isinstance(failure, LlmError) and failure.code in PASSING_CODES:
                raise  # which is no fault of the checkpoint's
            return Verdict(address, False, f"The smoke generation failed: {failure}")
        except BaseException:
            self._restore(tried, served)
            raise
        finally:
            if version:
                self._delete_unserved(version)
        return Verdict(address, True, _described(facts), version, former)

    def _turn(self, checkpoint: tuple[str, str]) -> tuple[Any, dict[str, str], Any]:
        """The alias, the variables that it serves, and $LATEST, once nobody tries another checkpoint there."""
        while True:
            alias = self.client.get_alias(FunctionName=self.function, Name=self.alias)
            served = _variables(
                self.client.get_function_configuration(FunctionName=self.function, Qualifier=alias["FunctionVersion"])
            )
            latest = self.client.get_function_configuration(FunctionName=self.function)
            # Its own checkpoint is there when it was ended in the middle of an earlier attempt.
            another = _checkpoint(_variables(latest)) not in {_checkpoint(served), checkpoint}
            if latest.get("LastUpdateStatus") != "InProgress" and not (another and _age_s(latest) < LONGEST_TRIAL_S):
                return alias, served, latest
            if self.seconds_left() < TRIAL_S:
                raise OvertakenError(f"{self.function} is being changed by somebody else")
            time.sleep(self.pause_s)

    def _publish(self, facts: CheckpointFacts, address: str, tried: Mapping[str, str]) -> str:
        """The version with the checkpoint, which has written text before it was frozen."""
        self._wait("function_updated")
        latest = self.client.get_function_configuration(FunctionName=self.function)
        if _variables(latest) != tried:
            raise OvertakenError(f"{self.function} was changed by somebody else while {address} was tried")
        self._smoke_test("$LATEST", facts)
        published = self.client.publish_version(
            FunctionName=self.function, Description=f"{DESCRIPTION}{address}"[:256], RevisionId=latest["RevisionId"]
        )
        version: str = published["Version"]
        return version

    def _delete_unserved(self, newest: str) -> None:
        """Delete the versions published here up to ours, but the served one and the one before: snapshots cost.

        What fails here, another attempt makes good: the verdict stands.
        """
        try:
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
                # A younger one is somebody else's, who may be about to serve it.
                if version <= int(newest) and version not in {served, former}:
                    self.client.delete_function(FunctionName=self.function, Qualifier=str(version))
        except (BotoCoreError, ClientError) as error:
            logger.warning("Versions of %s that nobody is served by are left: %s", self.function, error)

    def _smoke_test(self, qualifier: str, facts: CheckpointFacts) -> None:
        seconds = self.seconds_left() - RESERVE_S
        if seconds < 1:
            raise SmokeTestError(f"there was no time left to ask {qualifier}")
        answer = LlmFunction(self.invoker(seconds), self.function, qualifier).generate(SMOKE_TEST)
        if answer.get("model") != facts.name:
            raise OvertakenError(f"{qualifier} serves {answer.get('model')!r}, expected {facts.name!r}")
        tokens = answer.get("tokens", [])
        if len(tokens) != SMOKE_TEST["max_tokens"]:
            raise SmokeTestError(f"{qualifier} wrote {len(tokens)} tokens, expected {SMOKE_TEST['max_tokens']}")
        if any(not _is_finite(token.get("logprob")) for token in tokens):
            raise SmokeTestError(f"{qualifier} writes tokens whose probability is no number; the weights are damaged")

    def _restore(self, tried: Mapping[str, str], served: Mapping[str, str]) -> None:
        """Put back on $LATEST what is served, unless somebody else has changed it meanwhile."""
        with suppress(WaiterError):
            # While AWS is at a change it takes no other.
            self._wait("function_updated", RESERVE_S / 2)
        latest = self.client.get_function_configuration(FunctionName=self.function)
        if _variables(latest) == tried:
            self._configure(served, latest["RevisionId"])
        else:
            logger.warning("%s was changed by somebody else and is left so.", self.function)

    def _configure(self, variables: Mapping[str, str], revision: str) -> None:
        self.client.update_function_configuration(
            FunctionName=self.function, Environment={"Variables": dict(variables)}, RevisionId=revision
        )

    def _wait(self, waiter: str, reserve_s: float = RESERVE_S, **which: str) -> None:
        # To ask takes time, too.
        questions = int((self.seconds_left() - reserve_s) / (self.pause_s + 1))
        config = {"Delay": self.pause_s, "MaxAttempts": max(questions, 1)}
        self.client.get_waiter(waiter).wait(FunctionName=self.function, WaiterConfig=config, **which)


def _variables(configuration: Mapping[str, Any]) -> dict[str, str]:
    variables: dict[str, str] = configuration.get("Environment", {}).get("Variables", {})
    return variables


def _checkpoint(variables: Mapping[str, str]) -> tuple[str | None, str | None]:
    return variables.get(CKPT_PATH), variables.get(DIGEST)


def _age_s(configuration: Mapping[str, Any]) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(configuration["LastModified"])).total_seconds()


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _described(facts: CheckpointFacts) -> str:
    return (
        f"{facts.family}, {facts.parameters} parameters, vocabulary of {facts.vocab_size} ({facts.tokenizer}), "
        f"SHA-256 {facts.digest}"
    )
