import math

import numpy
import pytest
import torch
from torch import nn

from convrnn_utils.decoders import ConvRNN, RNNDecoder
from convrnn_utils.decoding import candidates, caption_all, greedy
from convrnn_utils.encoders import ImageEncoder
from convrnn_utils.text import END, PAD, START, UNKNOWN, Vocabulary
from convrnn_utils.training import caption_loss

WORDS = 12  # in the vocabulary, with the special ones


class DocumentsRNNDecoder(nn.Module):
    """The decoder as the source document has it, letter by letter."""

    def __init__(self, embed_size, hidden_size, vocab_size, num_layers):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, embed_size)
        self.lstm = nn.LSTM(embed_size, hidden_size, num_layers, batch_first=True)
        self.linear = nn.Linear(hidden_size, vocab_size)
        self.init_weights()

    def init_weights(self):
        self.embed.weight.data.uniform_(-0.1, 0.1)
        self.linear.weight.data.uniform_(-0.1, 0.1)
        self.linear.bias.data.fill_(0)

    def forward(self, features, captions):
        embeddings = self.embed(captions)
        embeddings = torch.cat((features.unsqueeze(1), embeddings), 1)
        hiddens, _ = self.lstm(embeddings)
        outputs = self.linear(hiddens)
        return outputs


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def sharpen(model):
    """Weights large enough that different inputs get clearly different answers."""
    for name, weight in model.named_parameters():
        if "bn" not in name:
            nn.init.normal_(weight, std=0.7)
    return model.eval()


def features_and_captions(batch=3, length=6, embed_size=5):
    return torch.randn(batch, embed_size), torch.randint(0, WORDS, (batch, length))


# ---------------------------------------------------------------- RNNDecoder


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_decoder_is_that_of_the_source_document(num_layers):
    theirs = sharpen(DocumentsRNNDecoder(5, 7, WORDS, num_layers))
    ours = RNNDecoder(5, 7, WORDS, num_layers).eval()
    state = {name.replace("lstm.", "rnn."): weight for name, weight in theirs.state_dict().items()}
    ours.load_state_dict(state)
    features, captions = features_and_captions()
    torch.testing.assert_close(
        ours(features, captions), theirs(features, captions), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("length", [1, 6])
def test_t_words_give_one_output_more(cell, length):
    features, captions = features_and_captions(length=length)
    outputs = RNNDecoder(5, 7, WORDS, cell=cell)(features, captions)
    assert outputs.shape == (3, length + 1, WORDS)


def test_the_first_output_has_read_no_word_and_none_looks_ahead():
    decoder = sharpen(RNNDecoder(5, 7, WORDS))
    features, captions = features_and_captions()
    changed = captions.clone()
    changed[:, 3] = (captions[:, 3] + 1) % WORDS
    before, after = decoder(features, captions), decoder(features, changed)
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).all(dim=2).any()
    other_picture = decoder(features + 1, captions)
    assert not torch.isclose(before, other_picture).all(dim=2).any()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_one_word_at_a_time_gives_the_same_as_all_at_once(cell, num_layers):
    decoder = sharpen(RNNDecoder(5, 7, WORDS, num_layers, cell, dropout=0.5))
    features, captions = features_and_captions()
    expected = decoder(features, captions)
    state = decoder.start(features)
    for position in range(captions.shape[1]):
        logits, state, attention = decoder.step(captions[:, position], state)
        assert attention is None
        assert logits.shape == (3, WORDS)
        torch.testing.assert_close(logits, expected[:, position + 1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_state_has_the_batch_first_so_that_a_search_can_reorder_it(cell, num_layers):
    decoder = sharpen(RNNDecoder(5, 7, WORDS, num_layers, cell))
    features, captions = features_and_captions(batch=4)
    state = decoder.start(features)
    assert isinstance(state, tuple)
    assert [part.shape for part in state] == [(4, num_layers, 7)] * (2 if cell == "lstm" else 1)
    logits, state, _ = decoder.step(captions[:, 0], state)
    expected, _, _ = decoder.step(captions[:, 1], state)
    order = torch.tensor([3, 3, 0, 2, 1])  # a search drops, repeats and swaps
    reordered = tuple(part[order] for part in state)
    logits, after, _ = decoder.step(captions[order, 1], reordered)
    torch.testing.assert_close(logits, expected[order], rtol=1e-5, atol=1e-6)
    assert all(part.shape == (5, num_layers, 7) for part in after)


def test_the_weights_begin_in_the_documents_ranges():
    decoder = RNNDecoder(20, 30, 200)
    for weight in (decoder.embed.weight, decoder.linear.weight):
        assert 0.09 < weight.abs().max() <= 0.1
        assert weight.std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.05)
    assert not decoder.linear.bias.any()


@pytest.mark.parametrize("cell", ["LSTM", "transformer", ""])
def test_a_cell_that_there_is_not_is_refused_in_words(cell):
    with pytest.raises(ValueError, match=f"no cell '{cell}'; choose one of lstm, gru, rnn"):
        RNNDecoder(5, 7, WORDS, cell=cell)


@pytest.mark.filterwarnings("error")  # torch warns of dropout with a single layer
@pytest.mark.parametrize("num_layers", [1, 2])
def test_dropout_acts_in_training_only(num_layers):
    decoder = RNNDecoder(5, 7, WORDS, num_layers, dropout=0.5)
    features, captions = features_and_captions()
    assert not torch.equal(decoder(features, captions), decoder(features, captions))
    decoder.eval()
    assert torch.equal(decoder(features, captions), decoder(features, captions))
    none = RNNDecoder(5, 7, WORDS, num_layers)
    assert torch.equal(none(features, captions), none(features, captions))


def test_dropout_acts_on_the_embeddings_and_on_the_outputs():
    decoder = RNNDecoder(5, 7, WORDS, dropout=0.5)
    shapes = []
    decoder.dropout.register_forward_hook(lambda layer, given, _: shapes.append(given[0].shape))
    decoder(*features_and_captions())
    assert shapes == [(3, 7, 5), (3, 7, 7)]
    decoder.dropout.p = 1.0
    assert not decoder(*features_and_captions()).any()  # nothing is left but the bias, zero


# ---------------------------------------------------------------- ConvRNN


@pytest.fixture
def conv_rnn():
    """The whole model, around a CNN that takes no time; in evaluation mode."""
    network = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.ReLU())
    cnn = ImageEncoder("tiny", network, 16, 4, (127.0,) * 3, (128.0,) * 3)
    return sharpen(ConvRNN(5, 7, WORDS, cnn=cnn))


