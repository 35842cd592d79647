"""What is kept of a run, and read while it grows."""

import os
import stat
import subprocess
import sys

from local.logs.kept_log import KEPT_RUNS, KeptLog, follow_latest, is_running, read_run, runs


def test_what_is_written_is_read_and_nobody_else_may(tmp_path):
    """In order, by the user alone."""
    folder = tmp_path / "huginn" / "logs"
    with KeptLog(folder) as log:
        log.write("one")
        log.write("zwei é\u2028")
    log.write("too late")
    [run] = runs(folder)
    assert list(read_run(run)) == ["one", "zwei é\u2028"]
    assert stat.S_IMODE(run.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_run_is_bounded_and_its_last_lines_stay(tmp_path):
    """Two files, the older of which goes."""
    with KeptLog(tmp_path, max_bytes=100) as log:
        for number in range(100):
            log.write(f"line {number:04}")
            assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 220
    kept = list(read_run(runs(tmp_path)[0]))
    assert kept == [f"line {number:04}" for number in range(100 - len(kept), 100)]
    assert len(kept) >= 10


def test_old_runs_go_and_those_that_still_run_stay(tmp_path):
    """The last few are kept; which still runs, its file's name tells."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for number in range(KEPT_RUNS + 3):
        (tmp_path / f"up-20260101T00000{number}.000000-{ended.pid}.jsonl").touch()
    alive = tmp_path / f"up-20250101T000000.000000-{os.getpid()}.jsonl"
    alive.touch()
    with KeptLog(tmp_path):
        found = runs(tmp_path)
    assert found[0] == alive
    assert is_running(alive)
    assert not is_running(found[1])
    assert len(found) == 1 + KEPT_RUNS


def test_who_follows_sees_each_line_once_over_rotations_and_runs(tmp_path):
    """What was there, what comes, and then the next run; half a line is waited for."""
    following = follow_latest(tmp_path)
    assert next(following) == []
    with KeptLog(tmp_path, max_bytes=30) as log:
        seen = []
        for number in range(12):
            log.write(f"line {number:04}")
            seen += next(following)
        assert seen == [f"line {number:04}" for number in range(12)]
        with runs(tmp_path)[0].open("a") as file:
            file.write("half")
            file.flush()
            assert next(following) == []
            file.write(" and half\n")
        assert next(following) == ["half and half"]
        with KeptLog(tmp_path) as later:
            later.write("next run")
            assert next(following) == ["next run"]
    following.close()
