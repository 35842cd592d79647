"""Checkpoints by name: what is there, nothing else, a few in memory."""

import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from functions.llm.checkpoints.checkpoint import CheckpointError, load_checkpoint
from functions.llm.inference.errors import ModelNotFoundError
from functions.llm.inference.model_store import ModelStore, checkpoint_names, describe_checkpoint
from functions.llm.inference.warm_up import DefaultModel


class Watcher:
    def __init__(self):
        self.heard = []

    def model_loaded(self, checkpoint):
        self.heard.append(("loaded", checkpoint.name))

    def model_dropped(self, name):
        self.heard.append(("dropped", name))


@pytest.fixture
def folder(checkpoints_folder, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(checkpoints_folder, tmp_path / "ckpts")


def test_descriptions_agree_with_what_is_loaded(folder):
    """Family, sizes and digest are read without the weights, and are theirs."""
    for description in ModelStore(folder / "tiny-char").descriptions():
        checkpoint = load_checkpoint(folder / description.name)
        assert description.family == checkpoint.model.config.family
        assert description.vocab_size == checkpoint.tokenizer.vocab_size
        assert description.tokenizer == checkpoint.tokenizer.kind
        assert description.parameters == sum(array.size for array in checkpoint.model.params.values())
        assert (description.size_bytes, description.digest) == (checkpoint.size_bytes, checkpoint.digest)
    assert checkpoint_names(folder) == ("tiny-byte", "tiny-char")


def test_hidden_and_other_folders_are_no_models(folder):
    """Neither a checkpoint in the making nor a folder of something else is listed."""
    (folder / ".tiny-new-x").mkdir()
    (folder / ".tiny-new-x" / "config.json").write_text("{}")
    (folder / "notes").mkdir()
    assert checkpoint_names(folder) == ("tiny-byte", "tiny-char")
    assert checkpoint_names(folder / "nowhere") == ()


def test_a_broken_folder_is_left_out_of_the_list(folder):
    """Its neighbours are served."""
    (folder / "tiny-byte" / "config.json").write_text("{}")
    assert [description.name for description in ModelStore(folder / "tiny-char").descriptions()] == ["tiny-char"]
    with pytest.raises(CheckpointError, match="format is None"):
        describe_checkpoint(folder / "tiny-byte")
    (folder / "tiny-char" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        describe_checkpoint(folder / "tiny-char")


def test_the_default_answers_for_no_name_and_for_its_own(folder):
    """And it is loaded once."""
    store = ModelStore(folder / "tiny-char")
    assert store.loaded() is None
    assert store.get() is store.get("tiny-char") is store.loaded()
    assert store.default_name == "tiny-char"


@pytest.mark.parametrize(
    "name", ["ghost", "", ".", "..", "../ckpts/tiny-byte", "tiny-byte/", "/etc", "tiny-byte\0", "TINY-BYTE", "*"]
)
def test_only_the_plain_names_of_folders_are_models(folder, name):
    """No name leads out of the folder, or to a second name for what is in it."""
    store = ModelStore(folder / "tiny-char")
    store.get()
    with pytest.raises(ModelNotFoundError, match="The models here: tiny-byte, tiny-char"):
        store.get(name)


def test_the_ones_used_last_stay(folder):
    """With room for two, the third drops the one used longest ago."""
    shutil.copytree(folder / "tiny-byte", folder / "third")
    watcher = Watcher()
    store = ModelStore(folder / "tiny-char", max_loaded=2, observer=watcher)
    store.get("tiny-char")
    store.get("tiny-byte")
    store.get("tiny-char")
    store.get("third")
    assert watcher.heard == [
        ("loaded", "tiny-char"), ("loaded", "tiny-byte"), ("loaded", "third"), ("dropped", "tiny-byte")
    ]  # fmt: skip
    assert store.loaded("tiny-byte") is None
    assert store.loaded("tiny-char") is not None


def test_two_that_ask_at_once_load_it_once(folder):
    """The second waits for the first."""
    loads = []

    def slow(path):
        loads.append(path)
        time.sleep(0.1)
        return load_checkpoint(path)

    store, got = ModelStore(folder / "tiny-char", load=slow), []
    threads = [threading.Thread(target=lambda: got.append(store.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert got[0] is got[1] is got[2]


def test_a_model_that_appears_later_is_served(folder):
    """Training beside a running service needs no restart."""
    store = ModelStore(folder / "later")
    with pytest.raises(CheckpointError, match="later"):
        store.get()
    shutil.copytree(folder / "tiny-char", folder / "later")
    assert store.get().name == "later"


def test_warming_up_ends_in_ready_or_in_a_reason(folder):
    """A failure is kept for whoever asks, and the next attempt may succeed."""
    default = DefaultModel(ModelStore(folder / "later"))
    assert not default.ready
    default.begin()
    default.join(60)
    assert not default.ready
    assert "later: no such folder" in default.failure
    shutil.copytree(folder / "tiny-char", folder / "later")
    default.begin()
    default.begin()
    default.join(60)
    assert default.ready
    assert default.failure is None


@pytest.fixture
def unread(monkeypatch):
    """As if the tiny weights were too large to be read while somebody waits."""
    monkeypatch.setattr("functions.llm.checkpoints.checkpoint.VERIFIED_AT_ONCE_BYTES", 0)


def change_a_weight(folder):
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.usefixtures("unread")
def test_large_weights_are_served_before_they_are_read_and_only_until_they_prove_wrong(folder, caplog):
    """The log says why, nobody gets the model from then on, and a whole copy is served again."""
    watcher = Watcher()
    store = ModelStore(folder / "tiny-char", observer=watcher)
    change_a_weight(folder / "tiny-char")
    store.get()
    wait_for(lambda: store.damage() is not None)
    wait_for(lambda: len(watcher.heard) == 2)
    assert watcher.heard == [("loaded", "tiny-char"), ("dropped", "tiny-char")]
    assert store.loaded() is None
    assert "tiny-char is served no more" in caplog.text
    assert "the file was changed or cut short" in caplog.text
    for _ in range(2):
        with pytest.raises(CheckpointError, match="the file was changed or cut short"):
            store.get()
    change_a_weight(folder / "tiny-char")
    assert store.get().checkpoint.verified
    assert store.damage() is None


@pytest.mark.usefixtures("unread")
def test_a_model_whose_weights_prove_wrong_is_ready_no_more(folder):
    """And ready again once they are right."""
    change_a_weight(folder / "tiny-char")
    store = ModelStore(folder / "tiny-char")
    default = DefaultModel(store)
    default.begin()
    wait_for(lambda: store.damage() is not None)
    assert not default.ready
    assert "the file was changed or cut short" in default.failure
    default.join(60)
    default.begin()
    default.join(60)
    assert not default.ready
    change_a_weight(folder / "tiny-char")
    default.begin()
    default.join(60)
    assert default.ready
    assert default.failure is None


@pytest.mark.usefixtures("unread")
def test_right_weights_are_read_in_the_background_and_stay(folder):
    store = ModelStore(folder / "tiny-char")
    model = store.get()
    wait_for(lambda: model.checkpoint.verified)
    assert store.get() is model
    assert store.damage() is None


def test_who_looks_later_hears_of_what_is_there(folder):
    """The first model may be loaded before anybody counts."""
    store, watcher = ModelStore(folder / "tiny-char", max_loaded=1), Watcher()
    store.get()
    store.observe(watcher)
    store.get("tiny-byte")
    assert watcher.heard == [("loaded", "tiny-char"), ("loaded", "tiny-byte"), ("dropped", "tiny-char")]


class Steps:
    """Programs of three, at hand or not, that remember what was prepared."""

    def __init__(self, at_hand):
        self.at_hand = at_hand
        self.prepared = []

    def prepare(self):
        for name in ("first", "second", "third", "fourth"):
            self.prepared.append(name)
            yield name


@pytest.mark.parametrize("at_hand", [True, False])
def test_an_early_beginning_ends_with_the_first_program(monkeypatch, at_hand):
    """The rest waits until the imports are done; the model is ready then, or at once if all is at hand."""
    monkeypatch.setattr("functions.llm.inference.warm_up.PEACE_S", 0.0)
    programs = Steps(at_hand)
    store = SimpleNamespace(default_name="x", damage=lambda: None, get=lambda: SimpleNamespace(programs=programs))
    default = DefaultModel(store)
    default.begin_early()
    wait_for(lambda: programs.prepared and default.ready is at_hand)
    default.join(0.2)  # or it would go on meanwhile
    assert programs.prepared == ["first"]
    assert default.ready is at_hand
    default.begin()
    default.join(10)
    assert programs.prepared == ["first", "second", "third", "fourth"]
    assert default.ready


def test_what_waits_for_the_rest_is_ended_too():
    """A process that only imported the app ends as quickly as any."""
    programs = Steps(at_hand=False)
    store = SimpleNamespace(default_name="x", damage=lambda: None, get=lambda: SimpleNamespace(programs=programs))
    default = DefaultModel(store)
    default.begin_early()
    default.stop(10)
    assert not default._thread.is_alive()
    assert programs.prepared == ["first"]
