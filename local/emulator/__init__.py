"""AWS Lambda on this machine: a function's processes, their Runtime API, a Function URL and Lambda's own API in front.

with Emulator([sys.executable, "-m", "functions.runtime", "app_module.app"]) as emulator:
    httpx.get(emulator.url)
    boto3.client("lambda", endpoint_url=emulator.url, ...).invoke(FunctionName=emulator.name, Payload=b"{}")
"""

from local.emulator.emulator import Emulator
from local.emulator.invocation import Failure, Invocation

__all__ = ["Emulator", "Failure", "Invocation"]
