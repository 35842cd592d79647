"""A function, its environments, and the two doors to it on one port."""

import asyncio
import os
import tempfile
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self
from urllib.parse import parse_qs, unquote

from local.emulator import function_url, lambda_api
from local.emulator.environment import Environment
from local.emulator.http_server import HttpServer, Request, Response
from local.emulator.invocation import Invocation

STARTS_WITHIN_S = 30.0
# What a function on AWS finds in its environment; there is no PATH to the tests' own settings, nor any credentials.
_INHERITED = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")


class Emulator:
    """A Lambda function on this machine, for as long as the context lasts.

    ``url`` is its Function URL, and answers Lambda's own API besides: `boto3.client("lambda", endpoint_url=url)`.

    Args:
        command: what an environment runs, such as ``[sys.executable, "-m", "functions.runtime", "module.app"]``.
        environment: variables for it, beside those that Lambda sets itself.
        max_environments: how many processes there may be at once; when all are busy the answer is a 429.
        mode: what the Function URL does, as its InvokeMode says.
        timeout_s: what one invocation may take; then its process is killed.
        concurrency: how many invocations one process may have at once (Managed Instances).
        snap_start: whether processes are told that a snapshot is made of them.
        echoes_invocation_id: whether `Lambda-Runtime-Invocation-Id` is sent, and must come back.
        name: the function's name; Lambda's API knows no other.
        task_root: where the code is, and the working directory.
        host: the address that the Function URL listens on.
        port: its port; 0 takes a free one.
        keeps: how many of the latest invocations can be looked at afterwards; None keeps all.
        log: where the function's processes write; None gives them a file that `log` reads.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        *,
        max_environments: int = 2,
        mode: Literal["streaming", "buffered"] = "streaming",
        timeout_s: float = 30.0,
        concurrency: int = 1,
        snap_start: bool = False,
        echoes_invocation_id: bool = False,
        name: str = "function",
        task_root: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        keeps: int | None = None,
        log: IO[bytes] | None = None,
    ) -> None:
        self._command = list(command)
        self._timeout_s = timeout_s
        self._mode = mode
        self._max = max_environments
        self._concurrency = concurrency
        self._echoes = echoes_invocation_id
        self.name = name
        self.invocations: deque[Invocation] = deque(maxlen=keeps)
        self.environments: list[Environment] = []
        self._environ = {
            **{key: os.environ[key] for key in _INHERITED if key in os.environ},
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/22/[$LATEST]0123456789abcdef",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start" if snap_start else "on-demand",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "testing",
            "LAMBDA_TASK_ROOT": str(task_root or Path.cwd()),
            "TZ": ":UTC",
            **({"AWS_LAMBDA_MAX_CONCURRENCY": str(concurrency)} if concurrency > 1 else {}),
            **(environment or {}),
        }
        self._log = log or tempfile.TemporaryFile()  # noqa: SIM115 - closed when the context is left
        self._owns_log = log is None
        self._host = host
        self._server = HttpServer(self._answer, host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="emulator", daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        port = asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(STARTS_WITHIN_S)
        self.url = f"http://{self._host}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(STARTS_WITHIN_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._owns_log:
            self._log.close()

    def log(self) -> str:
        """Give all that the function's processes have written so far, where they write into our own file."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode(errors="replace")

    def start_environment(self) -> None:
        """Start one process before anybody asks, as provisioned concurrency does."""

        async def start() -> None:
            await self._new_environment().start()

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(STARTS_WITHIN_S)

    async def _stop(self) -> None:
        await self._server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(environment.stop() for environment in self.environments))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    async def _answer(self, request: Request, response: Response) -> None:
        path = unquote(request.path)
        if match := lambda_api.INVOKE.fullmatch(path) or lambda_api.STREAM.fullmatch(path):
            await self._answer_api(match["name"], request, response, streaming=match.re is lambda_api.STREAM)
            return
        invocation = Invocation(b"", self._timeout_s)
        invocation.event = await function_url.url_event(request, invocation.request_id)
        if await self._begin(invocation) is None:
            function_url.too_many(response)
        elif self._mode == "streaming":
            await function_url.answer_streaming(invocation, response)
        else:
            await function_url.answer_buffered(invocation, response)

    async def _answer_api(self, name: str, request: Request, response: Response, *, streaming: bool) -> None:
        # A name alone, with a qualifier, or an ARN: arn:aws:lambda:REGION:ACCOUNT:function:NAME[:QUALIFIER]
        parts = name.split(":")[6 if name.startswith("arn:") else 0 :]
        event = await request.body() or b"{}"
        if parts[0] != self.name:
            return lambda_api.not_found(response, name)
        qualifier = (parse_qs(request.query).get("Qualifier") or parts[1:] or ["$LATEST"])[0]
        invocation = Invocation(event, self._timeout_s, qualifier=qualifier)
        kind = request.header("x-amz-invocation-type", "RequestResponse")
        if kind == "DryRun":
            return response.whole(204, b"")
        if await self._begin(invocation) is None:
            return lambda_api.too_many(response)
        if kind == "Event":
            return response.whole(202, b"")
        if streaming:
            return await lambda_api.answer_stream(invocation, response)
        return await lambda_api.answer_invoke(invocation, response)

    async def _begin(self, invocation: Invocation) -> Environment | None:
        """Give the invocation to an environment, a new one if need be; None where none may take it."""
        self.invocations.append(invocation)
        environment = next((each for each in self.environments if each.claim()), None)
        if environment is None:
            if sum(each.alive for each in self.environments) >= self._max:
                return None
            environment = self._new_environment()
            environment.claim()
            await environment.start()
        # A task of its own: a client that leaves changes nothing for the function.
        task = asyncio.create_task(environment.invoke(invocation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return environment

    def _new_environment(self) -> Environment:
        environment = Environment(
            self._command,
            self._environ,
            self._log,
            name=self.name,
            concurrency=self._concurrency,
            echoes_invocation_id=self._echoes,
        )
        self.environments.append(environment)
        return environment
