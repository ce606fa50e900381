"""Training on CIDEr: the score, the advantage, the gradient, and that it does what it says."""

import pytest
import torch

from convrnn_utils import metrics, self_critical
from convrnn_utils.data import CaptionDataset, PictureDataset, Split
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.decoding import word_log_probabilities
from convrnn_utils.self_critical import CiderReward, SelfCriticalLoss
from convrnn_utils.text import END, PAD, START, Vocabulary
from convrnn_utils.training import teacher_forcing_loss

CAPTIONS = [
    ["a red ring on the sand", "there is a red ring", "a ring"],
    ["two blue stars at night", "a blue star and a blue star", "stars in the night sky"],
    ["a heart beside a red moon", "a moon beside a heart", "a red moon and a heart"],
    ["a green cross", "the cross is green", "one green cross alone on the grass"],
]


@pytest.fixture
def split():
    return Split("few/train", [0, 1, 2, 3], [None] * 4, CAPTIONS, [{}] * 4)


@pytest.fixture
def vocabulary():
    return Vocabulary.from_captions([text for group in CAPTIONS for text in group], 1)


def test_the_reward_is_the_cider_of_pycocoevalcap(vocabulary):
    written = ["a red ring is on the red sand", "a star at night", "a heart", "a green green cross"]
    references = [[vocabulary.encode(text) for text in group] for group in CAPTIONS]
    reward = CiderReward(references)
    scores = [
        reward.score(reward.vector(vocabulary.encode(text)), [reward.vector(r) for r in group])
        for text, group in zip(written, references, strict=True)
    ]
    expected = metrics.cider(dict(enumerate(CAPTIONS)), dict(enumerate(written)))
    assert 10 * sum(scores) == pytest.approx(expected * 4 / 10, rel=1e-6)


def model_of(tiny_encoder, vocabulary):
    torch.manual_seed(0)
    return ConvRNN(8, 16, len(vocabulary), cnn=tiny_encoder)


def features():
    return torch.rand(4, 5, generator=torch.Generator().manual_seed(1))


def test_an_advantage_is_the_score_above_the_mean_of_the_others(split, vocabulary):
    dataset = CaptionDataset(split, features(), vocabulary)
    loss = SelfCriticalLoss(dataset, captions_each=3)
    texts = ["a red ring", "a red ring", "stars"]
    ids = [vocabulary.encode(text)[1:] for text in texts]
    drawn = torch.tensor([[*row, *[PAD] * (4 - len(row))] for row in ids])
    references = PictureDataset(split, features(), vocabulary, captions_each=3)[[0]][1]
    advantages = loss._advantages(drawn, references.unsqueeze(0))
    assert advantages[0] == advantages[1] > 0 > advantages[2]
    assert advantages.sum().item() == pytest.approx(0, abs=1e-6)
    assert advantages[2].item() == pytest.approx(-2 * advantages[0].item(), rel=1e-6)


def test_the_gradient_is_that_of_the_weighted_log_probabilities(
    split, vocabulary, tiny_encoder, monkeypatch
):
    model = model_of(tiny_encoder, vocabulary).eval()
    loss = SelfCriticalLoss(CaptionDataset(split, features(), vocabulary), captions_each=2)
    drawn = torch.tensor([[4, END], [5, 6]]).repeat(4, 1)
    monkeypatch.setattr(loss, "_draw", lambda model, inputs: drawn)
    references = PictureDataset(split, features(), vocabulary, captions_each=3)[range(4)][1]
    loss(model, features(), references).backward()
    gradient = model.rnn_decoder.linear.bias.grad.clone()
    model.zero_grad()
    advantages = loss._advantages(drawn, references.unflatten(0, (4, 3)))
    by_hand = sum(
        -advantage * row.sum() / 16
        for advantage, row in zip(
            advantages, word_log_probabilities(model, features(), drawn), strict=True
        )
    )
    by_hand.backward()
    assert torch.allclose(gradient, model.rnn_decoder.linear.bias.grad, atol=1e-6)
    assert gradient.abs().max() > 1e-4


def test_training_on_the_score_raises_it(split, vocabulary, tiny_encoder):
    model = model_of(tiny_encoder, vocabulary)
    dataset = PictureDataset(split, features(), vocabulary, captions_each=3)
    inputs, captions = dataset[range(4)]
    loss = SelfCriticalLoss(dataset, captions_each=16, max_words=6)
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(parameters, 2e-2)

    def minimise(loss_function, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss_function(model, inputs, captions).backward()
            optimizer.step()
        torch.manual_seed(1)
        drawn = loss._draw(model.eval(), inputs)
        return loss._rewards(drawn, captions.unflatten(0, (len(inputs), -1))).mean().item()

    torch.manual_seed(0)
    taught = minimise(teacher_forcing_loss, 30)
    after = minimise(loss, 30)
    assert after > 1.2 * taught


def test_one_caption_has_none_to_be_compared_with(split, vocabulary):
    with pytest.raises(ValueError, match="draw at least two"):
        SelfCriticalLoss(CaptionDataset(split, features(), vocabulary), captions_each=1)


def test_special_words_do_not_count(vocabulary):
    reward = CiderReward([[vocabulary.encode(text) for text in group] for group in CAPTIONS])
    plain = reward.vector([7, 8, 9])
    assert reward.vector([START, 7, 8, 9, END, PAD, PAD]) == plain


def test_captions_are_drawn_without_dropout_and_the_mode_comes_back(
    split, vocabulary, tiny_encoder, monkeypatch
):
    model = model_of(tiny_encoder, vocabulary).train()
    dataset = PictureDataset(split, features(), vocabulary, captions_each=3)
    loss, modes = SelfCriticalLoss(dataset, captions_each=2), []
    draw = loss._draw
    monkeypatch.setattr(
        loss, "_draw", lambda *given: modes.append(given[0].training) or draw(*given)
    )
    loss(model, *dataset[range(4)])
    assert modes == [False]
    assert model.training and model.rnn_decoder.dropout.training and model.cnn_encoder.bn.training


def test_captions_are_scored_without_dropout_even_between_layers(
    split, vocabulary, tiny_encoder, monkeypatch
):
    torch.manual_seed(0)
    model = ConvRNN(8, 16, len(vocabulary), num_layers=2, dropout=0.5, cnn=tiny_encoder).train()
    scored = []

    def twice(*arguments):
        scored.extend(word_log_probabilities(*arguments) for _ in range(2))
        return scored[-1]

    monkeypatch.setattr(self_critical, "word_log_probabilities", twice)
    dataset = PictureDataset(split, features(), vocabulary, captions_each=3)
    SelfCriticalLoss(dataset)(model, *dataset[[0, 1]])
    assert torch.equal(*scored)
    assert model.training and model.rnn_decoder.rnn.dropout == 0.5


def test_an_interrupt_leaves_the_model_as_it_was(split, vocabulary, tiny_encoder, monkeypatch):
    model = ConvRNN(8, 16, len(vocabulary), num_layers=2, dropout=0.5, cnn=tiny_encoder).train()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(self_critical, "word_log_probabilities", interrupt)
    dataset = PictureDataset(split, features(), vocabulary, captions_each=3)
    with pytest.raises(KeyboardInterrupt):
        SelfCriticalLoss(dataset)(model, *dataset[[0, 1]])
    assert model.training and model.rnn_decoder.rnn.dropout == 0.5