def pictures_of(count):
    return torch.randint(0, 256, (count, 3, 16, 16), dtype=torch.uint8)


def test_the_model_is_its_encoder_and_its_decoder(conv_rnn):
    pictures, captions = pictures_of(3), torch.randint(0, WORDS, (3, 6))
    features = conv_rnn.cnn_encoder(pictures)
    outputs = conv_rnn(pictures, captions)
    assert outputs.shape == (3, 7, WORDS)
    assert torch.equal(outputs, conv_rnn.rnn_decoder(features, captions))
    cached = conv_rnn.cnn_encoder.cnn(pictures)
    torch.testing.assert_close(conv_rnn(cached, captions), outputs)
    state = conv_rnn.start(pictures)
    for position in range(6):
        logits, state, _ = conv_rnn.step(captions[:, position], state)
        torch.testing.assert_close(logits, outputs[:, position + 1], rtol=1e-5, atol=1e-5)


def test_the_arguments_of_a_model_make_another_one_of_its_kind(conv_rnn):
    model = ConvRNN(5, 7, WORDS, 2, "gru", 0.3, cnn=conv_rnn.cnn_encoder.cnn)
    again = ConvRNN(**model.arguments, cnn=conv_rnn.cnn_encoder.cnn)
    again.load_state_dict(model.state_dict())
    assert again.arguments == model.arguments
    assert isinstance(again.rnn_decoder.rnn, nn.GRU)
    assert (again.rnn_decoder.rnn.num_layers, again.rnn_decoder.dropout.p) == (2, 0.3)


def test_as_many_captions_as_pictures_are_needed(conv_rnn):
    with pytest.raises(ValueError, match="2 captions cannot be shared out evenly among 3"):
        conv_rnn(pictures_of(3), torch.zeros(2, 6, dtype=torch.long))


def test_captions_of_one_picture_together_give_the_same_as_each_alone(conv_rnn):
    captions = torch.tensor([[START, 4, 5], [START, 6, 7], [START, 8, 9], [START, 5, 4]])
    pictures = pictures_of(2)
    together = conv_rnn.eval()(pictures, captions)
    alone = conv_rnn(pictures.repeat_interleave(2, dim=0), captions)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_training_moves_all_but_the_frozen_cnn(conv_rnn):
    conv_rnn.train()
    assert not conv_rnn.cnn_encoder.cnn.training and conv_rnn.rnn_decoder.training
    captions = torch.tensor([[START, 4, 5, END], [START, 6, END, PAD]])
    caption_loss(conv_rnn(pictures_of(2), captions[:, :-1]), captions).backward()
    without = {name for name, weight in conv_rnn.named_parameters() if weight.grad is None}
    assert without == {"cnn_encoder.cnn.network.0.weight", "cnn_encoder.cnn.network.0.bias"}


