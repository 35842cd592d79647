"""What is kept of a run, and read while it grows."""

import fcntl
import os
import shutil
import stat

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
    """The last few are kept, and any that still runs."""
    for number in range(KEPT_RUNS + 3):
        (tmp_path / f"up-20260101T00000{number}.000000-7.jsonl").touch()
    alive = tmp_path / "up-20250101T000000.000000-7.jsonl"
    with alive.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with KeptLog(tmp_path):
            found = runs(tmp_path)
        assert is_running(alive)
    assert found[0] == alive
    assert len(found) == 1 + KEPT_RUNS
    assert not any(is_running(run) for run in runs(tmp_path))


def test_a_pid_that_was_given_out_anew_is_no_run(tmp_path):
    """Whoever has it now, the system or ourselves; a run tells by a lock that it runs, also after a rotation."""
    for pid in (1, os.getpid()):
        run = tmp_path / f"up-20260101T000000.000000-{pid}.jsonl"
        run.touch()
        assert not is_running(run)
    with KeptLog(tmp_path, max_bytes=10) as log:
        assert is_running(runs(tmp_path)[-1])
        log.write("more than ten bytes")
        assert is_running(runs(tmp_path)[-1])
    assert not is_running(runs(tmp_path)[-1])


def test_a_folder_that_was_tidied_away_costs_lines_and_nothing_else(tmp_path):
    """Moved with a rotation to come, removed with the file in it, or no place at all: what comes later is kept."""
    folder = tmp_path / "logs"
    with KeptLog(folder, max_bytes=40) as log:
        log.write("one")
        folder.rename(tmp_path / "elsewhere")
        for number in range(20):
            log.write(f"line {number:04}")
        assert list(read_run(runs(folder)[-1]))[-1] == "line 0019"
        shutil.rmtree(folder)
        log.write("two")
        assert list(read_run(runs(folder)[-1])) == ["two"]
        shutil.rmtree(folder)
        folder.touch()
        log.write("nowhere")
        folder.unlink()
        log.write("three")
        assert list(read_run(runs(folder)[-1])) == ["three"]


def test_what_utf_8_cannot_say_is_kept_as_json_says_it(tmp_path):
    """Half a character of UTF-16, which JSON may hold."""
    with KeptLog(tmp_path) as log:
        log.write('{"message":"\ud83d"}')
        assert list(read_run(runs(tmp_path)[0])) == [r'{"message":"\ud83d"}']


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
