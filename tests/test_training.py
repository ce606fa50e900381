"""Training: the loss, whole runs, interrupted runs, and runs that do not fit together."""

import math
import re
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from convrnn_utils import data, processes, runs, training
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.checkpoints import (
    load_model,
    read_file,
    save_model,
    trained_weights,
    write_file,
)
from convrnn_utils.data import CaptionDataset, Split
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.encoders import create_encoder
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import caption_loss, train

CAPTIONS = ["a red star", "a blue ring below a star", "two red rings", "a small blue star"]


class Interrupt(Exception):
    """Stands for the reader who stops the kernel."""


@pytest.fixture(scope="module")
def encoder():
    return create_encoder("small_cnn")


def make_dataset(name: str, seed: int, captions=CAPTIONS) -> CaptionDataset:
    random = numpy.random.RandomState(seed)
    ids = list(range(12))
    groups = [[captions[(i + k) % len(captions)] for k in range(3)] for i in ids]
    split = Split(name, ids, [], groups, [])
    features = random.random_sample((12, 384)).astype(numpy.float16)
    return CaptionDataset(split, features, Vocabulary.from_captions(sum(groups, []), 1))


def make_model(encoder, vocabulary) -> ConvRNN:
    torch.manual_seed(5)
    return ConvRNN(16, 24, len(vocabulary), dropout=0.3, cnn=encoder)


def run(encoder, folder, **changes):
    dataset, validation = make_dataset("train", 1), make_dataset("val", 2)
    model = make_model(encoder, dataset.vocabulary)
    settings = {"epochs": 3, "batch_size": 8, "patience": 9, "save_every": 0.0} | changes
    history = train(model, dataset, validation, folder, **settings)
    return model, history


def test_loss_by_hand():
    """Two words of three: -ln of what the softmax gives them; output 0 and padding are left out."""
    logits = torch.zeros(1, 4, 5)
    logits[0, 0, 4] = 100.0  # before <start> was read: must not matter
    logits[0, 1, 4] = math.log(6.0)  # p = 6 / (6 + 4) for the first word
    logits[0, 3, 0] = 100.0  # answers padding: must not matter
    captions = torch.tensor([[1, 4, 2, 0]])
    expected = (-math.log(0.6) - math.log(0.2)) / 2
    assert caption_loss(logits, captions).item() == pytest.approx(expected, rel=1e-6)
    assert caption_loss(logits[:, 1:], captions).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("mode", [True, False])
def test_an_interrupted_validation_leaves_the_mode_of_the_model(encoder, monkeypatch, mode):
    dataset = make_dataset("val", 2)
    model = make_model(encoder, dataset.vocabulary).train(mode)
    modes = []

    def interrupted(*_):
        modes.append(model.training)
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.validation_loss(model, dataset)
    assert modes == [False] and model.training is mode


def test_training_learns(encoder, tmp_path):
    _, history = run(encoder, tmp_path, epochs=15, learning_rate=2e-2)
    assert history[-1]["training_loss"] < 0.7 * history[0]["training_loss"]
    assert [entry["epoch"] for entry in history] == list(range(1, 16))


@pytest.mark.parametrize("stop_at", [1, 2, 5, 6, 9, 12, 14])
@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_interrupted_run_ends_as_an_undisturbed_one(
    encoder, tmp_path, monkeypatch, stop_at, averaging
):
    """Stopped within and between epochs, the run resumes and ends with the same weights."""
    whole, whole_history = run(encoder, tmp_path / "whole", averaging=averaging)
    steps = 0
    minimise = training._minimise

    def interrupted(*arguments):
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Interrupt
        return minimise(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_minimise", interrupted)
        with pytest.raises(Interrupt):
            run(encoder, tmp_path / "stopped", averaging=averaging)
    torch.manual_seed(99)  # whatever happened in between
    resumed, history = run(encoder, tmp_path / "stopped", averaging=averaging)

    last = [read_file(tmp_path / name / "run.safetensors")[0] for name in ("whole", "stopped")]
    assert last[0].keys() == last[1].keys()
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])
    expected = trained_weights(whole)
    assert all(torch.equal(weight, expected[k]) for k, weight in trained_weights(resumed).items())
    for entry in (*history, *whole_history):
        entry.pop("seconds")
    assert history == whole_history


