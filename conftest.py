"""The order of the tests, and `--no-skips`: where everything that they need is installed, a skip is a failure."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--no-skips", action="store_true", help="fail the run if any test was skipped or is expected to fail"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs an engine of containers unless it is asked for by its marker, and order the others.

    The files with what takes minutes begin: in a run of several workers nobody is to wait for them at the end.
    """
    if "compose" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("compose")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    long = {item.path for item in items if item.get_closest_marker("minutes")}
    items.sort(key=lambda item: item.path not in long)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a success with skipped tests into a failure."""
    if session.exitstatus == pytest.ExitCode.OK and _count_unproven(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say why the run failed; which tests they were stands above, with their reasons."""
    if count := _count_unproven(config):
        terminalreporter.write_line(f"--no-skips: {count} skipped or expected to fail, so the run has failed", red=True)


def _count_unproven(config: pytest.Config) -> int:
    reporter: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("--no-skips"):
        return 0
    return len(reporter.getreports("skipped")) + len(reporter.getreports("xfailed"))
