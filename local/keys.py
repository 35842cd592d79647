"""`huginn keys`: makes, lists and revokes API keys."""

import argparse
import asyncio
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from functions.backend.domain.key import Key, digest_of, mint
from functions.backend.domain.principal import GENERATE, SCOPES
from functions.backend.domain.quota import Quota
from functions.backend.domain.usage_total import UsageTotal
from local.access import usual_key_store
from local.errors import CommandError

RANDOM_BYTES = 38
# Two of 62**8 ids are the same once in a hundred million keys.
TRIES = 3

LIMITS = ("tokens_per_minute", "tokens_per_day", "concurrency")
HEADS = (
    *("ID", "NAME", "STATE", "SCOPES", "EXPIRES"),
    *("PER MINUTE", "PER DAY", "AT ONCE", "REQUESTS", "TOKENS", "CPU S", "COST"),
)

EXAMPLES = """\
examples:
  huginn keys new ravens
  huginn keys new "the lab" --tokens-per-minute 20000 --tokens-per-day 500000 --concurrency 4 --expires 90d
  huginn keys list --json
  huginn keys revoke 3hT0aPqZ --stage prod
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.description = "Make, list and revoke API keys. A key's text is shown once; what is kept is its hash."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    actions = parser.add_subparsers(metavar="ACTION", required=True)

    new = actions.add_parser("new", help="make a key, and show it once")
    new.add_argument("name", metavar="NAME", help="whose it is, for the list")
    new.add_argument(
        "--scopes",
        default=GENERATE,
        metavar="S,S",
        help=f"what it may do, of {', '.join(sorted(SCOPES))} (default: %(default)s)",
    )
    new.add_argument("--tokens-per-minute", type=int, metavar="N", help="prompt and answer together; default: no limit")
    new.add_argument("--tokens-per-day", type=int, metavar="N", help="of a day of UTC; default: no limit")
    new.add_argument("--concurrency", type=int, metavar="N", help="requests at the same time; default: no limit")
    new.add_argument("--expires", metavar="WHEN", help="after 90d or 12h, or on 2027-01-31 (UTC); default: never")
    new.set_defaults(act=new_key)

    show = actions.add_parser("list", help="tell what keys there are, and what they have used")
    show.set_defaults(act=list_keys)

    revoke = actions.add_parser("revoke", help="let a key's holder in no more")
    revoke.add_argument("id", metavar="ID", help="as `huginn keys list` tells it: eight characters")
    revoke.set_defaults(act=revoke_key)

    for action in (new, show, revoke):
        action.add_argument("--json", action="store_true", help="tell it as JSON")
        action.add_argument(
            "--store",
            metavar="STORE",
            help="sqlite:PATH or dynamodb:TABLE (default: $KEY_STORE, else that of `huginn up`)",
        )
        action.add_argument("--stage", metavar="NAME", help="the store of a deployment instead, such as prod")
        action.add_argument("--region", help="where that is (default: as the AWS configuration has it)")
        action.add_argument("--profile", help="whose it is, by the name in the AWS configuration")


def run(args: argparse.Namespace) -> int:
    """Do what was asked for, and give 0 if it was done."""
    from functions.backend.domain.errors import KeyStoreUnavailable

    name, region, environ = chosen_store(args, os.environ)
    try:
        exit_code: int = asyncio.run(_with_store(args, name, region, environ))
    except KeyStoreUnavailable as error:
        raise CommandError(
            f"the keys in {name} are out of reach: {error.__cause__ or error}",
            "name another: --store sqlite:PATH",
            exit_code=4,
        ) from error
    return exit_code


async def _with_store(args: argparse.Namespace, name: str, region: str, environ: Mapping[str, str]) -> int:
    from functions.backend.adapters.key_stores import key_store_named

    store = key_store_named(name, region, environ)
    try:
        exit_code: int = await args.act(args, store)
        return exit_code
    finally:
        await store.aclose()


def chosen_store(args: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, str, Mapping[str, str]]:
    """Give the store's name, its region, and the environment with which it is reached.

    Raises:
        CommandError: two were named, or one that is none, or a deployment has none.
    """
    if args.store and args.stage:
        raise CommandError("--store and --stage both name a store", "leave one of them out", exit_code=2)
    if args.stage:
        from local.deploy.key_table import find_key_table

        return find_key_table(args.stage, args.region, args.profile, environ)
    name = args.store or usual_key_store(environ)
    if not re.fullmatch(r"sqlite:.+|dynamodb:[A-Za-z0-9_.-]{3,255}", name):
        raise CommandError(f"{name!r} names no store of keys", "write sqlite:PATH or dynamodb:TABLE", exit_code=2)
    if name.startswith("sqlite:"):
        return name, "", environ
    region = args.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise CommandError("no AWS region is chosen", "name one: --region eu-central-1, or AWS_REGION", exit_code=2)
    if environ.get("AWS_ACCESS_KEY_ID") and not args.profile:
        return name, region, environ
    from local.deploy.key_table import with_credentials

    return name, region, with_credentials(region, args.profile, environ)


async def new_key(args: argparse.Namespace, store: Any) -> int:
    """Make a key; its text alone goes to standard output, so that it can be put somewhere without being seen."""
    now = time.time()
    expires = expiry(args.expires, now)
    scopes = frozenset(filter(None, (scope.strip() for scope in args.scopes.split(","))))
    for _ in range(TRIES):
        key_id, text = mint(secrets.token_bytes(RANDOM_BYTES))
        try:
            quota = Quota(args.tokens_per_minute, args.tokens_per_day, args.concurrency)
            key = Key(key_id, args.name, digest_of(text), scopes, now, quota, expires)
        except ValueError as error:
            raise CommandError(str(error), "see huginn keys new --help", exit_code=2) from error
        if await store.add(key):
            break
    else:
        raise CommandError("no new key could be kept", "run the command again", exit_code=1)
    if args.json:
        print(json.dumps({**described(key, UsageTotal(), now), "key": text}))
    else:
        print(text)
        print(
            f"huginn: this is the only time that the key is shown; send it as `Authorization: Bearer hgn_...`\n"
            f"  take it back with: huginn keys revoke {key_id}",
            file=sys.stderr,
        )
    return 0


async def list_keys(args: argparse.Namespace, store: Any) -> int:
    """Tell what keys there are, and what each has used."""
    keys: Sequence[Key] = await store.keys()
    totals = await store.totals([key.principal.account for key in keys])
    now = time.time()
    rows = [described(key, total, now) for key, total in zip(keys, totals, strict=True)]
    if args.json:
        print(json.dumps({"keys": rows}))
    elif rows:
        print("\n".join(table(rows)))
    else:
        print("huginn: there is no key; make one: huginn keys new NAME", file=sys.stderr)
    return 0


async def revoke_key(args: argparse.Namespace, store: Any) -> int:
    """Let the key's holder in no more: from now on, and where somebody has just asked, after 5 seconds."""
    if not await store.revoke(args.id, time.time()):
        raise CommandError(f"there is no key {args.id!r}", "see what there is: huginn keys list", exit_code=3)
    if args.json:
        print(json.dumps({"id": args.id, "revoked": True}))
    else:
        print(f"huginn: the key {args.id} is revoked", file=sys.stderr)
    return 0


