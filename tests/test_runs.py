"""Runs on machines that are not the author's: interrupted, without memory, home or permission, in
folders of odd names, with workers of the other kind; and what a seed fixes."""

import hashlib
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import numpy
import pytest
import torch

from convrnn_utils import data, env, runs, training
from convrnn_utils.data import CaptionDataset, Pictures
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.decoding import greedy, sample
from convrnn_utils.encoders import create_encoder
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def dataset(small_split, tiny_encoder):
    vocabulary = Vocabulary.from_captions([c for own in small_split.captions for c in own], 1)
    return CaptionDataset(small_split, Pictures(small_split, tiny_encoder), vocabulary)


def small_model(dataset, encoder):
    torch.manual_seed(1)
    return ConvRNN(6, 8, len(dataset.vocabulary), dropout=0.2, cnn=encoder)


def run(dataset, encoder, folder, **changes):
    model = small_model(dataset, encoder)
    settings = {"epochs": 3, "batch_size": 4, "patience": 9} | changes
    history = train(model, dataset, dataset, folder, **settings)
    return model, history


# ---------------------------------------------------------------- interrupted, or out of memory


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_a_run_that_goes_on_does_not_look_into_its_file(dataset, tiny_encoder, tmp_path):
    """Windows could not replace it."""
    run(dataset, tiny_encoder, tmp_path, epochs=1)
    model = small_model(dataset, tiny_encoder)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    going_on = runs.Run(tmp_path, model, {}, optimizer, dataset, {})
    runs.resume(going_on)
    assert going_on.history and optimizer.state_dict()["state"]
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def before_step(patch, number, act):
    """Have ``act`` called in the step of that number, before it; gives a list with all steps."""
    minimise, steps = training._minimise, []

    def counted(*arguments):
        steps.append(len(steps) + 1)
        if steps[-1] == number:
            act()
        return minimise(*arguments)

    patch.setattr(training, "_minimise", counted)
    return steps


def test_an_interrupt_stops_between_two_steps_and_saves(
    dataset, tiny_encoder, tmp_path, monkeypatch, fault
):
    """A real SIGINT, in the middle of a step; then the run goes on, and ends as if undisturbed."""
    whole, _ = run(dataset, tiny_encoder, tmp_path / "whole")

    def interrupt():
        fault("runs")
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        steps = before_step(patch, 6, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(dataset, tiny_encoder, tmp_path / "stopped")
    assert len(steps) == 6
    _, content = training.read_file(tmp_path / "stopped" / runs.RUN)
    assert (content["progress"]["epoch"], content["progress"]["batch"]) == (1, 2)
    resumed, _ = run(dataset, tiny_encoder, tmp_path / "stopped")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name])


def test_a_run_that_trains_its_encoder_goes_on_as_if_undisturbed(
    dataset, small_split, tmp_path, monkeypatch
):
    """The encoder's kernels lie channels last in memory, but not so in a file."""
    monkeypatch.setattr(training, "has_bfloat16", lambda where: False)
    ends = {}
    for name, stop in (("whole", None), ("stopped", 3), ("stopped", None)):
        encoder = create_encoder("small_cnn", frozen=False)
        pairs = CaptionDataset(small_split, Pictures(small_split, encoder), dataset.vocabulary)
        with monkeypatch.context() as patch:
            before_step(patch, stop, partial(signal.raise_signal, signal.SIGINT))
            with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
                ends[name], _ = run(pairs, encoder, tmp_path / name, epochs=1)
    kernel = ends["whole"].cnn_encoder.cnn.network[0][0].weight
    assert not kernel.is_contiguous()
    for name, weight in ends["whole"].state_dict().items():
        torch.testing.assert_close(ends["stopped"].state_dict()[name], weight)