# ---------------------------------------------------------------- the loss


def logits_of(probability, word):
    """Logits of four words and more, which give ``word`` this probability."""
    rest = (1 - probability) / (WORDS - 1)
    row = torch.full((WORDS,), rest)
    row[word] = probability
    return row.log()


@pytest.mark.parametrize("extra", [0, 1])
def test_the_loss_worked_by_hand(extra):
    captions = torch.tensor([[START, 4, END], [START, END, PAD]])
    logits = torch.stack(
        [
            torch.stack([logits_of(1 / 2, 4), logits_of(1 / 4, END)]),
            torch.stack([logits_of(1 / 8, END), logits_of(1 / 99, PAD)]),
        ]
    )
    if extra:  # the output before <start>, which answers no word
        logits = torch.cat((torch.randn(2, 1, WORDS) * 10, logits), dim=1)
    loss = caption_loss(logits, captions)
    assert loss.item() == pytest.approx((1 + 2 + 3) * math.log(2) / 3, rel=1e-5)


def test_neither_the_first_output_nor_padding_gets_a_gradient():
    captions = torch.tensor([[START, 4, 5, END], [START, END, PAD, PAD]])
    logits = torch.randn(2, 4, WORDS, requires_grad=True)
    caption_loss(logits, captions).backward()
    touched = logits.grad.abs().sum(dim=2) > 0
    assert touched.tolist() == [[False, True, True, True], [False, True, False, False]]


def test_a_model_that_knows_the_next_word_has_no_loss():
    captions = torch.tensor([[START, 4, 5, END], [START, 6, END, PAD]])
    knowing = 50.0 * nn.functional.one_hot(captions, WORDS)  # output t is word t
    first = torch.randn(2, 1, WORDS)
    right = torch.cat((first, knowing[:, 1:]), dim=1)  # output t + 1 is the word after word t
    assert caption_loss(right, captions).item() < 1e-6
    late = torch.cat((knowing[:, 1:], first), dim=1)  # the off-by-one that is easily made
    assert caption_loss(late, captions).item() > 1


def test_label_smoothing_worked_by_hand():
    captions = torch.tensor([[START, 4]])
    logits = logits_of(1 / 2, 4).view(1, 1, WORDS)
    others = -math.log(0.5 / (WORDS - 1))
    spread = (math.log(2) + (WORDS - 1) * others) / WORDS
    expected = 0.9 * math.log(2) + 0.1 * spread
    assert caption_loss(logits, captions, 0.1).item() == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------- greedy captions


class Scripted(nn.Module):
    """A model that wants to write given words; its images are the rows of the script."""

    def __init__(self, wishes):
        super().__init__()
        self.wishes = wishes  # for each caption, for each step, words from best to worst
        self.unused = nn.Parameter(torch.zeros(1))
        self.read = []

    def start(self, images):
        return (images[:, 0].long(), torch.zeros(len(images), dtype=torch.long))

    def step(self, words, state):
        self.read.append(words.tolist())
        captions, steps = state
        logits = torch.zeros(len(words), WORDS)
        for row, (caption, step) in enumerate(zip(captions, steps, strict=True)):
            for rank, word in enumerate(self.wishes[caption][step]):
                logits[row, word] = 10.0 - rank
        return logits, (captions, steps + 1), None


def rows(count):
    return torch.arange(float(count)).unsqueeze(1)


def test_a_caption_reads_what_was_written_before_and_starts_with_start():
    model = Scripted([[[5], [6], [7], [END]]])
    assert greedy(model, rows(1)).tolist() == [[5, 6, 7, END]]
    assert model.read == [[START], [5], [6], [7]]


def test_padding_start_and_unknown_are_never_written():
    wish = [PAD, START, UNKNOWN, 8, END]
    model = Scripted([[wish, wish, wish, [UNKNOWN, PAD, START, END]]])
    assert greedy(model, rows(1)).tolist() == [[8, 8, 8, END]]