def test_a_run_stopped_while_it_is_scored_ends_as_an_undisturbed_one(
    encoder, tmp_path, monkeypatch
):
    whole, whole_history = run(encoder, tmp_path / "whole")

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "cider_of_captions", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(encoder, tmp_path / "stopped")
    progress = read_file(tmp_path / "stopped" / "run.safetensors")[1]["progress"]
    assert progress["batch"] > 0 and progress["history"] == []  # all steps of the epoch are kept
    resumed, history = run(encoder, tmp_path / "stopped")
    expected = trained_weights(whole)
    assert all(torch.equal(weight, expected[k]) for k, weight in trained_weights(resumed).items())
    assert [entry["cider"] for entry in history] == [entry["cider"] for entry in whole_history]


@pytest.mark.parametrize("training_mode", [True, False])
def test_the_validation_loss_leaves_the_mode_of_the_model(encoder, training_mode):
    dataset = make_dataset("val", 2)
    model = make_model(encoder, dataset.vocabulary).train(training_mode)
    training.validation_loss(model, dataset)
    assert model.training == training_mode


def test_a_run_goes_on_only_with_the_same_items(encoder, tmp_path):
    dataset = make_dataset("train", 1)
    arguments = {"epochs": 1, "batch_size": 4}
    model = make_model(encoder, dataset.vocabulary)
    training.train(model, dataset, dataset, tmp_path, **arguments)
    pictures = data.PictureDataset(
        dataset.split, dataset.inputs, dataset.vocabulary, captions_each=3
    )
    with pytest.raises(ValueError, match="begun with items = .* of CaptionDataset"):
        training.train(model, pictures, dataset, tmp_path, **arguments)
    single = make_dataset("train", 1)
    single.pairs = single.pairs[:1]
    with pytest.raises(ValueError, match="too few captions"):
        training.train(model, single, dataset, tmp_path / "other", **arguments)


def test_interrupt_while_saving_leaves_the_last_save(encoder, tmp_path, monkeypatch):
    run(encoder, tmp_path, epochs=1)
    before = (tmp_path / "run.safetensors").read_bytes()

    def no_room(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("convrnn_utils.checkpoints.save_file", no_room)
    dataset = make_dataset("train", 1)
    with pytest.raises(OSError, match="No space left"):
        runs.save(
            runs.Run(
                folder=tmp_path,
                model=make_model(encoder, dataset.vocabulary),
                average={},
                optimizer=torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]),
                training=dataset,
                settings={},
            )
        )
    assert (tmp_path / "run.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors",
        "run-before.safetensors",
        "run.safetensors",
    ]


def test_finished_run_is_loaded(encoder, tmp_path, monkeypatch):
    first, history = run(encoder, tmp_path)
    monkeypatch.setattr(training, "_minimise", None)  # would fail if called
    second, again = run(encoder, tmp_path)
    assert again == history
    expected = trained_weights(first)
    assert all(torch.equal(weight, expected[k]) for k, weight in trained_weights(second).items())


def test_another_vocabulary_is_refused(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1)
    dataset, validation = make_dataset("train", 1), make_dataset("val", 2)
    dataset.vocabulary = Vocabulary(dataset.vocabulary.own_words[::-1])
    model = make_model(encoder, dataset.vocabulary)
    with pytest.raises(ValueError, match="another vocabulary: of its 9 words 9 are among the 9"):
        train(model, dataset, validation, tmp_path, epochs=1)