def test_an_interrupt_while_scoring_leaves_a_model_that_can_be_used(
    dataset, tiny_encoder, tmp_path, monkeypatch, fault
):
    def interrupted(*_):
        raise KeyboardInterrupt

    fault("runs")
    model = small_model(dataset, tiny_encoder)
    settings = {"epochs": 2, "batch_size": 4, "averaging": 0.9, "save_every": 0.0}
    with monkeypatch.context() as patch:
        patch.setattr(training, "cider_of_captions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(model, dataset, dataset, tmp_path, **settings)
    saved, _ = training.read_file(tmp_path / runs.RUN)
    for name, weight in training.trained_weights(model).items():  # not the mean of the scoring
        assert torch.equal(weight, saved[f"model.{name}"])
    assert len(train(model, dataset, dataset, tmp_path, **settings)) == 2


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried", "MPS backend out of memory"])
def test_out_of_memory_gives_advice_and_keeps_the_checkpoint(
    dataset, tiny_encoder, tmp_path, monkeypatch, message, fault
):
    def too_much():
        fault("runs")
        raise RuntimeError(message)

    with monkeypatch.context() as patch:
        before_step(patch, 3, too_much)
        with pytest.raises(torch.OutOfMemoryError, match="batch of 4: train with batch_size=2"):
            run(dataset, tiny_encoder, tmp_path / "run", save_every=0.0)
    _, content = training.read_file(tmp_path / "run" / runs.RUN)
    assert content["progress"]["batch"] == 2
    _, history = run(dataset, tiny_encoder, tmp_path / "run", save_every=0.0)
    assert len(history) == 3
    run(dataset, tiny_encoder, tmp_path / "smaller", batch_size=2)


# ---------------------------------------------------------------- devices


def test_without_cuda_and_mps_it_is_the_cpu(monkeypatch, fault):
    fault("runs")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.delenv("CONVRNN_PROFILE", raising=False)
    assert env.device().type == "cpu" and env.profile() == "laptop"
    assert "device cpu" in env.describe()


def test_a_device_without_bfloat16_trains_in_float32(
    dataset, tiny_encoder, tmp_path, monkeypatch, fault
):
    fault("runs")
    seen = []
    autocast = torch.autocast

    def noted(*arguments, enabled):
        seen.append(enabled)
        return autocast(*arguments, enabled=enabled)

    monkeypatch.setattr(torch, "autocast", noted)
    monkeypatch.setattr(training, "has_bfloat16", lambda where: False)
    run(dataset, tiny_encoder, tmp_path, epochs=1)
    assert seen and not any(seen)
    assert not env.has_bfloat16(torch.device("mps"))


# ---------------------------------------------------------------- workers


def test_what_workers_are_sent_can_be_pickled(dataset, small_split, tiny_encoder, fault):
    for view in data.VIEWS:
        fault("runs")
        pickle.loads(pickle.dumps(data.VIEWS[view]))
    assert len(pickle.loads(pickle.dumps(dataset.pairs))) == len(dataset)


def test_workers_that_are_spawned_do_not_hang(small_split, fault):
    """As on Windows and macOS, where a worker is a new Python that is sent the data set."""
    from convrnn_utils.encoders import create_encoder

    fault("runs")
    inputs = Pictures(small_split, create_encoder("small_cnn"), view="mirrored")
    dataset = CaptionDataset(small_split, inputs, Vocabulary(["noise"]))
    batches = data.batch_indices(dataset, 4, seed=0)
    loader = torch.utils.data.DataLoader(
        dataset,
        sampler=batches,
        batch_size=None,
        num_workers=1,
        multiprocessing_context=multiprocessing.get_context("spawn"),
        timeout=300,
    )
    for indices, (pictures, captions) in zip(batches, loader, strict=True):
        expected = dataset[indices]
        assert torch.equal(pictures, expected[0]) and torch.equal(captions, expected[1])


# ---------------------------------------------------------------- folders

CAPTION = """
import sys
from convrnn_utils import data
from convrnn_utils.__main__ import main
split = data.load_split(data.scenes(4, 2, 3), "train")
main(["caption", str(split.paths[0]), "--beam", "1", "--attention", sys.argv[1]])
"""


@pytest.fixture(scope="module")
def odd_place(tmp_path_factory):
    """The course in a folder with spaces, quotes and Chinese characters."""
    place = tmp_path_factory.mktemp("it's a place") / "卷积 循环 网络"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "convrnn_utils", place / "convrnn_utils", ignore=ignored)
    for name in ("captioner", "small_cnn"):
        shutil.copytree(ROOT / "data" / name, place / "data" / name)
    shutil.copy(ROOT / "requirements.txt", place)
    return place


def python(place, code, *arguments, **changes):
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP") if name in os.environ}
    environment = kept | {"PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"} | changes
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=500,
        cwd=place,
    )


def test_an_odd_path_and_no_home_directory(odd_place, fault):
    fault("runs", 2)
    looks = odd_place / "where it looked"
    done = python(odd_place, CAPTION, looks, HOME="/nonexistent", PYTHONUTF8="1")
    assert done.returncode == 0, done.stderr
    assert "卷积 循环 网络" in done.stdout and ".png: " in done.stdout
    assert len(list(looks.iterdir())) == 1
    assert (odd_place / "data" / "scenes-4-2-3" / "captions_val.json").exists()


