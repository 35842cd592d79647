"""Programs compiled ahead: used where they fit, and never where they do not."""

import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import pytest

from functions.llm.inference import executables
from functions.llm.inference.batch import generate
from functions.llm.inference.compile_ahead import compile_command, compile_environment, compile_set
from functions.llm.inference.cpu_features import cpu_features
from functions.llm.inference.executables import Manifest, find_executables, folder_of_sets
from functions.llm.inference.generation import Generation, GenerationRequest
from functions.llm.inference.programs import batch_sizes, program_functions
from functions.llm.inference.sampling import SamplingOptions
from functions.llm.inference.served_model import ServedModel

# One that is drawn, has its prompt read in pieces of both kinds, and the alternatives looked up.
ASKED = GenerationRequest("the raven " * 16, 40, SamplingOptions(temperature=0.9, top_p=0.9), seed=3, logprobs=2)


@pytest.fixture(scope="session")
def compiled(char_model, tmp_path_factory):
    """A cache with the programs of tiny-char for this machine."""
    folder = tmp_path_factory.mktemp("executables")
    # In a process of its own, as the command does: XLA does not write out a program that it has compiled before.
    subprocess.run(
        compile_command(char_model.checkpoint.path, folder, "native"),
        env=compile_environment("native", os.environ),
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture
def cache(compiled, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(compiled, tmp_path / "executables")


def the_set(cache, name="native"):
    (folder,) = cache.iterdir()
    return folder / name


def found(cache, served):
    model = served.programs.model
    return find_executables(model, program_functions(model), cache)


def another_set(cache, name, **fields):
    """A second set, which says something else of itself."""
    path = shutil.copytree(the_set(cache), the_set(cache, name))
    change(path, instruction_set=name, **fields)
    return path


def change(path, **fields):
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | fields))


def events(served):
    return [event for batch in generate(Generation(served, ASKED)) for event in batch]


def test_the_text_is_the_same_with_and_without(char_model, cache, monkeypatch):
    """Tokens and their log-probabilities, bit for bit, and nothing is left to the compiler."""
    served = ServedModel.of(char_model.checkpoint, cache)
    for name, function in program_functions(served.programs.model).items():
        assert served.programs._functions[name] is not function
    assert events(served) == events(char_model)


def test_programs_are_at_hand_at_once(char_model, cache):
    """Nobody waits for a warm-up: every batch can be decoded from the first request on."""
    ready = ServedModel.of(char_model.checkpoint, cache).programs
    assert ready.batch_sizes == batch_sizes(ready.model)
    assert list(ready.prepare()) == list(program_functions(ready.model))


def test_weights_do_not_matter_but_sizes_do(char_model, byte_model):
    """A model trained further finds the programs of the one before; one of another size does not."""
    model = char_model.checkpoint.model
    longer = type(model)(model.config, {name: array + 1 for name, array in model.params.items()})
    assert folder_of_sets(Path("x"), longer) == folder_of_sets(Path("x"), model)
    assert folder_of_sets(Path("x"), byte_model.checkpoint.model) != folder_of_sets(Path("x"), model)
    halves = type(model)(model.config, {name: array.astype("bfloat16") for name, array in model.params.items()})
    assert folder_of_sets(Path("x"), halves) != folder_of_sets(Path("x"), model)


def test_a_set_for_a_foreign_processor_is_not_chosen_and_a_lesser_one_is(char_model, cache, caplog):
    """A feature that this processor lacks would end the process in the middle of a word."""
    another_set(cache, "foreign", requires=["avx2", "avx1024f"])
    lesser = another_set(cache, "lesser", requires=["sse4.1"])
    shutil.rmtree(the_set(cache))
    assert {program._set.path for program in found(cache, char_model).values()} == {lesser}
    assert caplog.text == ""
    shutil.rmtree(lesser)
    assert found(cache, char_model) == {}
    assert "needs avx1024f, which this processor does not have" in caplog.text


def test_of_those_that_fit_the_one_that_asks_for_most_is_chosen(char_model, cache):
    """The wider the vectors, the better."""
    another_set(cache, "lesser", requires=["sse4.1"])
    assert {program._set.path.name for program in found(cache, char_model).values()} == {"native"}


@pytest.mark.parametrize("name", ["jax", "jaxlib", "python", "machine", "source"])
def test_a_set_made_with_something_else_is_not_used(char_model, cache, caplog, name):
    """Another compiler, another Huginn: the functions may have changed since."""
    manifest = Manifest.read(the_set(cache))
    change(the_set(cache), made_with={**manifest.made_with, name: "another"})
    with caplog.at_level(logging.INFO):
        assert found(cache, char_model) == {}
    assert f"was made with {name} another" in caplog.text


def test_every_source_of_the_programs_counts():
    """The list of sources names files that are there, the models and the sampler among them."""
    root = Path(executables.__file__).parents[1]
    names = {file.relative_to(root).as_posix() for pattern in executables.SOURCES for file in root.glob(pattern)}
    assert {
        "array_types.py",
        "inference/programs.py",
        "inference/sampling.py",
        "models/mingru.py",
        "ops/dense.py",
    } <= names


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


@pytest.mark.parametrize("content", [b"", b"nonsense", pickle.dumps(Bomb())])
def test_a_program_that_is_not_what_the_manifest_says_is_never_read_and_compiled_anew(
    char_model, cache, caplog, content
):
    """A file cut short, or changed: nothing in it is executed, and the text is the same."""
    (the_set(cache) / "decode-1.bin").write_bytes(content)
    assert events(ServedModel.of(char_model.checkpoint, cache)) == events(char_model)
    assert "decode-1.bin: SHA-256 is" in caplog.text