@pytest.mark.parametrize("changed", ["caption", "validation caption", "picture"])
def test_a_run_does_not_go_on_with_other_pictures_or_captions(encoder, tmp_path, changed):
    """Corrected captions of the same words would else give back the model of the old ones."""
    run(encoder, tmp_path, epochs=1)
    dataset, validation = make_dataset("train", 1), make_dataset("val", 2)
    split = validation.split if changed.startswith("validation") else dataset.split
    if changed == "picture":
        split.paths.append(Path("another.jpg"))
    else:
        split.captions[0].reverse()
    model = make_model(encoder, dataset.vocabulary)
    refusal = f"{tmp_path} holds a run with other pictures or captions"
    with pytest.raises(ValueError, match=re.escape(refusal)):
        train(model, dataset, validation, tmp_path, epochs=1)


def test_a_bar_goes_on_where_the_run_stood(encoder, tmp_path, monkeypatch):
    """Counted from 0, the time left would be far too short."""
    bars = []

    def bar(**options):
        bars.append(options)
        return tqdm(**options)

    monkeypatch.setattr(training, "tqdm", bar)
    minimise, steps = training._minimise, iter(range(100))

    def interrupted(*arguments):
        if next(steps) == 7:
            raise Interrupt
        return minimise(*arguments)

    monkeypatch.setattr(training, "_minimise", interrupted)
    with pytest.raises(Interrupt):
        run(encoder, tmp_path)
    run(encoder, tmp_path)
    assert [each["initial"] for each in bars] == [0, 7] and bars[0]["total"] == 15


def test_another_setting_is_refused(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1)
    with pytest.raises(
        ValueError, match="learning_rate = 0.001, and this run has learning_rate = 0.01"
    ):
        run(encoder, tmp_path, epochs=1, learning_rate=0.01)


def test_early_stopping_keeps_the_best_epoch(encoder, tmp_path, monkeypatch):
    scores = iter([10.0, 30.0, 20.0, 25.0, 29.0, 99.0])
    kept = []

    def scored(model, dataset):
        kept.append({name: weight.clone() for name, weight in trained_weights(model).items()})
        return next(scores)

    monkeypatch.setattr(training, "cider_of_captions", scored)
    model, history = run(encoder, tmp_path, epochs=20, patience=3)
    assert [entry["cider"] for entry in history] == [10.0, 30.0, 20.0, 25.0, 29.0]
    assert all(torch.equal(weight, kept[1][k]) for k, weight in trained_weights(model).items())


@pytest.mark.parametrize(
    "scores, best",
    [
        ([(10.0, 2.0), (30.0, 3.0), (20.0, 1.0)], 2),  # CIDEr decides
        ([(0.0, 2.0), (0.0, 1.5), (0.0, 1.7)], 2),  # then the loss
        ([(0.0, 1.0), (5.0, 2.0), (5.0, 1.9), (5.0, 1.9)], 3),  # then who is first
    ],
)
def test_the_best_epoch(scores, best):
    history = [
        {"epoch": number, "cider": cider, "validation_loss": loss}
        for number, (cider, loss) in enumerate(scores, start=1)
    ]
    assert training.best_epoch(history)["epoch"] == best


def test_checkpoint_brings_all_it_needs(encoder, tmp_path):
    """What is loaded writes as what was saved, from a picture, and knows its vocabulary."""
    model, history = run(encoder, tmp_path)
    loaded, vocabulary, facts = load_model(tmp_path / "best.safetensors")
    picture = encoder.preprocess(Image.new("RGB", (40, 30), "red")).unsqueeze(0)
    words = torch.tensor([[1, 4, 5]])
    assert torch.equal(loaded(picture, words), model(picture, words))
    assert vocabulary == make_dataset("train", 1).vocabulary
    assert facts["metrics"]["validation"] == training.best_epoch(history)


def test_a_checkpoint_for_another_encoder_is_refused(encoder, tmp_path):
    """A frozen encoder's weights are not in the file, so others must not take their place."""
    dataset = make_dataset("train", 1)
    model = make_model(create_encoder("small_cnn", weights=None), dataset.vocabulary)
    save_model(tmp_path / "random.safetensors", model, dataset.vocabulary)
    with pytest.raises(ValueError, match="another encoder: small_cnn is not the same here"):
        load_model(tmp_path / "random.safetensors")


