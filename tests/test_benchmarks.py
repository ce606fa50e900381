"""The benchmarks: what they compare computes what it should."""

import gc
import importlib.util
import math

import numpy
import pytest
import torch
from torch import nn

from convrnn_utils.data import CaptionDataset, Split
from convrnn_utils.decoding import beam_search, greedy
from convrnn_utils.env import device, repository
from convrnn_utils.text import END, PAD, START, UNKNOWN, Vocabulary


def load_benchmark(name):
    """A file of benchmarks/, which is not a package, as a module."""
    path = repository() / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tutorial = load_benchmark("attention_tutorial")


def make_dataset(pictures=12, places=4, dim=6):
    """Pictures whose features tell which of four captions is theirs."""
    captions = ["a red star", "a blue ring below a star", "two red rings", "a small blue star"]
    generator = numpy.random.RandomState(0)
    kinds = generator.randn(len(captions), places, dim)
    features = kinds[numpy.arange(pictures) % len(captions)].astype(numpy.float16)
    groups = [[captions[i % len(captions)]] * 2 for i in range(pictures)]
    split = Split("four", list(range(pictures)), [], groups, [])
    return CaptionDataset(split, features, Vocabulary.from_captions(sum(groups, []), 1))


def make_model(dataset, kind=None, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    kind = kind or tutorial.TutorialDecoder
    model = kind(len(dataset.vocabulary), feature_size=6, size=16, dropout=dropout)
    return model.to(device())


def test_fast_and_as_written_agree_in_loss_and_gradients():
    """Projection in the loop or once, products step by step or together: the same to 1e-5."""
    dataset = make_dataset()
    batch = tutorial.read_batch(dataset, list(range(0, 24, 3)))
    results = []
    for kind in (tutorial.TutorialDecoder, tutorial.AsWritten):
        model = make_model(dataset, kind)
        logits, looked = model(*batch)
        loss = tutorial.tutorial_loss(logits, looked, *batch[1:])
        loss.backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters()}
        results.append({"logits": logits, "looked": looked, "loss": loss} | gradients)
    fast, written = results
    assert len(set(batch[2])) > 1 and all(weight.abs().sum() > 0 for weight in written.values())
    for name, value in written.items():
        torch.testing.assert_close(fast[name], value, rtol=0, atol=1e-5, msg=name)


def test_a_step_leaves_no_memory_behind():
    dataset = make_dataset()
    model = make_model(dataset)
    optimizer = torch.optim.Adam(model.parameters())
    batch = tutorial.read_batch(dataset, list(range(12)))
    counts = []
    for _ in range(4):
        tutorial.train_step(model, optimizer, batch)
        gc.collect()
        counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert counts[1] == counts[2] == counts[3]


def test_steps_give_what_teacher_forcing_gives():
    dataset = make_dataset()
    features, captions, lengths = tutorial.read_batch(dataset, [2])
    for kind in (tutorial.TutorialDecoder, tutorial.AsWritten):
        model = make_model(dataset, kind)
        logits, looked = model(features, captions, lengths)
        state, total = model.start(features), 0
        for t in range(lengths[0]):
            scores, state, weights = model.step(captions[:, t], state)
            torch.testing.assert_close(scores[0], logits[t], rtol=0, atol=1e-5)
            total = total + weights
        torch.testing.assert_close(looked, total, rtol=0, atol=1e-5)
        assert len(state) == (3 if kind is tutorial.AsWritten else 4)


def test_loss_by_hand():
    """Equal scores cost ln V a word; the penalty is a mean over captions and places."""
    captions = torch.tensor([[START, 5, 6, END], [START, 4, END, PAD]])
    looked = torch.tensor([[2.0, 1.0], [0.5, 1.0]])
    loss = tutorial.tutorial_loss(torch.zeros(5, 7), looked, captions, [3, 2])
    assert loss.item() == pytest.approx(math.log(7) + (1 + 0 + 0.25 + 0) / 4)


def test_an_epoch_holds_every_pair_once_and_the_longest_of_a_batch_first(monkeypatch):
    monkeypatch.setattr(tutorial, "BATCH_SIZE", 5)
    dataset = make_dataset()
    seen = []
    for _, captions, lengths in tutorial.batches(dataset, seed=3):
        assert lengths == sorted(lengths, reverse=True)
        assert lengths == (captions != PAD).sum(dim=1).sub(1).tolist()
        seen += [
            tuple(row[: length + 1]) for row, length in zip(captions.tolist(), lengths, strict=True)
        ]
    assert sorted(seen) == sorted(tuple(ids) for _, ids in dataset.pairs)


class Known(nn.Module):
    """A model that always gives the next word of the reference, or always the same one."""

    def __init__(self, word=None):
        super().__init__()
        self.word = word

    def forward(self, features, captions, lengths):
        targets = tutorial.pack(captions[:, 1:], lengths).data
        answers = targets if self.word is None else torch.full_like(targets, self.word)
        return nn.functional.one_hot(answers, 20).float(), None


def test_teacher_forced_bleu_of_a_perfect_and_of_a_mute_model():
    dataset = make_dataset()
    assert tutorial.teacher_forced_bleu(Known(), dataset) == pytest.approx(100)
    assert tutorial.teacher_forced_bleu(Known(END), dataset) < 1


