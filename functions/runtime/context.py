"""What an app can find out about its invocation, at `scope["aws.context"]`."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ENVIRON = os.environ.get


@dataclass(frozen=True)
class LambdaContext:
    """The context object of AWS's Python runtime, under the same names."""

    aws_request_id: str
    invoked_function_arn: str
    deadline_ms: int
    client_context: Mapping[str, Any] | None = None
    identity: Mapping[str, Any] | None = None
    function_name: str = field(default_factory=lambda: _ENVIRON("AWS_LAMBDA_FUNCTION_NAME", ""))
    function_version: str = field(default_factory=lambda: _ENVIRON("AWS_LAMBDA_FUNCTION_VERSION", ""))
    memory_limit_in_mb: str = field(default_factory=lambda: _ENVIRON("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", ""))
    log_group_name: str = field(default_factory=lambda: _ENVIRON("AWS_LAMBDA_LOG_GROUP_NAME", ""))
    log_stream_name: str = field(default_factory=lambda: _ENVIRON("AWS_LAMBDA_LOG_STREAM_NAME", ""))

    def get_remaining_time_in_millis(self) -> int:
        """Give how many milliseconds are left before Lambda ends the process."""
        return max(0, self.deadline_ms - int(1000 * time.time()))