def test_an_encoder_that_was_trained_along_is_in_the_checkpoint(tmp_path):
    dataset = make_dataset("train", 1)
    model = make_model(create_encoder("small_cnn", None, frozen=False), dataset.vocabulary)
    save_model(tmp_path / "whole.safetensors", model, dataset.vocabulary)
    loaded, _, _ = load_model(tmp_path / "whole.safetensors")
    expected = model.state_dict()
    assert all(torch.equal(weight, expected[k]) for k, weight in loaded.state_dict().items())


def test_a_file_to_resume_from_is_no_model(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1)
    with pytest.raises(ValueError, match="holds only a part of a model"):
        load_model(tmp_path / "run.safetensors")


def test_the_mean_of_the_weights_by_hand(encoder):
    """With a share of 0.5 and two steps: a quarter, a quarter and a half, once it is warm."""
    model = make_model(encoder, make_dataset("train", 1).vocabulary)
    weight = model.rnn_decoder.linear.weight
    average = training._copy_of_weights(model)
    for step, value in enumerate([8.0, 16.0], start=100):
        weight.data.fill_(value)
        training._update_average(average, model, 0.5, step)
    first = make_model(encoder, make_dataset("train", 1).vocabulary).rnn_decoder.linear.weight
    expected = first / 4 + 8 / 4 + 16 / 2
    assert torch.allclose(average["rnn_decoder.linear.weight"], expected)


def test_the_mean_is_what_is_scored_and_kept(encoder, tmp_path, monkeypatch):
    scored = []

    def score(model, dataset):
        scored.append(model.rnn_decoder.linear.weight.detach().clone())
        return float(len(scored))

    monkeypatch.setattr(training, "cider_of_captions", score)
    model, _ = run(encoder, tmp_path, averaging=0.9)
    assert torch.equal(model.rnn_decoder.linear.weight, scored[-1])
    last = read_file(tmp_path / "run.safetensors")[0]["model.rnn_decoder.linear.weight"]
    assert not torch.allclose(last, scored[-1], atol=1e-4)


def test_gradients_are_clipped(encoder, tmp_path):
    """With a tiny norm the first step of plain gradient descent is as short as asked."""
    dataset = make_dataset("train", 1)
    model = make_model(encoder, dataset.vocabulary)
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in parameters]
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    inputs, captions = dataset[[0, 1, 2]]
    loss = training.teacher_forcing_loss(model, inputs, captions)
    training._minimise(loss, optimizer, learning_rate=1.0, clip_norm=1e-3)
    moved = sum(((a - b) ** 2).sum() for a, b in zip(parameters, before, strict=True)) ** 0.5
    assert moved.item() == pytest.approx(1e-3, rel=1e-3)


