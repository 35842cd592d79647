"""The model that is served first, as the settings ask for it."""

import pytest

from functions.llm.checkpoints.checkpoint import CheckpointError, read_config
from functions.llm.served_first import default_model
from functions.llm.settings import Settings


def test_only_the_first_model_is_bound_to_its_digest(checkpoints_folder, tmp_path, monkeypatch):
    """By whatever path it is found; those beside it are others, and have digests of their own."""
    monkeypatch.chdir(checkpoints_folder.parent)
    digest = read_config(checkpoints_folder / "tiny-char")["digest"]
    link = tmp_path / "link"
    link.symlink_to(checkpoints_folder / "tiny-char")
    for path in (checkpoints_folder / "tiny-char", checkpoints_folder.relative_to(tmp_path.parent) / "tiny-char", link):
        default = default_model(Settings(path, checkpoint_digest="0" * 64))
        with pytest.raises(CheckpointError, match=f"digest is {digest}, CHECKPOINT_DIGEST says 0+; the checkpoint was"):
            default.store.get()
    store = default_model(Settings(checkpoints_folder / "tiny-char", checkpoint_digest=digest)).store
    assert store.get().checkpoint.digest == digest
    assert store.get("tiny-byte").checkpoint.digest != digest
