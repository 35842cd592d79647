"""A function's published versions: each one's snapshot is paid for as long as it is there."""

from typing import Any


def remove_old_versions(lambda_client: Any, function: str) -> list[str]:
    """Give the versions that were removed: all but those that an alias points to."""
    used = set()
    for page in lambda_client.get_paginator("list_aliases").paginate(FunctionName=function):
        for alias in page["Aliases"]:
            used.add(alias["FunctionVersion"])
            used.update(alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {}))
    if not used:
        # Then somebody else decides which version is called.
        return []
    removed = []
    for page in lambda_client.get_paginator("list_versions_by_function").paginate(FunctionName=function):
        for version in page["Versions"]:
            if version["Version"] not in {"$LATEST", *used}:
                lambda_client.delete_function(FunctionName=function, Qualifier=version["Version"])
                removed.append(version["Version"])
    return removed
