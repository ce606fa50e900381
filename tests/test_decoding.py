"""Sampling and beam search, against exhaustive search and counted frequencies."""

import itertools

import pytest
import torch
from torch import nn

from convrnn_utils.decoders import ConvRNN
from convrnn_utils.decoding import (
    attention_of,
    beam_search,
    beams_at_end,
    caption_all,
    greedy,
    log_probability,
    sample,
)
from convrnn_utils.text import END, PAD, START, Vocabulary

VOCABULARY = 8  # of which 5, 6 and 7 are words and 4 is another
ALLOWED = [END, 4, 5, 6, 7]


class Markov(nn.Module):
    """A model whose next word depends on the image and on the last two words."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(
            2 * torch.randn(4, VOCABULARY, VOCABULARY, VOCABULARY, generator=generator)
        )

    def start(self, images):
        return images, torch.full((len(images),), PAD)

    def step(self, words, state):
        images, before = state
        return self.table[images, before, words].clone(), (images, words), None

    def forward(self, images, captions):
        before = torch.cat((torch.full_like(captions[:, :1], PAD), captions[:, :-1]), dim=1)
        return self.table[images.unsqueeze(1), before, captions].clone()


def all_captions(longest):
    """Every caption of at most ``longest`` words, the last of them ``<end>`` unless it is cut."""
    words = [word for word in ALLOWED if word != END]
    for length in range(1, longest + 1):
        for beginning in itertools.product(words, repeat=length - 1):
            yield (*beginning, END) + (PAD,) * (longest - length)
    yield from itertools.product(words, repeat=longest)


def pad(captions, longest):
    missing = longest - captions.shape[1]
    return torch.nn.functional.pad(captions, (0, missing), value=PAD)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("length_power", [0.0, 0.7, 1.0])
def test_a_beam_as_wide_as_there_are_captions_finds_the_best(seed, length_power):
    model, images, longest = Markov(seed), torch.arange(4), 4
    captions = torch.tensor(list(all_captions(longest)))
    lengths = (captions != PAD).sum(dim=1)
    found = pad(beam_search(model, images, longest, len(captions), length_power), longest)
    for image in images:
        scores = log_probability(model, image.repeat(len(captions)), captions)
        best = captions[(scores / lengths**length_power).argmax()]
        assert found[image].tolist() == best.tolist()


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_one_is_greedy(seed):
    model, images = Markov(seed), torch.arange(4)
    assert beam_search(model, images, 6, 1).tolist() == greedy(model, images, 6).tolist()


@pytest.mark.parametrize("beam_width", [2, 3, 5])
def test_images_do_not_disturb_each_other(beam_width):
    model = Markov(3)
    together = pad(beam_search(model, torch.tensor([2, 0, 3, 1, 2]), 7, beam_width), 7)
    for row, image in enumerate([2, 0, 3, 1, 2]):
        alone = pad(beam_search(model, torch.tensor([image]), 7, beam_width), 7)
        assert together[row].tolist() == alone[0].tolist()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("length_power", [0.0, 0.7, 1.0, 2.0])
def test_a_search_that_ends_early_finds_what_it_would_have_found(seed, length_power):
    images = torch.arange(4)
    beams, log_probabilities = beams_at_end(Markov(seed), images, 9, 3)
    lengths = (beams != PAD).sum(dim=2)
    best = beams[images, (log_probabilities / lengths**length_power).argmax(dim=1)]
    found = beam_search(Markov(seed), images, 9, 3, length_power)
    assert torch.equal(pad(found, best.shape[1]), best)


def test_a_search_ends_when_no_beam_can_win_any_more():
    def rows_read(search):
        model, read = Markov(3), []
        step = model.step
        model.step = lambda words, state: read.append(len(words)) or step(words, state)
        search(model, torch.arange(4), 20, 5)
        return sum(read)

    assert rows_read(beam_search) < 0.9 * rows_read(beams_at_end)


@pytest.mark.parametrize("beam_width", [2, 3, 5])
def test_images_that_end_at_once_do_not_disturb_the_others(beam_width):
    """Where as many leave as make the rest times the width the size of the batch before."""
    for seed in range(40):
        images = torch.tensor([0] * beam_width + [1, 2, 3]).repeat(beam_width)
        together = pad(beam_search(Markov(seed), images, 5, beam_width), 5)
        for image in range(4):
            alone = pad(beam_search(Markov(seed), torch.tensor([image]), 5, beam_width), 5)
            assert all(row == alone[0].tolist() for row in together[images == image].tolist())


class InPlace(Markov):
    """The same model, but it writes the new state into the old one."""

    def step(self, words, state):
        logits, (_, before), _ = super().step(words, state)
        state[1].copy_(before)
        return logits, state, None


@pytest.mark.parametrize("seed", range(5))
def test_a_state_may_be_changed_in_place(seed):
    images = torch.arange(4)
    for plain, in_place in zip(
        beams_at_end(Markov(seed), images, 6), beams_at_end(InPlace(seed), images, 6), strict=True
    ):
        assert torch.equal(plain, in_place)


@pytest.mark.parametrize(
    "search, message",
    [
        (lambda: beam_search(Markov(0), torch.arange(4), length_power=-1), "length_power is -1"),
        (
            lambda: beam_search(Markov(0), torch.arange(4), length_power=400),
            "power is 400; it must",
        ),
        (lambda: beam_search(Markov(0), torch.arange(4), beam_width=0), "beam_width is 0"),
        (lambda: greedy(Markov(0), torch.arange(4), max_words=0), "max_words is 0"),
        (lambda: beam_search(Markov(0), torch.arange(0)), "the number of images is 0"),
    ],
)
def test_sizes_that_make_no_sense_are_refused_in_words(search, message):
    with pytest.raises(ValueError, match=message):
        search()


class Sharing(Markov):
    """The same model, but the images are in the state once for all captions of theirs."""

    shared = 1

    def step(self, words, state):
        images, before = state
        logits, (_, words), _ = super().step(
            words, (images.repeat_interleave(len(words) // len(images)), before)
        )
        return logits, (images, words), None


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("beam_width", [1, 5, 40])
def test_what_captions_share_need_not_be_repeated(seed, beam_width):
    images = torch.arange(4).repeat(3)
    for plain, shared in zip(
        beams_at_end(Markov(seed), images, 6, beam_width),
        beams_at_end(Sharing(seed), images, 6, beam_width),
        strict=True,
    ):
        assert torch.equal(plain, shared)


def test_samples_of_one_picture_share_what_they_may():
    drawn = []
    for model in (Markov(4), Sharing(4)):
        torch.manual_seed(1)
        drawn.append(sample(model, torch.arange(4), 6, captions_each=3))
    assert torch.equal(*drawn)


def test_images_that_are_done_leave_the_batch():
    """Images 0 and 1 end at once, and no step has them from then on; the others write on."""
    model, seen = Markov(0), []
    model.table.data[:2, :, :, END] = 50
    model.table.data[2:, :, :, END] = -50
    step = model.step
    model.step = lambda words, state: (seen.append(len(words)), step(words, state))[1]
    captions = beam_search(model, torch.arange(4), 5, 3)
    assert seen[0] == 4 and seen[-1] == 6
    assert captions[:2].tolist() == [[END, PAD, PAD, PAD, PAD]] * 2
    assert (captions[2:] > 3).all()


def test_a_beam_is_at_least_as_probable_as_greedy_in_most_cases():
    """It is not a rule: a wider beam may drop the greedy beginning. Over 200 cases it is rare."""
    worse = 0
    for seed in range(50):
        model, images = Markov(seed), torch.arange(4)
        wide, narrow = beam_search(model, images, 5, 5), greedy(model, images, 5)
        difference = log_probability(model, images, wide) - log_probability(model, images, narrow)
        worse += (difference < -1e-5).sum().item()
    assert worse <= 4


def test_the_log_probabilities_of_all_captions_sum_to_one():
    """With the words that are never written left out, the others share all probability."""
    captions = torch.tensor(list(all_captions(3)))
    scores = log_probability(Markov(1), torch.zeros(len(captions), dtype=torch.long), captions)
    assert scores.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.8)])
def test_samples_are_as_frequent_as_their_probability(temperature, top_p):
    model = Markov(5)
    torch.manual_seed(0)
    images = torch.zeros(20_000, dtype=torch.long)
    words = sample(model, images, 1, temperature, top_p)[:, 0]
    counted = torch.bincount(words, minlength=VOCABULARY) / len(words)
    scores = model.table[0, PAD, START].detach() / temperature
    probabilities = torch.zeros(VOCABULARY)
    probabilities[ALLOWED] = scores[ALLOWED].softmax(dim=0)
    kept, total = [], 0.0
    for word in probabilities.argsort(descending=True).tolist():
        if total < top_p and probabilities[word] > 0:
            kept.append(word)
            total += probabilities[word].item()
    expected = torch.zeros(VOCABULARY)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    assert torch.allclose(counted, expected, atol=0.015)
    assert not counted[expected == 0].any()


def test_attention_is_that_of_the_word_chosen():
    """The weights with which a word was chosen come from the step that read the word before it."""

    class Looking(Markov):
        def forward_with_attention(self, images, captions):
            return None, torch.stack((images.unsqueeze(1).expand_as(captions), captions), dim=2)

    looks = attention_of(Looking(0), torch.tensor([3]), torch.tensor([[5, 6, END]]))
    assert looks.tolist() == [[[3, START], [3, 5], [3, 6]]]


def test_a_cold_sample_is_greedy():
    model, images = Markov(2), torch.arange(4)
    assert sample(model, images, 6, temperature=1e-4).tolist() == greedy(model, images, 6).tolist()
    assert sample(model, images, 6, top_p=1e-6).tolist() == greedy(model, images, 6).tolist()


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="must be above 0"):
        sample(Markov(0), torch.arange(4), **options)


def test_a_sample_is_of_the_models_own_probabilities_unless_others_are_asked_for():
    drawn = []
    for options in ({}, {"temperature": 1.0, "top_p": 1.0}):
        torch.manual_seed(0)
        drawn.append(sample(Markov(5), torch.arange(4).repeat(50), 6, **options))
    assert torch.equal(*drawn)


def test_rare_words_are_drawn_in_bfloat16_too():
    """In bfloat16 the probability of the first word here is 1, and no sum reaches the others."""

    class Fixed(nn.Module):
        def start(self, images):
            return images

        def step(self, words, state):
            logits = torch.full((len(words), 5_010), -7.0)
            logits[:, 9], logits[:, : END + 1] = 8.0, -torch.inf  # 0.9985 and 5,000 rare words
            return logits.bfloat16(), state, None

    torch.manual_seed(0)
    drawn = sample(Fixed(), torch.zeros(4_000, 1), 5)
    assert 10 < (drawn > 9).sum() < 60  # 30 are expected


def test_an_interrupt_leaves_the_mode_of_the_model(small_split, tiny_encoder):
    def interrupted(*_):
        raise KeyboardInterrupt

    vocabulary = Vocabulary.from_captions(["a ring"], 1)
    model = ConvRNN(8, 16, len(vocabulary), cnn=tiny_encoder).train()
    with pytest.raises(KeyboardInterrupt):
        caption_all(model, torch.rand(3, 5), vocabulary, search=interrupted)
    assert model.training
