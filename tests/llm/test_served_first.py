"""The model that is served first, as the settings ask for it."""

import os

import pytest

from functions.llm.checkpoints.checkpoint import CheckpointError, read_config
from functions.llm.checkpoints.s3_address import S3Address
from functions.llm.served_first import default_model, expect_checkpoint
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


def test_a_folder_without_a_checkpoint_is_refused_at_once(checkpoints_folder):
    """A misspelt name, a folder of folders, a file: with what there is beside it that could be meant."""
    for path in ("tiny-cahr", "tiny-char/model.safetensors", "."):
        with pytest.raises(CheckpointError, match=r"CKPT_PATH is .*config\.json cannot be read .*`docker compose` has"):
            expect_checkpoint(Settings(checkpoints_folder / path))
    with pytest.raises(CheckpointError, match=r"tiny-cahr/config\.json .* beside it: .*tiny-char"):
        expect_checkpoint(Settings(checkpoints_folder / "tiny-cahr"))
    expect_checkpoint(Settings(checkpoints_folder / "tiny-char"))


def test_a_folder_that_may_not_be_read_is_another_matter(tmp_path):
    """After a clone under `umask 077` the containers are not its owner."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match=r"config\.json cannot be read \(Permission denied\).*chmod -R a\+rX"):
            expect_checkpoint(Settings(closed))
    finally:
        os.seteuid(mine)


def test_what_may_still_come_is_waited_for(tmp_path):
    """A bucket may be filled later, and a Lambda's function is there before its model."""
    expect_checkpoint(Settings(S3Address("huginn-ckpts", "mine"), ckpt_cache=tmp_path))
    expect_checkpoint(Settings(tmp_path / "later", lambda_name="llm"))
