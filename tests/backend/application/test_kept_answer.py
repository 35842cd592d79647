"""Many who ask at about the same time are one question, and no answer is old."""

import asyncio

import pytest

from functions.backend.application.kept_answer import KeptAnswer


class Oracle:
    """Answers with how often it was asked, as soon as it may; knows who has asked."""

    def __init__(self):
        self.asked = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, request_id):
        self.asked.append(request_id)
        answer = len(self.asked)
        await self.may_answer.wait()
        return answer


def test_who_comes_meanwhile_waits_for_the_same_answer():
    """Also who comes when much time has passed since it was asked."""

    async def work():
        oracle, now = Oracle(), [0.0]
        kept = KeptAnswer(oracle, lambda: now[0])
        oracle.may_answer.clear()
        waiting = []
        for name in "abc":
            waiting.append(asyncio.create_task(kept(name)))
            await asyncio.sleep(0)
            now[0] += 5.0
        oracle.may_answer.set()
        assert await asyncio.gather(*waiting) == [1, 1, 1]
        assert oracle.asked == ["a"]

    asyncio.run(work())


@pytest.mark.parametrize(
    ("passed_s", "asked"),
    [(0.0, 1), (0.5, 1), (1.0, 2), (2.0, 2), (3600.0, 2), (-0.5, 2), (-3600.0, 2)],
    ids=["at once", "soon", "after a second", "after two", "frozen meanwhile", "set back", "set back far"],
)
def test_an_answer_is_kept_for_about_a_second(passed_s, asked):
    """By the clock, whatever became of this process or of the clock meanwhile."""

    async def work():
        oracle, now = Oracle(), [1.8e9]
        kept = KeptAnswer(oracle, lambda: now[0])
        await kept("a")
        now[0] += passed_s
        assert await kept("b") == asked

    asyncio.run(work())


def test_the_next_asks_for_who_has_left():
    """Who waits does not hear that somebody else no longer wants to know."""

    async def work():
        oracle = Oracle()
        kept = KeptAnswer(oracle, lambda: 0.0)
        oracle.may_answer.clear()
        leaving, waiting = (asyncio.create_task(kept(name)) for name in "ab")
        await asyncio.sleep(0)
        leaving.cancel()
        oracle.may_answer.set()
        assert await waiting == 2
        assert oracle.asked == ["a", "b"]

    asyncio.run(work())


def test_a_failure_is_not_kept():
    """It is told to who has asked."""

    async def work():
        failures = [ValueError("planted")]

        async def ask(_):
            if failures:
                raise failures.pop()
            return "yes"

        kept = KeptAnswer(ask, lambda: 0.0)
        with pytest.raises(ValueError, match="planted"):
            await kept("a")
        assert await kept("b") == "yes"

    asyncio.run(work())
