"""Two readings can be compared, whatever instances have come and gone between them."""

import asyncio
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from functions.backend.adapters.llm_wire import read_status
from functions.backend.application.ledger import Ledger
from functions.backend.application.read_status import ReadStatus
from functions.backend.domain.llm_status import Histogram

ONE = read_status((Path(__file__).parents[2] / "contract" / "golden" / "status_llm.json").read_bytes())


def instance(name, tokens, uptime_s, **state):
    llm = replace(ONE.llm, tokens_generated=tokens, **state)
    return replace(ONE, instance=name, uptime_s=uptime_s, llm=llm)


def test_one_instance_at_two_addresses_is_one():
    """As a host's IPv4 and IPv6 addresses are."""
    assert Ledger().enter([ONE, ONE], 2.0) == Ledger().enter([ONE], 2.0)
    two = Ledger().enter([ONE, replace(ONE, instance="another", models=("a",))], 2.0)
    assert (two.instances, two.models) == (2, ("a", "muninn-char"))
    assert two.llm.tokens_generated == 2 * ONE.llm.tokens_generated


def test_an_instance_that_misses_a_look_takes_nothing_away():
    """Its state is not told while it is away; what it has counted stays, and goes on when it is back."""
    ledger = Ledger()
    first = ledger.enter([instance("a", 500_000, 9000, active=3), instance("b", 700_000, 9000, active=5)], 2.0)
    alone = ledger.enter([instance("a", 500_100, 9002, active=3)], 2.0)
    back = ledger.enter([instance("a", 500_200, 9004, active=3), instance("b", 700_300, 9004, active=5)], 2.0)
    assert [look.llm.tokens_generated - 1_200_000 for look in (first, alone, back)] == [0, 100, 500]
    assert [look.llm.active for look in (first, alone, back)] == [8, 3, 8]
    assert [look.instances for look in (first, alone, back)] == [2, 1, 2]
    assert first.epoch == alone.epoch == back.epoch


def test_an_instance_that_begins_anew_adds_what_it_does():
    """One of two is restarted, and counts from nothing: the sum does not shrink, and nothing is lost of the other."""
    ledger = Ledger()
    first = ledger.enter([instance("a", 1000, 9000), instance("b", 7000, 9000)], 2.0)
    anew = ledger.enter([instance("a", 1100, 9008), instance("c", 50, 3)], 8.0)
    assert anew.llm.tokens_generated - first.llm.tokens_generated == 150
    assert anew.epoch == first.epoch


def test_what_was_done_unseen_begins_another_epoch():
    """One that is old, and answers for the first time: its whole life is nothing that happened since the last look."""
    ledger = Ledger()
    first = ledger.enter([instance("a", 1000, 9000)], 2.0)
    both = ledger.enter([instance("a", 1100, 9002), instance("b", 500_000, 9000)], 2.0)
    assert both.epoch != first.epoch
    assert both.llm.tokens_generated == 501_100
    # Where nobody has looked for longer than it lives, all of it has happened since.
    later = ledger.enter([instance("a", 1200, 12_602), instance("c", 3000, 3500)], 3600.0)
    assert (later.epoch, later.llm.tokens_generated) == (both.epoch, 504_200)


def test_a_service_that_is_away_is_nobody():
    """When it is back, its counts go on."""
    ledger = Ledger()
    first = ledger.enter([instance("a", 1000, 9000)], 2.0)
    away = ledger.enter([], 2.0)
    assert (away.instances, away.models, away.llm, away.epoch) == (0, (), None, first.epoch)
    assert ledger.enter([instance("a", 1300, 9004)], 2.0).llm.tokens_generated == 1300


def test_instances_that_measure_otherwise_are_not_added():
    """A new version with other bounds: those that measure as before are told of while there are any."""
    old = instance("a", 1000, 9000)
    new = instance("b", 10, 1, inter_token_s=Histogram((1.0,), (0, 0), 0.0))
    ledger = Ledger()
    epochs = [ledger.enter(present, 2.0) for present in ([old], [new, old], [new])]
    assert [(look.instances, look.llm.tokens_generated) for look in epochs] == [(1, 1000), (1, 1000), (1, 10)]
    assert epochs[0].epoch == epochs[1].epoch != epochs[2].epoch


def test_instances_that_are_gone_are_not_remembered_for_ever():
    """After very many restarts another epoch begins with those that are there."""
    ledger = Ledger()
    looks = [ledger.enter([instance(str(number), 1, 1)], 2.0) for number in range(1000)]
    assert looks[-1].epoch == 1
    assert max(look.llm.tokens_generated for look in looks) == 512


steps = st.lists(
    st.tuples(st.integers(0, 100), st.sampled_from(["answers", "misses", "is restarted"])), min_size=2, max_size=2
)


@given(st.lists(steps, max_size=12))
def test_what_is_told_is_what_has_happened(history):
    """Two instances write, miss looks and are restarted; told is what was written, once each of them has been heard."""
    ledger, written, lost = Ledger(), 0, 0
    names, tokens, heard = ["a0", "b0"], [0, 0], [0, 0]
    looks = [ledger.enter([instance(name, 0, 1) for name in names], 2.0)]
    for step in [*history, [(0, "answers")] * 2]:
        present = []
        for at, (more, what) in enumerate(step):
            if what == "is restarted":
                # Nobody hears of what it wrote after the last look.
                lost += tokens[at] - heard[at]
                names[at], tokens[at], heard[at] = names[at] + "'", 0, 0
            tokens[at] += more
            written += more
            if what != "misses":
                heard[at] = tokens[at]
                present.append(instance(names[at], tokens[at], 1))
        look = ledger.enter(present, 2.0)
        looks += [look] if look.llm else []
    assert looks[-1].llm.tokens_generated == written - lost
    assert all(a.llm.tokens_generated <= b.llm.tokens_generated and a.epoch == b.epoch for a, b in pairwise(looks))


def test_the_looks_own_times_say_what_happened_between_them():
    """An hour in which nobody looked on explains an instance's age; two seconds do not."""
    now, there = [100.0], [instance("a", 1000, 9000)]

    class Source:
        async def statuses(self, request_id):
            return tuple(there)

    async def run():
        read_status = ReadStatus(Source(), lambda: now[0])
        first = await read_status("r-1")
        now[0] += 3600
        there.append(instance("b", 2000, 3500))
        second = await read_status("r-1")
        now[0] += 2
        there.append(instance("c", 3000, 100))
        third = await read_status("r-1")
        assert first.epoch == second.epoch != third.epoch
        assert [look.llm.tokens_generated for look in (first, second, third)] == [1000, 3000, 6000]

    asyncio.run(run())
