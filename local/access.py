"""Who may ask the tiers of one machine: everybody who is at it, or the holders of keys and the page's readers."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from functions.backend.settings import is_loopback
from local.errors import CommandError


def state_folder(environ: Mapping[str, str]) -> Path:
    """Give the folder in which this user's state of Huginn is kept, by the XDG Base Directory Specification."""
    base = environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "huginn"


def usual_key_store(environ: Mapping[str, str]) -> str:
    """Give the store of keys that is meant where none is named."""
    return environ.get("KEY_STORE") or f"sqlite:{state_folder(environ) / 'keys' / 'keys.sqlite'}"


def access_environment(host: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the variables that say who may ask; what the environment says already stays.

    Where nobody but this machine is reached, nobody is asked for a key. Elsewhere all are, and what that needs is made.

    Raises:
        CommandError: the folder of the state cannot be written.
    """
    # Who publishes a loopback port by other means says so; that it is loopback cannot be said of one that is not.
    published = environ.get("HUGINN_HOST", host) if is_loopback(host) else host
    auth = environ.get("HUGINN_AUTH") or ("off" if is_loopback(published) else "on")
    found = {"HUGINN_HOST": published, "HUGINN_AUTH": auth}
    if auth == "on":
        found["KEY_STORE"] = usual_key_store(environ)
        found["SESSION_SECRET"] = environ.get("SESSION_SECRET") or _kept_secret(state_folder(environ))
    return found


def _kept_secret(folder: Path) -> str:
    """Give the secret of that folder, made where it lacks: pages stay good when the tiers are started again."""
    path = folder / "session-secret"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            made = path.with_name(f".session-secret-{os.getpid()}")
            made.touch(0o600)
            made.write_text(secrets.token_hex(32), "ascii")
            # Two that start at the same time shall have the same: whoever is first has made it.
            try:
                os.link(made, path)
            except FileExistsError:
                pass
            finally:
                made.unlink()
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"the secret of the page's sessions cannot be kept in {path}: {error}",
            "set SESSION_SECRET (`openssl rand -hex 32` makes one), or XDG_STATE_HOME to a folder that can be written",
            exit_code=2,
        ) from error
