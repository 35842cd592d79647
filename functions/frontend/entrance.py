"""Who may come in, and what tells the API who it is: the session, in a cookie that scripts cannot read."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from functions.frontend.session import LIFETIME_S, Session, SessionSeal

COOKIE = "huginn_session"
# Who has given the password once need not give it again after every nap of the computer. The API takes no such session:
# it is only good for a new one, until a day after the password was given (session.LONGEST_S).
LATE_S = 12 * 3600


# What a cookie of ours is made of; nothing else is read, or passed on.
_VALUE = re.compile(r"[A-Za-z0-9._-]{1,512}")


def cookie_of(request: Request) -> str:
    """The session's cookie, or "" where there is none that could be ours."""
    value = request.cookies.get(COOKIE, "")
    return value if _VALUE.fullmatch(value) else ""


@dataclass(frozen=True)
class Visit:
    """One request of somebody who may come in.

    Args:
        cookie: the session's cookie for the API, or "" where there are no sessions.
        fresh: whether the browser does not have it yet.
    """

    cookie: str = ""
    fresh: bool = False

    @property
    def headers(self) -> Mapping[str, str]:
        """What a request to the API carries for this visitor."""
        return {"cookie": f"{COOKIE}={self.cookie}"} if self.cookie else {}


class Entrance:
    """Gives sessions to visitors: to all of them, or to those who know the password."""

    def __init__(
        self, seal: SessionSeal | None, *, asks: bool, always_secure: bool, now: Callable[[], float] = time.time
    ) -> None:
        """Stand at the door; without a seal there are no sessions, and all come in.

        Args:
            seal: makes and reads the cookie.
            asks: whether a password has to be given before there is a session.
            always_secure: whether the cookie is for https alone although the request did not come by it.
            now: seconds since 1970.
        """
        self._seal = seal
        self._asks = asks
        self._always_secure = always_secure
        self._now = now

    @property
    def has_sessions(self) -> bool:
        """Whether there are sessions at all."""
        return self._seal is not None

    @property
    def asks(self) -> bool:
        """Whether there is a password."""
        return self._asks

    def enter(self, request: Request) -> Visit | None:
        """The visit that this request is, its session renewed where it is time to; None if the password is wanted."""
        if self._seal is None:
            return Visit()
        now = self._now()
        cookie = cookie_of(request)
        session = self._seal.read(cookie, now, LATE_S if self._asks else 0.0)
        if session is None:
            return None if self._asks else self.welcome()
        renewed = session.renewed(now)
        return Visit(cookie) if renewed is session else self._fresh(renewed)

    def welcome(self) -> Visit:
        """The visit of somebody new."""
        return self._fresh(Session.begin(self._now()))

    def mark(self, request: Request, visit: Visit, response: Response) -> None:
        """Have the response give the browser the cookie, if it does not have it."""
        if visit.fresh:
            # Lax: who follows a link from elsewhere may have come in before. Other sites' forms and scripts still
            # send no cookie with a POST, and form.refuse_other_sites turns them away.
            response.set_cookie(
                COOKIE, visit.cookie, max_age=LIFETIME_S + (LATE_S if self._asks else 0), path="/",
                secure=self._always_secure or _came_by_https(request), httponly=True, samesite="lax",
            )  # fmt: skip

    def _fresh(self, session: Session) -> Visit:
        assert self._seal is not None
        return Visit(self._seal.write(session), fresh=True)


def _came_by_https(request: Request) -> bool:
    # A proxy in front says so; who pretends it only makes a cookie that is of no use to him.
    forwarded = request.headers.get("x-forwarded-proto", "").split(",", maxsplit=1)[0].strip().lower()
    return "https" in {forwarded, request.url.scheme}