def expiry(text: str | None, now: float) -> float | None:
    """Give the time that "90d", "12h" or a date mean, in seconds since 1970; None for None.

    Raises:
        CommandError: it is none of these, or over already.
    """
    if text is None:
        return None
    if match := re.fullmatch(r"([1-9][0-9]{0,4})([dh])", text):
        return now + timedelta(**{{"d": "days", "h": "hours"}[match[2]]: int(match[1])}).total_seconds()
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"--expires is {text!r}, which is no time", "write 90d, 12h or a date such as 2027-01-31", exit_code=2
        ) from None
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    if seconds <= now:
        raise CommandError(f"--expires is {text!r}, which is over", "name a later day", exit_code=2)
    return seconds


def described(key: Key, total: UsageTotal, now: float) -> dict[str, Any]:
    """Give a key and what it has used as JSON has it."""
    return {
        "id": key.id,
        "name": key.name,
        "state": "revoked" if key.revoked is not None else "good" if key.is_good(now) else "expired",
        "scopes": sorted(key.scopes),
        "tokens_per_minute": key.quota.tokens_per_minute,
        "tokens_per_day": key.quota.tokens_per_day,
        "concurrency": key.quota.concurrency,
        "created": _time(key.created),
        "expires": _time(key.expires),
        "revoked": _time(key.revoked),
        "requests": total.requests,
        "prompt_tokens": total.prompt_tokens,
        "cached_prompt_tokens": total.cached_prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "cpu_seconds": round(total.cpu_seconds, 3),
        "gb_seconds": round(total.gb_seconds, 3),
        "cost_usd": round(total.cost_usd, 8),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give lines for a person."""
    cells = [
        (
            row["id"],
            row["name"],
            row["state"],
            ",".join(row["scopes"]),
            (row["expires"] or "never")[:10],
            *(f"{limit:,}" if limit else "-" for limit in map(row.get, LIMITS)),
            f"{row['requests']:,}",
            f"{row['prompt_tokens'] + row['completion_tokens']:,}",
            f"{row['cpu_seconds']:,.1f}",
            f"${row['cost_usd']:,.6f}",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (HEADS, *cells)) for column in range(len(HEADS))]
    lines = []
    for line in (HEADS, *cells):
        # Words to the left, numbers to the right.
        words = [f"{cell:<{width}}" for cell, width in zip(line[:5], widths[:5], strict=True)]
        numbers = [f"{cell:>{width}}" for cell, width in zip(line[5:], widths[5:], strict=True)]
        lines.append("  ".join(words + numbers).rstrip())
    return lines


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
