"""An execution environment: one process of the function, and the Runtime API that it asks for work."""

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO
from urllib.parse import unquote

from local.emulator.http_server import HttpServer, Request, Response
from local.emulator.invocation import Failure, Head, Invocation

MAX_BUFFERED_BYTES = 6 * 1024 * 1024
# Go's server, which Lambda's is, sends in chunks what does not fit into its buffer.
MAX_WHOLE_BYTES = 2048
STOPS_WITHIN_S = 5.0
ERROR_TYPE = "lambda-runtime-function-error-type"
ERROR_BODY = "lambda-runtime-function-error-body"
PREFIX = "/2018-06-01/runtime/"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function"


class Environment:
    """One process of a function, from its start to its end.

    Args:
        command: what is run.
        environ: all of its environment, to which the Runtime API's address is added.
        log: where its output goes.
        name: the function's name.
        concurrency: how many invocations it may be given at once.
        echoes_invocation_id: whether `Lambda-Runtime-Invocation-Id` is sent along and must come back.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        log: IO[bytes],
        *,
        name: str,
        concurrency: int,
        echoes_invocation_id: bool,
    ) -> None:
        self._command = list(command)
        self._environ = dict(environ)
        self._log = log
        self._name = name
        self.concurrency = concurrency
        self._echoes = echoes_invocation_id
        self._waiting: asyncio.Queue[Invocation] = asyncio.Queue()
        self._given: dict[str, Invocation] = {}
        self._claimed = 0
        self._api = HttpServer(self._answer)
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self.alive = True
        self.init_error: Failure | None = None
        self.requests: list[str] = []
        self.most_at_once = 0

    def claim(self) -> bool:
        """Take a place for one invocation, which `invoke` gives back; False where none is free."""
        if not self.alive or self._claimed >= self.concurrency:
            return False
        self._claimed += 1
        self.most_at_once = max(self.most_at_once, self._claimed)
        return True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        port = await self._api.start()
        environ = {**self._environ, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}"}
        self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - it takes a millisecond; the command is the caller's own
            self._command, env=environ, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
            cwd=environ.get("LAMBDA_TASK_ROOT"), start_new_session=True,
        )  # fmt: skip
        self._watcher = asyncio.create_task(self._watch(self._process))

    async def invoke(self, invocation: Invocation) -> None:
        """Give the process one invocation, for which a place was claimed; return when it has ended, well or not."""
        try:
            self._waiting.put_nowait(invocation)
            if not self.alive:
                invocation.end(self._exit_failure())
            await invocation.given.wait()
            if not invocation.ended.is_set():
                left_s = invocation.deadline_ms / 1000 - time.time()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(invocation.ended.wait(), left_s)
            if not invocation.ended.is_set():
                invocation.end(
                    Failure.of_lambda(
                        "Sandbox.Timedout",
                        f"RequestId: {invocation.request_id} Error: Task timed out after "
                        f"{invocation.timeout_s:.2f} seconds",
                    )
                )
                # An environment whose time is up is thrown away.
                self.kill()
        finally:
            self._claimed -= 1
            self._given.pop(invocation.request_id, None)

    def kill(self) -> None:
        self.alive = False
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End the process as Lambda does: with SIGTERM, and soon after with SIGKILL."""
        if self._process is not None and self._watcher is not None:
            if self.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._process.pid, signal.SIGTERM)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(self._watcher), STOPS_WITHIN_S)
            self.kill()
            await self._watcher
        await self._api.stop()

    async def _watch(self, process: subprocess.Popen[bytes]) -> None:
        await asyncio.to_thread(process.wait)
        self.alive = False
        for invocation in self._given.values():
            invocation.end(self._exit_failure(invocation))
        while not self._waiting.empty():
            self._waiting.get_nowait().end(self._exit_failure())

    def _exit_failure(self, invocation: Invocation | None = None) -> Failure:
        if self.init_error is not None:
            return self.init_error
        code = self._process.returncode if self._process else None
        name = f"RequestId: {invocation.request_id} " if invocation else ""
        return Failure.of_lambda("Runtime.ExitError", f"{name}Error: Runtime exited with exit status {code}")

    async def _answer(self, request: Request, response: Response) -> None:
        """Answer one request to the Runtime API, as strictly as Lambda does."""
        call = request.path.removeprefix(PREFIX)
        self.requests.append(f"{request.method} {call}")
        match request.method, *call.split("/"):
            case ["GET", "invocation", "next"]:
                await self._next(response)
            case ["POST", "invocation", request_id, "response" | "error" as what]:
                await self._take(unquote(request_id), what, request, response)
            case ["POST", "init" | "restore", "error"]:
                body = await request.body()
                self.init_error = Failure(request.header(ERROR_TYPE, "Runtime.Unknown"), body)
                response.json(202, {"status": "OK"})
            case ["GET", "restore", "next"]:
                response.whole(200, b"")
            case _:
                response.json(404, {"errorType": "NotFound", "errorMessage": f"{request.method} {request.path}"})

    async def _next(self, response: Response) -> None:
        invocation = await self._waiting.get()
        self._given[invocation.request_id] = invocation
        invocation.deadline_ms = int(1000 * (time.time() + invocation.timeout_s))
        invocation.given.set()
        headers = [
            ("Content-Type", "application/json"),
            ("Lambda-Runtime-Aws-Request-Id", invocation.request_id),
            ("Lambda-Runtime-Deadline-Ms", str(invocation.deadline_ms)),
            ("Lambda-Runtime-Invoked-Function-Arn", f"{ARN}:{self._name}"),
            ("Lambda-Runtime-Trace-Id", invocation.trace_id),
        ]
        if self._echoes:
            headers.append(("Lambda-Runtime-Invocation-Id", f"i-{invocation.request_id}"))
        if len(invocation.event) <= MAX_WHOLE_BYTES:
            return response.whole(200, invocation.event, headers)
        response.begin(200, headers)
        await response.chunk(invocation.event)
        return response.end()

    async def _take(self, request_id: str, what: str, request: Request, response: Response) -> None:
        invocation = self._given.get(request_id)
        if invocation is None:
            await request.body()
            return _refuse(response, 400, "InvalidRequestID", "Invalid request ID")
        if self._echoes and request.header("lambda-runtime-invocation-id") != f"i-{request_id}":
            await request.body()
            return _refuse(response, 400, "InvalidInvocationID", "The invocation id did not come back")
        if invocation.head is not None or invocation.ended.is_set():
            await request.body()
            return _refuse(response, 403, "InvalidStateTransition", f"{what} after a response has begun")
        if what == "error":
            error_type = request.header(ERROR_TYPE, "Runtime.Unknown")
            body = await request.body()
            invocation.wire = bytes(request.wire)
            invocation.end(Failure(error_type, body))
        elif request.header("lambda-runtime-function-response-mode") == "streaming":
            await self._take_stream(invocation, request)
        else:
            body = await request.body()
            if len(body) > MAX_BUFFERED_BYTES:
                message = f"Exceeded maximum allowed payload size ({MAX_BUFFERED_BYTES} bytes)."
                invocation.end(Failure.of_lambda("Function.ResponseSizeTooLarge", message))
                return _refuse(response, 413, "RequestEntityTooLarge", message)
            invocation.wire = bytes(request.wire)
            invocation.begin(Head(request.header("content-type"), streaming=False))
            invocation.add(body)
            invocation.end()
        response.json(202, {"status": "OK"})
        return None

    async def _take_stream(self, invocation: Invocation, request: Request) -> None:
        invocation.begin(Head(request.header("content-type"), streaming=True))
        failure = None
        try:
            async for chunk in request.chunks():
                invocation.add(chunk)
            if error_type := request.trailers.get(ERROR_TYPE):
                failure = Failure(error_type, base64.b64decode(request.trailers.get(ERROR_BODY, "")))
        except (asyncio.IncompleteReadError, ConnectionError):
            failure = Failure.of_lambda("Runtime.TruncatedResponse", "the connection was closed before the end")
            raise
        finally:
            invocation.wire = bytes(request.wire)
            invocation.end(failure)


def _refuse(response: Response, status: int, error_type: str, message: str) -> None:
    response.whole(
        status,
        json.dumps({"errorType": error_type, "errorMessage": message}).encode(),
        [("content-type", "application/json")],
    )
