"""The table of keys of a deployment, and the credentials with which it is asked."""

from collections.abc import Mapping

from local.deploy import stack
from local.deploy.account import Account, find_account, in_words
from local.deploy.command import refuse_bad_stage, stack_name
from local.errors import CommandError

OUTPUT = "KeyTable"


def find_key_table(
    stage: str, region: str | None, profile: str | None, environ: Mapping[str, str]
) -> tuple[str, str, Mapping[str, str]]:
    """Give a deployment's store, its region, and the environment with which it is reached.

    Raises:
        CommandError: there is no such deployment, it has no such table, or AWS refuses.
    """
    refuse_bad_stage(stage)
    account = find_account(region, profile, None, environ)

    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = stack.find_stack(account.client("cloudformation"), stack_name(stage))
    except (BotoCoreError, ClientError) as error:
        raise in_words(error) from error
    if found is None or OUTPUT not in found.outputs:
        raise CommandError(
            f"there is no {'table of keys in the' if found else ''} stack {stack_name(stage)} in {account.region}",
            "deploy it, or name another stage or region: huginn deploy --stage S --region R",
            exit_code=3,
        )
    return f"dynamodb:{found.outputs[OUTPUT]}", account.region, _with_those_of(account, environ)


def with_credentials(region: str, profile: str | None, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Give the environment with the credentials that the AWS configuration has, whatever kind they are.

    Raises:
        CommandError: there are none.
    """
    return _with_those_of(find_account(region, profile, None, environ), environ)


def _with_those_of(account: Account, environ: Mapping[str, str]) -> Mapping[str, str]:
    found = account.session.get_credentials().get_frozen_credentials()
    return {
        **environ,
        "AWS_ACCESS_KEY_ID": found.access_key,
        "AWS_SECRET_ACCESS_KEY": found.secret_key,
        "AWS_SESSION_TOKEN": found.token or "",
    }