def test_a_set_with_a_missing_file_is_not_used(char_model, cache, caplog):
    """Programs of two compilations would round differently within one text; a lesser set, if whole, is better."""
    (the_set(cache) / "read-16.bin").unlink()
    assert found(cache, char_model) == {}
    assert "No such file" in caplog.text
    assert events(ServedModel.of(char_model.checkpoint, cache)) == events(char_model)


def test_a_whole_set_is_better_than_a_broken_one_that_asks_for_more(char_model, cache):
    """The second best is tried."""
    lesser = another_set(cache, "lesser", requires=["sse4.1"])
    (the_set(cache) / "read-16.bin").unlink()
    assert {program._set.path for program in found(cache, char_model).values()} == {lesser}


def test_a_set_replaced_under_a_server_is_still_its_own(char_model, cache):
    """All of it was read when it was chosen; what lies there later is for the next server."""
    served = ServedModel.of(char_model.checkpoint, cache)
    shutil.rmtree(the_set(cache))
    assert events(served) == events(char_model)
    executables_of = served.programs._functions.values()
    assert {program._set.broken for program in executables_of} == {False}
    assert any(program._loaded for program in executables_of)


def test_if_one_cannot_be_loaded_none_is_used(char_model, cache, caplog):
    """Nor those that were loaded before: all are compiled, by one compiler for one processor."""
    path, digest = the_set(cache), hashlib.sha256(b"nonsense").hexdigest()
    (path / "read-16.bin").write_bytes(b"nonsense")
    change(path, programs={**Manifest.read(path).programs, "read-16": digest})
    programs, functions = found(cache, char_model), program_functions(char_model.programs.model)
    assert programs["decode-1"].load() is not functions["decode-1"]
    assert programs["read-16"].load() is functions["read-16"]
    assert {name: program.load() for name, program in programs.items()} == functions
    assert "read-16 of" in caplog.text
    assert events(ServedModel.of(char_model.checkpoint, cache)) == events(char_model)


def test_elsewhere_than_on_a_cpu_no_set_is_used(char_model, cache, caplog, monkeypatch):
    """They are machine code for CPUs, and the arrays are on the GPU."""
    monkeypatch.setattr(executables.jax, "default_backend", lambda: "gpu")
    assert found(cache, char_model) == {}
    assert "they are for a CPU, and models run on gpu here" in caplog.text


def test_what_is_trusted_is_the_file_that_was_read(tmp_path, monkeypatch):
    """Not another that had its name a moment before."""
    path, foreign = tmp_path / "decode-1.bin", tmp_path / "foreign"
    path.touch(0o644)
    foreign.touch()
    foreign.chmod(0o666)
    real = Path.open

    def open_after_another_came(self, *args):
        foreign.replace(path)
        return real(self, *args)

    monkeypatch.setattr(Path, "open", open_after_another_came)
    with pytest.raises(executables.ExecutableError, match="others may write to it"):
        executables._content(path)


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "{}", '{"format": 2}', "null", '{"format": 1, "instruction_set": "x", "requires": 7}',
     '{"format": 1, "instruction_set": "x", "requires": [], "made_with": {}, "programs": {"../../x": "0"}}'],
)  # fmt: skip
def test_a_manifest_that_is_none_is_left_alone(char_model, cache, caplog, manifest):
    """With a warning, and never a crash."""
    (the_set(cache) / "manifest.json").write_text(manifest)
    assert found(cache, char_model) == {}
    assert "left alone" in caplog.text


@pytest.mark.parametrize("what", [".", "manifest.json", "decode-1.bin"])
def test_what_others_may_write_is_not_trusted(char_model, cache, caplog, what):
    """Compiled code runs as whoever serves."""
    (the_set(cache) / what).chmod(0o777)
    for program in found(cache, char_model).values():
        program.load()
    assert "others may write to it" in caplog.text


def test_a_new_set_replaces_the_old_one(char_model, cache, monkeypatch):
    """Whole, and nothing of either is left lying about."""
    model = char_model.programs.model
    before = (the_set(cache) / "manifest.json").stat().st_ino
    monkeypatch.setattr("functions.llm.inference.compile_ahead.program_specs", lambda model: {})
    monkeypatch.setattr("functions.llm.inference.compile_ahead.Manifest", Manifest)
    path = compile_set(model, cache, "native")
    assert path == the_set(cache)
    assert (path / "manifest.json").stat().st_ino != before
    assert [file.name for file in path.iterdir()] == ["manifest.json"]
    assert [file.name for file in path.parent.iterdir()] == ["native"]


def test_without_a_cache_there_is_nothing(char_model, tmp_path):
    """No folder, an empty one, a file."""
    assert found(None, char_model) == found(tmp_path, char_model) == found(tmp_path / "none", char_model) == {}


def test_the_native_set_is_one_that_this_processor_runs(compiled):
    """What the manifest says it needs is there."""
    assert Manifest.read(the_set(compiled)).requires <= cpu_features()


def test_a_set_that_lacks_a_program_is_not_used(char_model, cache, caplog):
    """It would be compiled beside the others, perhaps for another instruction set."""
    manifest = Manifest.read(the_set(cache))
    change(the_set(cache), programs={k: v for k, v in manifest.programs.items() if k != "decode-16"})
    assert found(cache, char_model) == {}
    assert "there is no program decode-16 in it" in caplog.text
    assert events(ServedModel.of(char_model.checkpoint, cache)) == events(char_model)