def test_captions_that_ended_are_padded_until_the_last_one_ends():
    model = Scripted(
        [
            [[5], [END], [9], [9], [9], [9]],
            [[5], [6], [7], [END], [9], [9]],
            [[END], [9], [9], [9], [9], [9]],
        ]
    )
    assert greedy(model, rows(3), max_words=6).tolist() == [
        [5, END, PAD, PAD],
        [5, 6, 7, END],
        [END, PAD, PAD, PAD],
    ]
    assert len(model.read) == 4  # and no step after the last one has ended


def test_a_caption_without_an_end_is_cut():
    model = Scripted([[[5]] * 9, [[5], [END], *[[9]] * 7]])
    assert greedy(model, rows(2), max_words=3).tolist() == [[5, 5, 5], [5, END, PAD]]
    assert len(model.read) == 3


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_batch_gives_what_a_plain_loop_over_pictures_gives(conv_rnn, cell):
    model = sharpen(ConvRNN(8, 32, WORDS, 2, cell, cnn=conv_rnn.cnn_encoder.cnn))
    model.rnn_decoder.linear.bias.data[END] += 3  # so that captions end before they are cut
    features = 3 * torch.randn(16, 4)
    together = greedy(model, features, max_words=9)
    alone = []
    for feature in features:
        caption = [START]
        while len(caption) <= 9 and caption[-1] != END:
            with torch.no_grad():
                scores = model(feature.unsqueeze(0), torch.tensor([caption]))[0, -1].tolist()
            caption.append(max({END, *range(4, WORDS)}, key=scores.__getitem__))
        alone.append(caption[1:])
    longest = max(map(len, alone))
    assert together.tolist() == [ids + [PAD] * (longest - len(ids)) for ids in alone]
    assert len({tuple(ids) for ids in alone}) > 3  # or the test would show little
    assert len(set(map(len, alone))) > 1


VOCABULARY = Vocabulary(["a", "dog", "runs", "on", "the", "green", "grass", "today"])


@pytest.mark.parametrize("training", [True, False])
def test_all_are_captioned_in_evaluation_mode_and_the_mode_comes_back(conv_rnn, training):
    pictures = pictures_of(7)
    ids = greedy(conv_rnn, pictures)
    expected = [VOCABULARY.decode(row) for row in ids]
    conv_rnn.train(training)
    before = conv_rnn.cnn_encoder.bn.running_mean.clone()
    for batch_size in (1, 3, 256):
        assert caption_all(conv_rnn, pictures, VOCABULARY, batch_size) == expected
        assert conv_rnn.training == conv_rnn.cnn_encoder.bn.training == training
    assert torch.equal(conv_rnn.cnn_encoder.bn.running_mean, before)
    assert not conv_rnn.cnn_encoder.cnn.training
    assert len(set(expected)) > 1


@pytest.mark.filterwarnings("error")
def test_cached_features_are_captioned_as_the_pictures_are(conv_rnn, tmp_path):
    pictures = pictures_of(7)
    grid = conv_rnn.cnn_encoder.cnn(pictures).numpy()
    numpy.save(tmp_path / "grid.npy", grid)
    cached = numpy.load(tmp_path / "grid.npy", mmap_mode="r")
    expected = caption_all(conv_rnn, pictures, VOCABULARY)
    assert caption_all(conv_rnn, cached, VOCABULARY, batch_size=4) == expected


def test_no_caption_is_longer_than_max_words(conv_rnn):
    with torch.no_grad():
        conv_rnn.rnn_decoder.linear.bias[END] = -100
    captions = caption_all(conv_rnn, pictures_of(3), VOCABULARY, max_words=4)
    assert [len(caption.split()) for caption in captions] == [4, 4, 4]
    assert not any("<" in caption for caption in captions)


def test_nothing_to_caption_gives_no_captions(conv_rnn):
    assert caption_all(conv_rnn, pictures_of(0), VOCABULARY) == []


def test_candidates_go_by_image_id():
    assert candidates([7, 3], ["a dog", "grass"]) == {7: "a dog", 3: "grass"}
    with pytest.raises(ValueError):
        candidates([7], ["a dog", "grass"])


@pytest.mark.parametrize("num_layers, between", [(1, 0.0), (2, 0.3)])
def test_dropout_acts_between_layers_too(num_layers, between):
    assert RNNDecoder(5, 7, WORDS, num_layers, dropout=0.3).rnn.dropout == between


@pytest.mark.parametrize("count", [0, 4])
def test_captions_that_cannot_be_shared_out_are_refused_by_number(conv_rnn, count):
    with pytest.raises(ValueError, match=f"{count} captions cannot be shared out evenly among 3"):
        conv_rnn(pictures_of(3), torch.zeros(count, 6, dtype=torch.long))
