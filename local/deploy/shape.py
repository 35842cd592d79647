"""What a template's stack will hold, as far as it costs something."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from local.deploy.costs import SECONDS_PER_MONTH, Deployment

UNIT_S = {"minute": 60, "hour": 3600, "day": 86400}
# Lambda's, where a template says nothing.
DEFAULT_MEMORY_MB = 128


def read_deployment(
    template: Mapping[str, Any],
    parameters: Mapping[str, str],
    *,
    image_bytes: int,
    stored_bytes: int,
    metrics: int = 0,
    versions: int = 1,
) -> Deployment:
    """Give what the stack of a template of SAM will hold.

    Args:
        template: as it is, before SAM's transform.
        parameters: those that are passed; for the others the template's defaults stand.
        image_bytes: of the model's image, compressed.
        stored_bytes: in buckets.
        metrics: how many the functions write that no alarm is about.
        versions: how many of a function with snapshots are published; each has one.
    """
    reading = _Reading(template, parameters)
    functions = {
        name: properties
        for kind in ("AWS::Serverless::Function", "AWS::Lambda::Function")
        for name, properties in reading.resources(kind)
    }
    memory = {name: int(each.get("MemorySize") or DEFAULT_MEMORY_MB) for name, each in functions.items()}
    llm = [name for name, each in functions.items() if each.get("PackageType") == "Image"]
    backend = [name for name, each in functions.items() if "RESPONSE_STREAM" in str(each) and name not in llm]
    runs = {name: _runs_per_month(each) for name, each in functions.items()}
    canary = max(runs, key=lambda name: runs[name], default="")
    alarms = [each for _, each in reading.resources("AWS::CloudWatch::Alarm")]
    own = {
        (each["Namespace"], each["MetricName"], str(each.get("Dimensions")))
        for each in alarms
        if not str(each.get("Namespace", "AWS/")).startswith("AWS/")
    }
    return Deployment(
        llm_mb=memory[llm[0]] if llm else DEFAULT_MEMORY_MB,
        backend_mb=memory[backend[0]] if backend else DEFAULT_MEMORY_MB,
        canary_mb=memory.get(canary, DEFAULT_MEMORY_MB),
        canary_runs_per_month=runs.get(canary, 0.0),
        alarms=len(alarms),
        metrics=metrics + len(own),
        queues=sum(_reads_queue(each) for each in functions.values()),
        snapshots=versions
        * sum((each.get("SnapStart") or {}).get("ApplyOn") == "PublishedVersions" for each in functions.values()),
        image_bytes=image_bytes,
        stored_bytes=stored_bytes,
        secrets=len(list(reading.resources("AWS::SecretsManager::Secret"))),
        tables=len(list(reading.resources("AWS::DynamoDB::Table"))),
    )


def _runs_per_month(properties: Mapping[str, Any]) -> float:
    schedules = [
        each["Properties"].get("Schedule")
        for each in properties.get("Events", {}).values()
        if each["Type"] in {"Schedule", "ScheduleV2"}
    ]
    rates = [re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", str(schedule)) for schedule in schedules]
    return sum(SECONDS_PER_MONTH / (int(rate[1]) * UNIT_S[rate[2]]) for rate in rates if rate)


def _reads_queue(properties: Mapping[str, Any]) -> bool:
    return any(each["Type"] == "SQS" for each in properties.get("Events", {}).values())


@dataclass(frozen=True)
class _Reading:
    """A template with its parameters filled in, as far as costs depend on them."""

    template: Mapping[str, Any]
    parameters: Mapping[str, str]

    def resources(self, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Give name and properties of each resource of a kind that there will be."""
        shared = self.template.get("Globals", {}).get("Function", {}) if kind.endswith("::Function") else {}
        for name, resource in self.template["Resources"].items():
            if resource["Type"] == kind and ("Condition" not in resource or self.holds(resource)):
                yield name, self.value({**shared, **resource.get("Properties", {})})

    def value(self, found: Any) -> Any:
        """Give a value with `Ref` to a parameter and `Fn::If` followed; other functions stay as they are."""
        match found:
            case {"Ref": str(name)} if name in self.template.get("Parameters", {}):
                return self.parameters.get(name, self.template["Parameters"][name].get("Default"))
            case {"Fn::If": [str(condition), then, otherwise]}:
                return self.value(then if self.holds({"Condition": condition}) else otherwise)
            case dict():
                return {key: self.value(each) for key, each in found.items()}
            case list():
                return [self.value(each) for each in found]
        return found

    def holds(self, condition: Mapping[str, Any]) -> bool:
        """Give whether a condition is true."""
        match condition:
            case {"Condition": str(name)}:
                return self.holds(self.template["Conditions"][name])
            case {"Fn::Equals": [one, other]}:
                # A number may be written either way.
                return str(self.value(one)) == str(self.value(other))
            case {"Fn::Not": [inner]}:
                return not self.holds(inner)
            case {"Fn::And": list(inner)}:
                return all(map(self.holds, inner))
            case {"Fn::Or": list(inner)}:
                return any(map(self.holds, inner))
        raise ValueError(f"no condition: {condition}")
