"""Which library is used, and what is said of one that is not."""

import importlib.metadata
import shutil

import pytest

from functions.llm.models import LSTMConfig
from functions.llm.native import accelerated as accelerated_module
from functions.llm.native import build, library
from functions.llm.native.accelerated import accelerated
from functions.llm.native.build import LIBRARY
from functions.llm.native.library import KernelSettingError, KernelUnavailableError, load_kernel
from tests.llm.native.native_models import random_model


@pytest.fixture
def copy(built, tmp_path):
    """A copy of the library, which has not been loaded."""
    path = tmp_path / "kernel.so"
    shutil.copy(LIBRARY, path)
    return path


def test_without_a_library_models_are_left_to_xla(monkeypatch):
    """Everything works without one; it is only slower."""

    def unavailable():
        raise KernelUnavailableError("kernel.so is not there")

    monkeypatch.setattr(accelerated_module, "load_kernel", unavailable)
    assert accelerated(random_model(LSTMConfig(vocab_size=5, emb=4, hid=4, layers=1), "float32")) is None


def test_a_missing_library_is_said_to_be_missing(tmp_path):
    with pytest.raises(
        KernelUnavailableError, match=r"is not there; build it: python -m functions\.llm\.native\.build"
    ):
        load_kernel(tmp_path / "kernel.so", {})


def test_a_foreign_file_is_not_loaded(tmp_path):
    """What does not carry the digest is nothing of ours, and none of its code runs."""
    path = tmp_path / "kernel.so"
    path.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(KernelUnavailableError, match="not a library of this project"):
        load_kernel(path, {})


def test_a_library_of_other_sources_is_not_loaded(copy):
    """The layout of the weights is the sources' own affair: an older library would compute nonsense."""
    content = copy.read_bytes()
    at = content.index(b"huginn-kernel-digest:") + len(b"huginn-kernel-digest:")
    copy.write_bytes(content[:at] + b"0" * 64 + content[at + 64 :])
    with pytest.raises(KernelUnavailableError, match="made of other sources"):
        load_kernel(copy, {})


def no_sources(monkeypatch):
    monkeypatch.setattr(build, "SOURCES", build.SOURCES / "none")


def no_jaxlib(monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize("missing", [no_sources, no_jaxlib])
def test_a_library_without_its_sources_is_not_used(copy, monkeypatch, missing):
    """As in a package that left them out: XLA serves, rather than nobody."""
    missing(monkeypatch)
    with pytest.raises(KernelUnavailableError, match="cannot be compared with what it is made of"):
        load_kernel(copy, {})


def test_a_library_that_cannot_be_loaded_is_not_used(copy):
    """As one for another kind of machine."""
    copy.write_bytes(b"\x7fELX" + copy.read_bytes()[4:])
    with pytest.raises(KernelUnavailableError, match="cannot be loaded"):
        load_kernel(copy, {})


def test_settings_choose_set_and_threads(copy):
    """Copies are libraries of their own, with their own settings."""
    kernel = load_kernel(copy, {"HUGINN_ISA": "portable", "HUGINN_THREADS": "1"})
    assert (kernel.instruction_set, kernel.threads) == ("portable", 1)
    assert kernel.supported_sets[0] == "portable"


def test_by_itself_the_best_set_is_used(copy):
    kernel = load_kernel(copy, {})
    assert kernel.instruction_set == kernel.supported_sets[-1]
    assert 1 <= kernel.threads <= 2


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"HUGINN_ISA": "mmx"}, "HUGINN_ISA is 'mmx': there is no such set; possible are portable"),
        ({"HUGINN_THREADS": "many"}, "HUGINN_THREADS is 'many'; it must be a number from 1 to 2"),
        ({"HUGINN_THREADS": "3"}, "HUGINN_THREADS is 3; it must be from 1 to 2"),
    ],
)
def test_a_setting_that_means_nothing_is_named(copy, environ, message):
    """Instead of being ignored, or of stopping with SIGILL later."""
    with pytest.raises(KernelSettingError, match=message):
        load_kernel(copy, environ)


def test_a_set_that_this_cpu_lacks_is_refused(copy, monkeypatch):
    """A CPU without AVX-512 is not made to run it."""
    supported = property(lambda self: ("portable",))
    monkeypatch.setattr(library.Kernel, "supported_sets", supported)
    with pytest.raises(KernelSettingError, match=r"this CPU does not have it|there is no such set"):
        load_kernel(copy, {"HUGINN_ISA": "avx512"})
