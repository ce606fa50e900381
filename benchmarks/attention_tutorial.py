"""The decoder of the best-known attention tutorial, trained on the features of this course.

python benchmarks/attention_tutorial.py --epochs 8

Our captioners are measured against "a PyTorch Tutorial to Image Captioning"
(github.com/sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning), which itself follows Show, Attend and
Tell (arXiv:1502.03044). The tutorial's decoder, loss, schedule and search are written anew here.
Pictures are encoded once by a frozen EfficientNet-Lite2, the vocabulary has the words of the
training split only, and pycocoevalcap computes the scores.

Two models are kept, chosen on the validation split: that of the epoch with the best BLEU-4 of
teacher-forced captions, which is the tutorial's choice, and that of the epoch with the best CIDEr
of captions that the model writes alone. Both are scored on the test split. When the program is
started again, it goes on after the last whole epoch.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from pycocoevalcap.bleu.bleu import Bleu
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from tqdm import tqdm

from convrnn_utils import data, metrics
from convrnn_utils.checkpoints import read_file, write_file
from convrnn_utils.data import CaptionDataset
from convrnn_utils.decoding import beam_search, candidates, caption_all, greedy
from convrnn_utils.encoders import create_encoder
from convrnn_utils.env import data_folder, describe, device
from convrnn_utils.text import END, START, Vocabulary
from convrnn_utils.training import cider_of_captions

BATCH_SIZE = 32
LEARNING_RATE = 4e-4
CLIP_VALUE = 5.0  # each element of a gradient is cut to ± this
PENALTY_WEIGHT = 1.0  # of the doubly stochastic term; the tutorial's alpha_c
MIN_COUNT = 6  # the tutorial keeps words seen more than 5 times
LONGEST = 51  # words after which the tutorial's search gives up


class TutorialDecoder(nn.Module):
    """The tutorial's decoder: additive attention and a gate before an LSTM cell.

    Args:
        vocab_size: V, number of words, the special ones included.
        feature_size: D, width of the features of a place.
        size: H, width of embeddings, attention and state.
        dropout: share of the state set to zero before the output layer.
    """

    def __init__(
        self, vocab_size: int, feature_size: int = 1280, size: int = 512, dropout: float = 0.5
    ):
        super().__init__()
        self.key = nn.Linear(feature_size, size)
        self.query = nn.Linear(size, size)
        self.score = nn.Linear(size, 1)
        self.gate = nn.Linear(size, feature_size)
        self.first_hidden = nn.Linear(feature_size, size)
        self.first_cell = nn.Linear(feature_size, size)
        self.embedding = nn.Embedding(vocab_size, size)
        self.cell = nn.LSTMCell(size + feature_size, size)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(size, vocab_size)
        self.embedding.weight.data.uniform_(-0.1, 0.1)
        self.output.weight.data.uniform_(-0.1, 0.1)
        self.output.bias.data.zero_()

    def first_state(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (B, L, D), and the hidden state and cell (B, H) made from their mean."""
        features = features.float()
        mean = features.mean(dim=1)
        return features, self.first_hidden(mean), self.first_cell(mean)

    def start(self, features: Tensor) -> tuple[Tensor, ...]:
        """The state before the first word: ``first_state`` and the keys (B, L, H)."""
        state = self.first_state(features)
        return (*state, self.key(state[0]))

    def step(self, words: Tensor, state: tuple[Tensor, ...]):
        """Read words (B,); give scores (B, V), the new state and the weights (B, L)."""
        features, hidden, cell, *keys = state
        projected = keys[0] if keys else self.key(features)
        scores = self.score(torch.relu(projected + self.query(hidden).unsqueeze(1)))
        weights = scores.squeeze(2).softmax(dim=1)
        context = (features * weights.unsqueeze(2)).sum(dim=1)
        context = torch.sigmoid(self.gate(hidden)) * context
        inputs = torch.cat((self.embedding(words), context), dim=1)
        hidden, cell = self.cell(inputs, (hidden, cell))
        return self.output(self.dropout(hidden)), (features, hidden, cell, *keys), weights

    def forward(self, features: Tensor, captions: Tensor, lengths: list[int]):
        """Teacher forcing; the batch becomes smaller as captions end.

        The numbers are those of `AsWritten`. What does not depend on the state is computed for
        all words at once: keys, the words' part of the cell, the output layer, and the gradients
        of the weights that every step uses.

        Args:
            features: (B, L, D).
            captions: ids (B, T), ``<start>`` first, the longest caption first.
            lengths: how many words of each are read: all but ``<end>``.

        Returns:
            scores (sum of lengths, V), packed, and the weights (B, L) summed over the words.
        """
        features, hidden, cell, keys = self.start(features)
        features = features.to(keys.dtype)  # bfloat16 under autocast
        words, sizes, *_ = pack(captions, lengths)
        from_words, from_state = self.cell.weight_ih.split(
            (self.embedding.embedding_dim, features.shape[2]), dim=1
        )
        bias = self.cell.bias_ih + self.cell.bias_hh
        given = functional.linear(self.embedding(words), from_words, bias).split(sizes.tolist())
        recur = shared_linear(torch.cat((from_state, self.cell.weight_hh), dim=1), keys.dtype)
        look = shared_linear(torch.cat((self.query.weight, self.gate.weight)), keys.dtype)
        look_bias = torch.cat((self.query.bias, self.gate.bias)).to(keys.dtype)
        states, looked = [], 0
        for part in given:
            count = len(part)
            if count < len(keys):
                features, keys, hidden, cell = (x[:count] for x in (features, keys, hidden, cell))
            query, gate = (look(hidden) + look_bias).split((keys.shape[2], features.shape[2]), 1)
            scores = self.score(torch.relu(keys + query.unsqueeze(1))).squeeze(2)
            weights = scores.float().softmax(dim=1)
            context = torch.bmm(weights.to(keys.dtype).unsqueeze(1), features).squeeze(1)
            inputs = torch.cat((torch.sigmoid(gate) * context, hidden.to(keys.dtype)), dim=1)
            entry, forget, new, out = (recur(inputs) + part).float().chunk(4, dim=1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(entry) * torch.tanh(new)
            hidden = torch.sigmoid(out) * torch.tanh(cell)
            states.append(hidden)
            looked = looked + functional.pad(weights, (0, 0, 0, len(captions) - count))
        return self.output(self.dropout(torch.cat(states))), looked


class AsWritten(TutorialDecoder):
    """The decoder as the tutorial's code computes it: features projected, scores formed each step.

    The weights and numbers are those of `TutorialDecoder`; how much longer it takes is measured.
    """

    def start(self, features: Tensor) -> tuple[Tensor, ...]:
        """The state without the keys, which ``step`` computes anew."""
        return self.first_state(features)

    def forward(self, features: Tensor, captions: Tensor, lengths: list[int]):
        """See ``TutorialDecoder.forward``."""
        state = self.start(features)
        shape = len(captions), lengths[0]
        logits = state[0].new_zeros(*shape, self.output.out_features)
        attention = state[0].new_zeros(*shape, features.shape[1])
        for t in range(lengths[0]):
            going_on = sum(length > t for length in lengths)
            state = tuple(part[:going_on] for part in state)
            logits[:going_on, t], state, attention[:going_on, t] = self.step(
                captions[:going_on, t], state
            )
        return pack(logits, lengths).data, attention.sum(dim=1)


def pack(padded: Tensor, lengths: list[int]) -> PackedSequence:
    """The rows of (B, T, ...) that are not padding: those of the first word, then the second…"""
    return pack_padded_sequence(padded, lengths, batch_first=True)


def shared_linear(weight: Tensor, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """x Wᵀ for a weight W that each step of a loop uses; its gradient is one product at the end.

    Autograd would form a gradient as large as the weight at every step and add it up: for a few
    rows a step, this is most of the time of a backward pass.
    """
    steps: list[tuple[Tensor, Tensor]] = []
    token = _WeightGradient.apply(weight, steps)
    fixed = weight.detach().to(dtype)
    return lambda inputs: _Product.apply(inputs.to(dtype), fixed, token, steps)


class _WeightGradient(torch.autograd.Function):
    """Every product takes this function's output, so its backward pass runs after all of theirs."""

    @staticmethod
    def forward(ctx, weight, steps):
        ctx.steps = steps
        return weight.new_zeros(())

    @staticmethod
    def backward(ctx, _):
        inputs, gradients = (torch.cat(tensors) for tensors in zip(*ctx.steps, strict=True))
        ctx.steps.clear()
        return (gradients.T @ inputs).float(), None


class _Product(torch.autograd.Function):
    """x Wᵀ; backward gives the gradient of x, and notes what the gradient of W is made from."""

    @staticmethod
    def forward(ctx, inputs, weight, token, steps):
        ctx.save_for_backward(inputs, weight)
        ctx.steps = steps
        return inputs @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        # Detached: the graph of an input leads back to this list, a cycle that is never freed.
        ctx.steps.append((inputs.detach(), gradient))
        return gradient @ weight, None, gradient.new_zeros((), dtype=torch.float32), None


# ---------------------------------------------------------------- training


def batches(dataset: CaptionDataset, seed: int) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Features, captions and lengths of all pairs in random order, the longest of a batch first."""
    order = random.Random(seed).sample(range(len(dataset)), len(dataset))
    for start in range(0, len(order), BATCH_SIZE):
        yield read_batch(dataset, order[start : start + BATCH_SIZE])


def read_batch(dataset: CaptionDataset, indices: list[int]) -> tuple[Tensor, Tensor, list[int]]:
    """Features (B, L, D), captions (B, T) and lengths of some pairs, the longest caption first."""
    indices = sorted(indices, key=lambda index: -len(dataset.pairs[index][1]))
    features, captions = dataset[indices]
    lengths = [len(dataset.pairs[index][1]) - 1 for index in indices]
    return features.to(device()), captions.to(device()), lengths


def tutorial_loss(logits: Tensor, looked: Tensor, captions: Tensor, lengths: list[int]) -> Tensor:
    """Cross-entropy of the packed words, and the doubly stochastic term, mean over all places."""
    targets = pack(captions[:, 1:], lengths).data
    penalty = ((1 - looked) ** 2).mean()
    return functional.cross_entropy(logits.float(), targets) + PENALTY_WEIGHT * penalty


def train_step(model: TutorialDecoder, optimizer, batch, bfloat16: bool = False) -> float:
    """One step of Adam for a batch of ``batches``; gives the loss before it."""
    features, captions, lengths = batch
    with torch.autocast(features.device.type, torch.bfloat16, enabled=bfloat16):
        logits, looked = model(features, captions, lengths)
    loss = tutorial_loss(logits, looked, captions, lengths)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), CLIP_VALUE)
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def teacher_forced_bleu(model: TutorialDecoder, dataset: CaptionDataset) -> float:
    """BLEU-4 × 100 by which the tutorial chooses: the best word after the words of a reference.

    The caption whose words are given is one of the references, the candidate has its length, and
    ``<end>`` counts as a word. So this BLEU-4 is far above that of captions that the model writes
    alone.
    """
    model.eval()
    references: dict[int, list[str]] = {}
    written: dict[int, list[str]] = {}
    by_picture: dict[int, list[str]] = {}
    for row, ids in dataset.pairs:
        by_picture.setdefault(row, []).append(" ".join(map(str, ids[1:])))
    order = sorted(range(len(dataset)), key=lambda index: -len(dataset.pairs[index][1]))
    for start in range(0, len(order), BATCH_SIZE):
        indices = order[start : start + BATCH_SIZE]
        features, captions, lengths = read_batch(dataset, indices)
        best = model(features, captions, lengths)[0].argmax(dim=1)
        sizes = pack(captions, lengths).batch_sizes
        rows = pad_packed_sequence(PackedSequence(best, sizes), batch_first=True)[0].tolist()
        for index, words, length in zip(indices, rows, lengths, strict=True):
            written[index] = [" ".join(map(str, words[:length]))]
            references[index] = by_picture[dataset.pairs[index][0]]
    model.train()
    return 100 * Bleu(4).compute_score(references, written, verbose=0)[0][3]


def train(
    model: TutorialDecoder,
    training: CaptionDataset,
    validation: CaptionDataset,
    folder: Path,
    epochs: int,
    bfloat16: bool = False,
) -> list[dict]:
    """Train, or go on with the run in ``folder``; gives one dictionary an epoch.

    ``folder`` gets ``bleu.safetensors`` and ``cider.safetensors``, the best models, and
    ``run.safetensors`` to go on from.
    """
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=True)
    history = _resume(folder / "run.safetensors", model, optimizer)
    while len(history) < epochs and (stalled := _epochs_since_best(history)) < 20:
        if stalled and stalled % 8 == 0:
            optimizer.param_groups[0]["lr"] *= 0.8
        began, epoch = time.monotonic(), len(history) + 1
        torch.manual_seed(epoch)
        model.train()
        steps = tqdm(batches(training, epoch), total=-(-len(training) // BATCH_SIZE), leave=False)
        losses = [train_step(model, optimizer, batch, bfloat16) for batch in steps]
        seconds = time.monotonic() - began
        entry = {
            "epoch": epoch,
            "loss": sum(losses) / len(losses),
            "bleu": teacher_forced_bleu(model, validation),
            "cider": cider_of_captions(model, validation),
            "seconds": round(seconds, 1),
        }
        for score in ("bleu", "cider"):
            if entry[score] > max((past[score] for past in history), default=-1.0):
                write_file(folder / f"{score}.safetensors", model.state_dict(), entry)
        history.append(entry)
        _save(folder / "run.safetensors", model, optimizer, history)
        print(
            f"epoch {epoch:2}: loss {entry['loss']:.3f}, validation: teacher-forced BLEU-4 "
            f"{entry['bleu']:.2f}, greedy CIDEr {entry['cider']:.1f}; {seconds:.0f} s",
            flush=True,
        )
    return history


def _epochs_since_best(history: list[dict]) -> int:
    scores = [entry["bleu"] for entry in history]
    return len(scores) - 1 - scores.index(max(scores)) if scores else 0


def _save(path: Path, model: nn.Module, optimizer, history: list[dict]) -> None:
    tensors = {f"model.{name}": weight for name, weight in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"{number}.{name}": value for name, value in state.items()}
    write_file(path, tensors, {"history": history, "lr": optimizer.param_groups[0]["lr"]})


def _resume(path: Path, model: nn.Module, optimizer) -> list[dict]:
    if not path.exists():
        return []
    tensors, content = read_file(path)
    states: dict[int, dict] = {}
    for name in [name for name in tensors if not name.startswith("model.")]:
        number, key = name.split(".")
        states.setdefault(int(number), {})[key] = tensors.pop(name)
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items()})
    optimizer.load_state_dict({**optimizer.state_dict(), "state": states})
    optimizer.param_groups[0]["lr"] = content["lr"]
    return content["history"]


# ---------------------------------------------------------------- search and scores


@torch.inference_mode()
def tutorial_search(model, features: Tensor, beam_width: int = 5) -> list[int]:
    """The tutorial's beam search, for one picture (1, L, D); gives ids, ``<start>`` first.

    A caption that has ended is set aside with its log-probability, and the beam becomes narrower
    by one; the most probable of those set aside is taken. `decoding.beam_search` keeps ended
    captions in the beam, where better beginnings may push them out, and never writes
    ``<unknown>``: the two differ in this. If no caption has ended after ``LONGEST`` words, the
    tutorial fails; here, the most probable beginning is taken.
    """
    state = model.start(features.expand(beam_width, *features.shape[1:]))
    beams = torch.full((beam_width, 1), START, device=features.device)
    totals = torch.zeros(beam_width, 1, device=features.device)
    ended: list[tuple[float, list[int]]] = []
    for number in range(LONGEST):
        scores, state, _ = model.step(beams[:, -1], state)
        totals = totals + scores.log_softmax(dim=1)
        choices = totals[0] if number == 0 else totals.flatten()  # all begin alike
        best, flat = choices.topk(len(beams))
        parents, words = flat // scores.shape[1], flat % scores.shape[1]
        beams = torch.cat((beams[parents], words.unsqueeze(1)), dim=1)
        done = words == END
        ended += zip(best[done].tolist(), beams[done].tolist(), strict=True)
        if done.all():
            break
        beams, totals = beams[~done], best[~done].unsqueeze(1)
        state = tuple(part[parents[~done]] for part in state)
    return max(ended)[1] if ended else beams[0].tolist()


def print_scores(model, kept: str, split: data.Split, features, vocabulary: Vocabulary) -> None:
    """A line of scores × 100 for greedy search, the tutorial's beam of 5, and ours."""
    rows = tqdm(range(len(features)), desc="beam 5", leave=False)
    found = [tutorial_search(model, torch.as_tensor(features[[row]]).to(device())) for row in rows]
    batched = partial(beam_search, beam_width=5)
    written = {
        "greedy": caption_all(model, features, vocabulary, search=greedy),
        "beam 5": [vocabulary.decode(ids) for ids in found],
        "beam 5 of decoding": caption_all(model, features, vocabulary, 64, search=batched),
    }
    for search, captions in written.items():
        pair = split.references(), candidates(split.ids, captions)
        scores = metrics.score(*pair)
        free = metrics.score(*pair, meteor=False, brevity_penalty=False)
        print(f"kept by {kept}, {search}:", ", ".join(f"{n} {v:.2f}" for n, v in scores.items()))
        print("  BLEU without brevity penalty:", *(f"{free[f'BLEU-{n}']:.2f}" for n in range(1, 5)))
    unfinished = sum(ids[-1] != END for ids in found)
    unknown = sum("<unknown>" in caption for caption in written["beam 5"])
    same = sum(
        a == b for a, b in zip(written["beam 5"], written["beam 5 of decoding"], strict=True)
    )
    print(
        f"  of {len(found)} captions with beam 5, {unfinished} did not end, {unknown} hold "
        f"<unknown>, and {same} are those of decoding.beam_search",
        flush=True,
    )


def main() -> None:
    """Cache features, train, and print the scores of both models on the test split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--float32", action="store_true", help="where bfloat16 is slow")
    parser.add_argument("--folder", type=Path, help="where the run is kept and resumed")
    options = parser.parse_args()
    print(describe(), flush=True)
    encoder = create_encoder("efficientnet_lite2").to(device())
    splits = {name: data.load_split(data.flickr8k(), name) for name in ("train", "val", "test")}
    features = {name: data.cached_features(split, encoder) for name, split in splits.items()}
    vocabulary = Vocabulary.from_captions(sum(splits["train"].captions, []), MIN_COUNT)
    training, validation = (
        CaptionDataset(splits[name], features[name], vocabulary, max_words=100)
        for name in ("train", "val")
    )
    torch.manual_seed(0)
    model = TutorialDecoder(len(vocabulary), encoder.dim).to(device())
    folder = options.folder or data_folder() / "checkpoints" / "attention_tutorial"
    history = train(model, training, validation, folder, options.epochs, not options.float32)
    print(f"{len(vocabulary)} words, {sum(e['seconds'] for e in history):.0f} s of training")
    for score, kept in {"bleu": "teacher-forced BLEU-4", "cider": "greedy CIDEr"}.items():
        weights, entry = read_file(folder / f"{score}.safetensors")
        model.load_state_dict(weights)
        model.eval()
        where = f"{kept} (epoch {entry['epoch']})"
        print_scores(model, where, splits["test"], features["test"], vocabulary)


if __name__ == "__main__":
    main()