class Waits(TorchDispatchMode):
    """Counts operations that read numbers back from a device, for which the CPU waits for a GPU.

    ``tolist`` and ``numpy`` are none of these; they are not operations.
    """

    WAIT = (
        "aten._local_scalar_dense",
        "aten.nonzero",
        "aten.equal",
        "aten.masked_select",
        "aten._unique",
        "aten.bincount",
        "aten.repeat_interleave.Tensor",
    )

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += str(function).startswith(self.WAIT)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("attends", [False, True])
def test_no_step_reads_a_number_back(encoder, tmp_path, monkeypatch, attends):
    """An epoch reads the mean loss, for the bar and at its end, however many steps it has."""

    def stop_after_the_steps(*arguments):
        raise Interrupt

    monkeypatch.setattr(training.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(training, "_finish_epoch", stop_after_the_steps)
    waited = []
    for batch_size in (12, 4):
        dataset = make_dataset("train", 1)
        dataset.inputs = dataset.inputs[:, None].repeat(64, axis=1) if attends else dataset.inputs
        kind = ShowAttendTell if attends else ConvRNN
        model = kind(16, 24, len(dataset.vocabulary), dropout=0.3, cnn=encoder)
        with Waits() as waits, pytest.raises(Interrupt):
            folder = tmp_path / str(batch_size)
            train(model, dataset, dataset, folder, epochs=1, batch_size=batch_size, averaging=0.9)
        waited.append(waits.count)
    of_three_steps, of_nine_steps = waited
    assert of_three_steps == of_nine_steps > 0


def test_features_in_a_gpus_memory_give_the_same_run(encoder, tmp_path, monkeypatch):
    """A CPU stands for the GPU."""
    _, expected = run(encoder, tmp_path / "file")
    moved, to_gpu = [], training.to_gpu

    def noted(inputs, where):
        moved.append(to_gpu(inputs, where))
        return moved[-1]

    monkeypatch.setattr(data, "_free_on_gpu", lambda where: 10**9)
    monkeypatch.setattr(training, "to_gpu", noted)
    _, history = run(encoder, tmp_path / "memory")
    assert [torch.is_tensor(inputs) for inputs in moved] == [True, True]
    for entry in (*history, *expected):
        entry.pop("seconds")
    assert history == expected
    run(encoder, tmp_path / "memory")
    assert len(moved) == 2, "a finished run moves nothing"


def test_the_fused_optimiser_has_the_losses_of_the_plain_one(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "has_bfloat16", lambda where: False)
    adamw, asked = torch.optim.AdamW, []

    def plain(*arguments, fused, **options):
        asked.append(fused)
        return adamw(*arguments, **options)

    _, fast = run(encoder, tmp_path / "fused", weight_decay=0.1)
    monkeypatch.setattr(torch.optim, "AdamW", plain)
    _, slow = run(encoder, tmp_path / "plain", weight_decay=0.1)
    assert asked == [True]
    for kind in ("training_loss", "validation_loss"):
        expected = [entry[kind] for entry in slow]
        assert [entry[kind] for entry in fast] == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_ones_own_is_minimised_and_a_run_with_another_is_refused(encoder, tmp_path):
    class ShortOutputBias:
        def __call__(self, model, inputs, captions):
            return (model.rnn_decoder.linear.bias**2).sum()

    model, history = run(encoder, tmp_path, loss=ShortOutputBias(), epochs=3)
    assert history[-1]["training_loss"] < 1e-3
    with pytest.raises(ValueError, match="begun with loss = ShortOutputBias"):
        run(encoder, tmp_path, epochs=3)


def test_blended_weights_lie_between_those_of_both(encoder, tmp_path):
    vocabulary = make_dataset("train", 1).vocabulary
    before, after = make_model(encoder, vocabulary), make_model(encoder, vocabulary)
    after.rnn_decoder.linear.weight.data.fill_(8.0)
    save_model(tmp_path / "before.safetensors", before, vocabulary)
    expected = before.rnn_decoder.linear.weight * 0.75 + 8.0 * 0.25
    training.blend(after, tmp_path / "before.safetensors", 0.25)
    assert torch.allclose(after.rnn_decoder.linear.weight, expected)


def test_the_learning_rate_falls_along_a_cosine_over_all_epochs(encoder, tmp_path, monkeypatch):
    rates, minimise = [], training._minimise

    def noted(loss, optimizer, learning_rate, clip_norm):
        rates.append(learning_rate)
        minimise(loss, optimizer, learning_rate, clip_norm)

    monkeypatch.setattr(training, "_minimise", noted)
    run(encoder, tmp_path, epochs=2, batch_size=12, learning_rate=0.01)  # 36 captions: 6 steps
    expected = [0.01 * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx(expected)


def test_runs_with_different_seeds_share_no_order_of_the_captions(encoder, tmp_path, monkeypatch):
    orders = []
    batch_indices = training.batch_indices

    def watched(*arguments):
        orders.append(str(batch_indices(*arguments)))
        return batch_indices(*arguments)

    monkeypatch.setattr(training, "batch_indices", watched)
    for seed in (0, 1, 2):
        run(encoder, tmp_path / str(seed), seed=seed)
    assert len(set(orders)) == 3 * 3  # seeds × epochs


def test_the_training_loss_is_the_mean_over_the_batches_of_the_epoch(encoder, tmp_path):
    def two(model, inputs, captions):
        return 2.0 + 0.0 * model.rnn_decoder.linear.bias.sum()

    _, history = run(encoder, tmp_path, loss=two, epochs=2)
    assert [entry["training_loss"] for entry in history] == [2.0, 2.0]
    assert all(0 < entry["seconds"] < 60 for entry in history)


def test_a_model_in_evaluation_mode_trains_with_dropout_all_the_same(encoder, tmp_path):
    modes = []

    def noted(model, inputs, captions):
        modes.append(model.rnn_decoder.dropout.training)
        return training.teacher_forcing_loss(model, inputs, captions)

    dataset = make_dataset("train", 1)
    model = make_model(encoder, dataset.vocabulary).eval()
    train(model, dataset, dataset, tmp_path, epochs=1, loss=noted)
    assert modes and all(modes) and not model.training


def test_a_checkpoint_in_the_place_of_a_save_is_no_run_to_go_on_with(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1)
    (tmp_path / "best.safetensors").replace(tmp_path / "run.safetensors")
    with pytest.raises(ValueError, match="is not a run that can be resumed; delete it"):
        run(encoder, tmp_path, epochs=1)


def test_a_run_without_its_best_model_says_what_to_do(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1)
    (tmp_path / "best.safetensors").unlink()
    with pytest.raises(ValueError, match=r"not its best\.safetensors; put that back, or delete"):
        run(encoder, tmp_path, epochs=1)


def test_a_model_of_another_width_is_refused_by_the_name_of_the_argument(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1)
    dataset = make_dataset("train", 1)
    wider = ConvRNN(16, 25, len(dataset.vocabulary), dropout=0.3, cnn=encoder)
    settings = {"epochs": 1, "batch_size": 8, "patience": 9}
    with pytest.raises(ValueError, match=r"with model\.arguments\.hidden_size = 24, and this run"):
        train(wider, dataset, dataset, tmp_path, **settings)


def test_features_kept_as_a_tensor_are_no_views(encoder, tmp_path, monkeypatch):
    """Before torch 2.13 a tensor had ``names``, as ``data.Views`` has."""
    monkeypatch.setattr(torch.Tensor, "names", (None, None), raising=False)
    dataset = make_dataset("train", 1)
    dataset.inputs = torch.tensor(dataset.inputs)
    model, settings = make_model(encoder, dataset.vocabulary), {"epochs": 1, "batch_size": 8}
    history = train(model, dataset, dataset, tmp_path, **settings)
    assert train(model, dataset, dataset, tmp_path, **settings) == history


def test_only_the_first_process_saves(encoder, tmp_path, monkeypatch):
    dataset = make_dataset("train", 1)
    model = make_model(encoder, dataset.vocabulary)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    monkeypatch.setattr(processes, "rank", lambda: 1)
    runs.save(runs.Run(tmp_path, model, {}, optimizer, dataset, {}))
    assert not list(tmp_path.iterdir())


def test_a_setting_that_the_save_does_not_know_is_another_setting(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1)
    tensors, content = read_file(tmp_path / runs.RUN)
    del content["settings"]["patience"]
    write_file(tmp_path / runs.RUN, tensors, content)
    with pytest.raises(ValueError, match="begun with patience = None, and this run has patience"):
        run(encoder, tmp_path, epochs=1)


def test_a_save_that_lacks_a_mean_is_refused_in_words(encoder, tmp_path):
    run(encoder, tmp_path, epochs=1, averaging=0.9)
    tensors, content = read_file(tmp_path / runs.RUN)
    del tensors["average.rnn_decoder.linear.bias"]
    write_file(tmp_path / runs.RUN, tensors, content)
    with pytest.raises(ValueError, match="rnn_decoder.linear.bias"):
        run(encoder, tmp_path, epochs=1, averaging=0.9)
