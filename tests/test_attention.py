"""Show, Attend and Tell: its equations, and that it fits where other models do."""

import pytest
import torch

from convrnn_utils.attention import ShowAttendTell, doubly_stochastic_penalty
from convrnn_utils.checkpoints import load_model, save_model
from convrnn_utils.encoders import create_encoder
from convrnn_utils.text import Vocabulary

WORDS = 11


@pytest.fixture(scope="module")
def encoder():
    return create_encoder("small_cnn")


@pytest.fixture
def model(encoder):
    torch.manual_seed(0)
    return ShowAttendTell(6, 8, WORDS, cnn=encoder).eval()


def grids(count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 64, 384, generator=generator)


def captions(count=3, length=5):
    generator = torch.Generator().manual_seed(2)
    return torch.randint(4, WORDS, (count, length), generator=generator)


def test_attention_worked_by_hand(encoder):
    """Two places with keys (0, 0) and (1, 1), a score of 3 for each number, no gate."""
    model = ShowAttendTell(2, 2, WORDS, gated=False, cnn=encoder)
    for weight in model.query.parameters():
        weight.data.zero_()
    model.score.weight.data.fill_(3.0)
    keys = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    values = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    context, weights = model.attend(keys, values, torch.zeros(1, 2))
    second = 1 / (1 + torch.exp(-torch.tanh(torch.tensor(1.0)) * 6))
    assert torch.allclose(weights, torch.stack((1 - second, second)).unsqueeze(0))
    assert torch.allclose(context, torch.stack((1 - second, 2 * second)).unsqueeze(0))


def test_the_gate_scales_the_context(model):
    keys, values, hidden, _ = model.start(grids())
    gated, weights = model.attend(keys, values, hidden)
    model.gate, gate = None, model.gate
    context, same = model.attend(keys, values, hidden)
    model.gate = gate
    assert torch.equal(weights, same)
    assert torch.allclose(gated, torch.sigmoid(gate(hidden)) * context)


def test_weights_are_those_of_places_and_sum_to_one(model):
    _, attention = model.forward_with_attention(grids(), captions())
    assert attention.shape == (3, 5, 64)
    assert (attention > 0).all()
    assert torch.allclose(attention.sum(dim=2), torch.ones(3, 5))


def test_one_word_at_a_time_gives_the_same_as_all_at_once(model):
    together, attention = model.forward_with_attention(grids(), captions())
    state = model.start(grids())
    for position, words in enumerate(captions().unbind(dim=1)):
        scores, state, weights = model.step(words, state)
        assert torch.allclose(scores, together[:, position], atol=1e-5)
        assert torch.allclose(weights, attention[:, position], atol=1e-6)


def test_no_output_looks_ahead(model):
    changed = captions()
    changed[:, 3:] = 4
    before, after = model(grids(), captions()), model(grids(), changed)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_the_order_of_places_does_not_matter(model):
    """Attention is over a set: with the places in another order, the same scores."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    scores, attention = model.forward_with_attention(grids(), captions())
    same, permuted = model.forward_with_attention(grids()[:, order], captions())
    assert torch.allclose(scores, same, atol=1e-5)
    assert torch.allclose(attention[:, :, order], permuted, atol=1e-6)


def test_pictures_and_their_features_give_the_same(model):
    pictures = torch.randint(0, 256, (2, 3, 96, 96), dtype=torch.uint8)
    features = model.cnn(pictures)
    words = captions(2)
    assert torch.allclose(model(pictures, words), model(features, words), atol=1e-5)


def test_training_moves_all_but_the_frozen_cnn(encoder):
    model = ShowAttendTell(6, 8, WORDS, dropout=0.1, cnn=encoder)
    model(grids(), captions()).logsumexp(dim=2).sum().backward()
    for name, weight in model.named_parameters():
        assert (weight.grad is None) == name.startswith("cnn."), name


def test_as_many_captions_as_pictures_are_needed(model):
    with pytest.raises(ValueError, match="2 captions cannot be shared out evenly among 3"):
        model(grids(3), captions(2))


def test_captions_of_one_picture_together_give_the_same_as_each_alone(model):
    scores, attention = model.forward_with_attention(grids(3), captions(6))
    pictures = grids(3).repeat_interleave(2, dim=0)
    alone = model.forward_with_attention(pictures, captions(6))
    assert torch.allclose(scores, alone[0], atol=1e-5)
    assert torch.allclose(attention, alone[1], atol=1e-6)


def test_the_penalty_worked_by_hand():
    """Two places, two words and padding: 1 − 1.5 and 1 − 0.5, squared and added; then none."""
    attention = torch.tensor([[[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]], [[1, 0], [0, 1], [0.5, 0.5]]])
    penalty = doubly_stochastic_penalty(attention, torch.tensor([[5, 2, 0], [5, 2, 0]]))
    assert penalty.item() == pytest.approx((0.5**2 + 0.5**2 + 0) / 2)


def test_a_checkpoint_brings_all_it_needs(model, tmp_path):
    vocabulary = Vocabulary([f"word{number}" for number in range(WORDS - 4)])
    save_model(tmp_path / "attention.safetensors", model, vocabulary)
    loaded, words, _ = load_model(tmp_path / "attention.safetensors")
    assert words == vocabulary
    assert torch.equal(loaded(grids(), captions()), model(grids(), captions()))


def test_the_first_state_comes_from_the_mean_of_the_values(model):
    _, values, hidden, cell = model.start(grids())
    first = torch.tanh(model.first_state(values.mean(dim=1)))
    assert torch.allclose(torch.cat((hidden, cell), dim=1), first)
