"""Texts in bulk: a file of requests in a bucket becomes a file of answers, each request answered exactly once.

The answers are kept in parts as they come, each written on the condition that it is not there yet. Who goes on after a
cut, or is given the same job at the same time, finds the parts and makes only those that are missing; of two who make
the same part the first has made it. Of a part that could not be finished, the lines that have an answer are kept. The
answers are the parts, one after the other.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from infra.llm_function import PASSING_CODES, LlmError, LlmFunction

# So many answers are kept together.
LINES_PER_PART = 8

# An attempt takes as long as the llm function may, at worst: none begins with less time left.
LONGEST_ATTEMPT_S = 330.0

# Readers come first: while the model has no place free, a line waits, longer from time to time.
BUSY = PASSING_CODES | {"queue_full", "not_ready"}
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

# A line whose text fails, or breaks off, so many times fails the job, which then comes again.
ATTEMPTS = 3

# SQS starts two consumers at least (maximum_concurrency), and both together shall leave readers half of the places.
CONSUMERS = 2
DEFAULT_WIDTH = 4
LARGEST_WIDTH = 8


def width_for(reserved_concurrency: int) -> int:
    """Give how many texts a consumer has written at a time, where so many places are reserved; -1 if none are."""
    if reserved_concurrency < 0:
        return DEFAULT_WIDTH
    return min(max(reserved_concurrency // 2 // CONSUMERS, 1), LARGEST_WIDTH)


class JobError(ValueError):
    """A message asks for no job that can be done; it says what was found and what was expected."""


class _OutOfTimeError(Exception):
    """A line has to wait for another run; its cause, if there is one, is why it has no answer."""


@dataclass(frozen=True)
class Job:
    """What a message asks for.

    Args:
        input: the key of a file with one request of the llm function's wire per line, and an `id` if one likes.
        output: the key of the file to write.
    """

    input: str
    output: str

    @classmethod
    def from_message(cls, body: str) -> "Job":
        """Give the job in a message such as `{"input": "in/a.jsonl", "output": "out/a.jsonl"}`.

        Raises:
            JobError: there is none in it.
        """
        try:
            fields = json.loads(body)
        except ValueError as error:
            raise JobError(f"The message is no JSON ({error}).") from error
        if not isinstance(fields, dict) or set(fields) != {"input", "output"}:
            raise JobError(
                f"The message is {body[:200]!r}; expected an object with input and output, and nothing else."
            )
        for name, key in fields.items():
            if not isinstance(key, str) or not key:
                raise JobError(f"{name} is {key!r}; expected the key of an object in the batch bucket.")
        if fields["input"] == fields["output"]:
            raise JobError("input and output are the same object.")
        return cls(fields["input"], fields["output"])

    def to_message(self) -> str:
        """The message that asks for this."""
        return json.dumps({"input": self.input, "output": self.output})


@dataclass(frozen=True)
class BatchWriter:
    """Does jobs, part by part.

    Args:
        s3_client: boto3's.
        bucket: where both files are.
        function: who writes the texts.
        width: how many at a time.
        pause: waits so many seconds.
    """

    s3_client: Any
    bucket: str
    function: LlmFunction
    width: int = DEFAULT_WIDTH
    pause: Callable[[float], None] = time.sleep

    def run(self, job: Job, seconds_left: Callable[[], float]) -> bool:
        """Write the answers, and say whether they are all there; if not, the time was over, and a later run goes on.

        Raises:
            LlmError: a line fails, or in all the time no line could be answered; what has been written is kept.
        """
        found = self.s3_client.get_object(Bucket=self.bucket, Key=job.input)
        # Another file under the same key is another job.
        tag = found["ETag"].strip('"')
        if self._is_done(job, tag):
            return True
        lines = list(_requests(found["Body"].read().decode("utf-8")))
        folder = f"{job.output}.parts/{tag}/"
        keys = [f"{folder}{number:08d}.jsonl" for number in range(-(-len(lines) // LINES_PER_PART))]
        kept = self._kept(folder)
        progress = False
        with ThreadPoolExecutor(self.width) as pool:
            for number, key in enumerate(keys):
                if key in kept:
                    continue
                part = lines[number * LINES_PER_PART : (number + 1) * LINES_PER_PART]
                waiting = [pool.submit(self._kept_or_answered, line, folder, kept, seconds_left) for line in part]
                failures = [error for error in (each.exception() for each in waiting) if error is not None]
                if not failures:
                    self._keep(key, b"".join(each.result() for each in waiting))
                    progress = True
                    continue
                # What is paid for is not thrown away for another line's sake.
                for line, each in zip(part, waiting, strict=True):
                    if each.exception() is None and (line_key := _line_key(folder, line)) not in kept:
                        self._keep(line_key, each.result())
                        progress = True
                for error in failures:
                    if not isinstance(error, _OutOfTimeError):
                        raise error
                    # What goes on for ever without a line answered shall be given up some time.
                    if error.__cause__ is not None and not progress:
                        raise error.__cause__
                return False
        answers = b"".join(self.s3_client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys)
        self.s3_client.put_object(
            Bucket=self.bucket,
            Key=job.output,
            Body=answers,
            ContentType="application/jsonl",
            Metadata={"input-etag": tag},
        )
        return True

    def _is_done(self, job: Job, tag: str) -> bool:
        try:
            found = self.s3_client.head_object(Bucket=self.bucket, Key=job.output)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchKey"}:
                return False
            raise
        return bool(found["Metadata"].get("input-etag") == tag)

    def _kept(self, folder: str) -> set[str]:
        pages = self.s3_client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
        return {each["Key"] for page in pages for each in page.get("Contents", [])}

    def _keep(self, key: str, part: bytes) -> None:
        try:
            self.s3_client.put_object(Bucket=self.bucket, Key=key, Body=part, IfNoneMatch="*")
        except ClientError as error:
            # Another run was faster: its answers are the answers.
            if error.response["Error"]["Code"] not in {"PreconditionFailed", "ConditionalRequestConflict"}:
                raise

    def _kept_or_answered(
        self, line: tuple[int, str], folder: str, kept: set[str], seconds_left: Callable[[], float]
    ) -> bytes:
        """One line of the answers: what a former run has left, or a new one."""
        key = _line_key(folder, line)
        if key in kept:
            found: bytes = self.s3_client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return found
        return self._answer(line, seconds_left).encode()

    def _answer(self, line: tuple[int, str], seconds_left: Callable[[], float]) -> str:
        """One line of the answers: what the function said, or why there is nothing.

        Raises:
            LlmError: it fails again and again.
            _OutOfTimeError: there is no time for an attempt, or for another one.
        """
        number, text = line
        try:
            request = json.loads(text)
        except ValueError as error:
            return _written(number, {"error": {"code": "invalid_json", "message": f"The line is no JSON: {error}."}})
        if not isinstance(request, dict):
            return _written(number, {"error": {"code": "invalid_request", "message": "The line is no JSON object."}})
        label = {"id": request.pop("id")} if "id" in request else {}
        failed, pause_s, reason = 0, FIRST_PAUSE_S, None
        while seconds_left() >= LONGEST_ATTEMPT_S:
            try:
                return _written(number, label | self.function.generate(request))
            except LlmError as error:
                if not error.retryable:
                    return _written(number, label | {"error": {"code": error.code, "message": str(error)}})
                failed += error.code not in BUSY
                if failed == ATTEMPTS:
                    raise
                reason = error
            if seconds_left() - pause_s < LONGEST_ATTEMPT_S:
                break
            self.pause(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        raise _OutOfTimeError from reason


def _requests(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold something, with their numbers, the first being 1."""
    # Only newlines end a line of JSON: str.splitlines() also cuts at characters that a prompt may hold.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line


def _line_key(folder: str, line: tuple[int, str]) -> str:
    """Where a line's answer is kept while others of its part are missing."""
    return f"{folder}lines/{line[0]:08d}.json"


def _written(number: int, fields: dict[str, Any]) -> str:
    return json.dumps({"line": number, **fields}, ensure_ascii=False) + "\n"
