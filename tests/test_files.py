"""Files are written whole or not at all, and by one process at a time."""

import subprocess
import sys

import pytest

from hf_talking_points.files import only_writer, whole_file


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    place = tmp_path / "report.json"
    place.write_text("old")
    with whole_file(place) as file:
        file.write_text("new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_file_stays_where_the_new_one_fails(tmp_path):
    place = tmp_path / "report.json"
    place.write_text("old")
    with pytest.raises(OSError, match=r"No space left.*report\.json"):
        with whole_file(place) as file:
            file.write_text("ne")
            raise OSError(28, "No space left on device")
    with pytest.raises(KeyError):
        with whole_file(place) as file:
            file.write_text("ne")
            raise KeyError
    assert place.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "there").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "there" / "file.txt")
    with whole_file(link) as file:
        file.write_text("new")
    assert link.is_symlink()
    assert (tmp_path / "there" / "file.txt").read_text() == "new"


HOLDER = """
import sys
from hf_talking_points.files import only_writer
with only_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def hold():
    """Starts a process that keeps a place until it is ended."""
    processes = []

    def start(place):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", ["answers.jsonl", "."])
def test_another_writer_is_refused_and_named(tmp_path, hold, name):
    place = tmp_path / name
    process = hold(place)
    with pytest.raises(BlockingIOError, match=f"by process {process.pid} on"):
        with only_writer(place):
            pass
    process.communicate("")
    with only_writer(place):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_was_killed_keeps_nothing(tmp_path, hold):
    process = hold(tmp_path)
    process.kill()
    process.wait()
    with only_writer(tmp_path):
        pass