def test_it_trains_and_goes_on_where_it_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(tutorial, "LEARNING_RATE", 3e-2)
    monkeypatch.setattr(tutorial, "BATCH_SIZE", 8)
    dataset = make_dataset()
    whole, resumed = (make_model(dataset, dropout=0.5) for _ in range(2))
    history = tutorial.train(whole, dataset, dataset, tmp_path / "whole", epochs=8)
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert history[-1]["bleu"] > 50 > history[0]["bleu"]
    tutorial.train(resumed, dataset, dataset, tmp_path / "halves", epochs=3)
    resumed = make_model(dataset, dropout=0.5, seed=9)  # as in a new process
    again = tutorial.train(resumed, dataset, dataset, tmp_path / "halves", epochs=8)
    assert [entry["loss"] for entry in again] == [entry["loss"] for entry in history]
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    best = max(history, key=lambda entry: entry["cider"])
    _, kept = tutorial.read_file(tmp_path / "halves" / "cider.safetensors")
    assert kept["epoch"] == best["epoch"]


@pytest.fixture
def captioner():
    """A model with random, decided opinions, and 40 pictures; it writes no special words."""
    dataset = make_dataset()
    model = make_model(dataset, seed=2).eval()
    for weight in model.parameters():
        weight.data *= 6
    model.output.bias.data[[PAD, START, UNKNOWN]] = -1e4
    generator = torch.Generator().manual_seed(1)
    return model, torch.randn(40, 4, 6, generator=generator)


def written_alone(model, pictures, width):
    """The tutorial's search picture by picture, without <start>, padded to one length."""
    found = [tutorial.tutorial_search(model, row.unsqueeze(0), width)[1:] for row in pictures]
    longest = max(map(len, found))
    return torch.tensor([ids + [PAD] * (longest - len(ids)) for ids in found])


def test_its_search_of_width_one_is_greedy(captioner):
    model, pictures = captioner
    together = greedy(model, pictures, max_words=tutorial.LONGEST)
    assert torch.equal(written_alone(model, pictures, 1), together)


@pytest.mark.parametrize("width", [2, 3, 5])
def test_its_search_writes_what_the_batched_search_writes(captioner, width):
    """As long as no better beginning pushes an ended caption out of the batched beam."""
    model, pictures = captioner
    together = beam_search(model, pictures, tutorial.LONGEST, width)
    assert torch.equal(written_alone(model, pictures, width), together)
    assert len({tuple(row) for row in together.tolist()}) > 3


class PushesOut:
    """Ends at once with 0.26, or writes two words (0.6 and 0.3 so far), and then ends with 0.5."""

    def start(self, pictures):
        return (torch.zeros(len(pictures), dtype=torch.long),)

    def step(self, words, state):
        probabilities = torch.full((3, 6), 1e-9)
        probabilities[0, [END, 4, 5]] = torch.tensor([0.26, 0.6, 0.14])
        probabilities[1, [4, 5]] = 0.5
        probabilities[2, [END, 4, 5]] = torch.tensor([0.5, 0.25, 0.25])
        (steps,) = state
        return probabilities.log()[steps.clamp(max=2)], (steps + 1,), None


def test_its_search_keeps_an_ended_caption_that_the_batched_search_loses():
    """The empty caption, 0.26, is more probable than any of the others, at most 0.15."""
    picture = torch.zeros(1, 1, 1)
    assert tutorial.tutorial_search(PushesOut(), picture, 2) == [START, END]
    assert len(beam_search(PushesOut(), picture, beam_width=2)[0]) > 2


def test_a_caption_that_never_ends_is_cut_off(captioner):
    model, pictures = captioner
    model.output.bias.data[END] = -1e4
    ids = tutorial.tutorial_search(model, pictures[:1], 3)
    assert len(ids) == tutorial.LONGEST + 1 and END not in ids


def test_the_command_prints_both_models_and_three_searches(
    data_home, tmp_path, monkeypatch, capsys, tiny_encoder, small_split
):
    monkeypatch.setattr(tutorial, "MIN_COUNT", 1)
    monkeypatch.setattr(tutorial, "create_encoder", lambda name: tiny_encoder)
    monkeypatch.setattr(tutorial.data, "flickr8k", lambda: data_home / "noise")
    monkeypatch.setattr(tutorial.data, "load_split", lambda folder, name: small_split)
    scores = {f"BLEU-{n}": 10.0 * n for n in range(1, 5)}  # the true ones take Java and seconds
    monkeypatch.setattr(tutorial.metrics, "score", lambda *pair, **options: scores)
    monkeypatch.setattr("sys.argv", ["attention_tutorial.py", "--epochs", "1", "--float32"])
    tutorial.main()
    printed = capsys.readouterr().out
    for kept in ("teacher-forced BLEU-4 (epoch 1)", "greedy CIDEr (epoch 1)"):
        for search in ("greedy", "beam 5", "beam 5 of decoding"):
            assert f"kept by {kept}, {search}: BLEU-1 10.00, BLEU-2" in printed
    assert printed.count("BLEU without brevity penalty") == 6
    assert (data_home / "checkpoints" / "attention_tutorial" / "bleu.safetensors").exists()
