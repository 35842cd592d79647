"""Where the tiers listen: flag before variable before default, and in words when it cannot be."""

import argparse

import pytest

from local.errors import CommandError
from local.ports import LISTENERS, Ports, add_port_options, choose_ports, refuse_taken_port

DEFAULTS = Ports(page=8081, api=8082, llm=8008, metrics=9108)


def chosen(*flags: str, **environ: str) -> Ports:
    """The ports for a command line and an environment."""
    parser = argparse.ArgumentParser()
    add_port_options(parser)
    return choose_ports(parser.parse_args(flags), environ)


def test_defaults_are_the_documented_ports():
    """Without a word from anybody: page 8081, API 8082, model 8008, metrics 9108."""
    assert chosen() == DEFAULTS


@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
def test_flag_beats_variable_beats_default(listener):
    """Each port moves alone."""
    by_variable = chosen(**{listener.variable: "4001"})
    by_flag = chosen(listener.option, "4002", **{listener.variable: "4001"})
    assert by_variable.of(listener) == 4001
    assert by_flag.of(listener) == 4002
    for other in LISTENERS:
        if other is not listener:
            assert by_variable.of(other) == by_flag.of(other) == DEFAULTS.of(other)


@pytest.mark.parametrize("text", ["", "eighty", "80.5", "0", "65536", "-1"])
def test_a_malformed_variable_is_named(text):
    """The message has the variable and its value, and the exit code says wrong use."""
    with pytest.raises(CommandError, match="HUGINN_PAGE_PORT") as refused:
        chosen(HUGINN_PAGE_PORT=text)
    assert refused.value.exit_code == 2
    assert text in str(refused.value)


def test_two_listeners_on_one_port_are_refused():
    """Before one of them fails to start."""
    with pytest.raises(CommandError, match="page and api are both to listen on port 4001") as refused:
        chosen("--page-port", "4001", "--api-port", "4001")
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("listener", LISTENERS, ids=lambda listener: listener.name)
def test_a_taken_port_is_named_with_what_moves_it(listener, taken_port):
    """The port, whose it was to be, the flag and the variable; exit code 4."""
    with pytest.raises(CommandError) as refused:
        refuse_taken_port("127.0.0.1", taken_port, listener)
    message = str(refused.value)
    assert f"port {taken_port}, where {listener.name} is to listen, is taken" in message
    assert listener.option in message
    assert listener.variable in message
    assert refused.value.exit_code == 4


def test_a_free_port_is_not_refused(free_ports):
    """Asking leaves it free: it can be asked again, and bound."""
    for _ in range(2):
        refuse_taken_port("127.0.0.1", free_ports["page"], LISTENERS[0])


def test_an_unknown_host_is_refused_in_words():
    """A host that has no address, which needs no network to tell."""
    with pytest.raises(CommandError, match=r"the host '256\.0\.0\.1\.invalid' is not known") as refused:
        refuse_taken_port("256.0.0.1.invalid", 8081, LISTENERS[0])
    assert refused.value.exit_code == 4


def test_somebody_elses_address_is_refused_in_words():
    """TEST-NET-1 (RFC 5737) is on no machine."""
    with pytest.raises(CommandError, match=r"page cannot listen on 192\.0\.2\.1") as refused:
        refuse_taken_port("192.0.2.1", 8081, LISTENERS[0])
    assert refused.value.exit_code == 4