READ_ONLY = """
import os, sys
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
from convrnn_utils import data
print(len(data.load_split(data.scenes(4, 2, 3), "train")))
data.scenes(5, 2, 3)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions are others on Windows")
def test_a_read_only_data_folder_is_read_and_not_written_to(odd_place, tmp_path, fault):
    fault("runs")
    made = python(odd_place, "from convrnn_utils import data; data.scenes(4, 2, 3)")
    assert made.returncode == 0, made.stderr
    folders = [path for path in (odd_place / "data").rglob("*") if path.is_dir()]
    before = sorted((odd_place / "data").rglob("*"))
    for folder in (odd_place.parent.parent, odd_place.parent, odd_place):
        folder.chmod(0o755)
    for folder in (odd_place / "data", *folders):
        folder.chmod(0o555)
    try:
        done = python(odd_place, READ_ONLY)
    finally:
        for folder in (odd_place / "data", *folders):
            folder.chmod(0o755)
    if "No module named" in done.stderr or "Permission denied: '/" in done.stderr:
        pytest.skip("another user cannot read this Python")
    assert done.stdout.split() == ["4"]
    last = done.stderr.strip().splitlines()[-1]
    assert "PermissionError: nothing can be written to" in last
    assert "set CONVRNN_DATA to a folder of your own" in last
    assert sorted((odd_place / "data").rglob("*")) == before


def test_a_folder_that_refuses_is_named_with_a_way_out(data_home, monkeypatch, fault):
    """As above, where this Python may do everything: the system's answer is made up."""
    fault("runs", 2)
    drawn = data.scenes(4, 2, 3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
        assert data.scenes(4, 2, 3) == drawn
        with pytest.raises(PermissionError, match="nothing can be written to .*set CONVRNN_DATA"):
            data.scenes(6, 2, 3)
        with pytest.raises(PermissionError, match="nothing can be written to .*set CONVRNN_DATA"):
            Vocabulary(["dog"]).save(data_home / "words.json")
        with pytest.raises(PermissionError, match="nothing can be written to .*set CONVRNN_DATA"):
            data.cached_features(data.load_split(drawn, "val"), create_encoder("small_cnn"))
    there = {path.name for path in data_home.iterdir() if path.suffix != ".lock"}
    assert there == {drawn.name, "features"} and not list((data_home / "features").iterdir())


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path, monkeypatch, fault):
    fault("runs", 2)
    (tmp_path / "data").write_text("not a folder")
    for name in ("data", "data/inside"):
        monkeypatch.setenv("CONVRNN_DATA", str(tmp_path / name))
        with pytest.raises(NotADirectoryError, match="a file is in the way of .*CONVRNN_DATA"):
            data.scenes(4, 2, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# ---------------------------------------------------------------- what a seed fixes


def digest(*parts) -> str:
    sums = hashlib.sha256()
    for part in parts:
        sums.update(part if isinstance(part, bytes) else numpy.asarray(part).tobytes())
    return sums.hexdigest()


def everything(folder, encoder, seed):
    """Sums of the scenes, the batches, the weights and the captions of one seed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONVRNN_DATA", str(folder))
            drawn = data.scenes(6, 2, seed)
            split = data.load_split(drawn, "train")
            vocabulary = Vocabulary.from_captions([c for own in split.captions for c in own], 1)
            dataset = CaptionDataset(split, Pictures(split, encoder), vocabulary)
            env.seed_everything(seed)
            model = ConvRNN(6, 8, len(vocabulary), dropout=0.2, cnn=encoder)
            settings = {"epochs": 2, "batch_size": 8, "seed": seed}
            train(model, dataset, dataset, folder / "run", **settings)
            pictures = dataset.inputs[range(4)]
            env.seed_everything(seed)
            return {
                "scenes": digest(
                    *(path.read_bytes() for path in sorted(drawn.rglob("*.*")) if path.is_file())
                ),
                "batches": str(data.batch_indices(dataset, 8, seed)),
                "weights": digest(*training.trained_weights(model).values()),
                "greedy captions": greedy(model, pictures).tolist(),
                "sampled captions": sample(model, pictures).tolist(),
            }
    finally:
        torch.set_num_threads(threads)


def test_a_seed_fixes_scenes_batches_weights_and_captions(tmp_path, tiny_encoder):
    first = everything(tmp_path / "first", tiny_encoder, seed=3)
    assert everything(tmp_path / "second", tiny_encoder, seed=3) == first
    other = everything(tmp_path / "third", tiny_encoder, seed=4)
    for name in ("scenes", "batches", "weights"):
        assert other[name] != first[name]
