"""What each part of the shipped captioner's training brings: a short run for each on Flickr8k.

python benchmarks/ablation.py --epochs 4

The first run is a shorter training of the course's captioner (see ``data/README.md``), with a
dropout of 0.5 instead of 0.3, and without the training on CIDEr that follows it. The second is the
same with another seed: it says how much of a difference is chance. Each further run changes one
thing. The captions scored are those of the validation split, with a beam of 5, a length power of 1
and five references. Runs are kept in ``data/checkpoints/ablation``; an interrupted run is resumed.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from convrnn_utils import data, metrics
from convrnn_utils.attention import ShowAttendTell
from convrnn_utils.checkpoints import DECODERS
from convrnn_utils.data import PictureDataset
from convrnn_utils.decoding import beam_search, candidates, caption_all
from convrnn_utils.encoders import create_encoder
from convrnn_utils.env import data_folder, describe, device
from convrnn_utils.files import complete_or_absent
from convrnn_utils.text import PAD, Vocabulary
from convrnn_utils.training import caption_loss, train

SCORES = ("CIDEr", "BLEU-4", "METEOR")


class Untied(ShowAttendTell):
    """The captioner with an output layer of its own instead of the table of embeddings."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.output = nn.Parameter(torch.empty_like(self.embed.weight).uniform_(-0.1, 0.1))

    def _scores(self, states: Tensor) -> Tensor:
        states = self.dropout(torch.tanh(self.combine(self.dropout(states))))
        return functional.linear(states, self.output, self.bias)


DECODERS["untied"] = Untied  # so that it can be saved


def scheduled_sampling(share: float, label_smoothing: float) -> Callable:
    """A loss: some of the words that the model reads are those it would have written itself.

    The model reads the true words once, and each of its most probable answers then takes the
    place of the true word with a probability of ``share``: in parallel for all words, which is
    quicker than word by word and nearly the same (Bengio et al., arXiv:1506.03099; Duckworth et
    al., arXiv:1906.04331).
    """

    def loss(model: nn.Module, inputs: Tensor, captions: Tensor) -> Tensor:
        with torch.no_grad():
            answers = model(inputs, captions[:, :-1]).argmax(dim=2)  # (B, T - 1)
        chosen = torch.rand(answers.shape, device=answers.device) < share
        chosen &= captions[:, 1:] != PAD
        read = captions.clone()
        read[:, 1:] = torch.where(chosen, answers, captions[:, 1:])
        return caption_loss(model(inputs, read[:, :-1]), captions, label_smoothing)

    loss.__name__ = f"scheduled_sampling({share})"  # kept with the run
    return loss


def run_once(
    folder: Path,
    epochs: int,
    batch_size: int = 40,
    encoder_name: str = "efficientnet_lite2",
    views: tuple[str, ...] = ("whole", "mirrored"),
    min_count: int = 5,
    model_class: type[ShowAttendTell] = ShowAttendTell,
    dropout: float = 0.5,
    label_smoothing: float = 0.1,
    averaging: float = 0.995,
    sampled_share: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:
    """Train once, or resume an earlier run; return the scores of the model's captions."""
    encoder = create_encoder(encoder_name).to(device())
    splits = {name: data.load_split(data.flickr8k(), name) for name in ("train", "val")}
    features = partial(data.cached_features, encoder=encoder)
    inputs = data.Views({view: features(splits["train"], view=view) for view in views})
    vocabulary = Vocabulary.from_captions(sum(splits["train"].captions, []), min_count)
    torch.manual_seed(seed)
    model = model_class(256, 512, len(vocabulary), 256, dropout=dropout, cnn=encoder).to(device())
    loss = scheduled_sampling(sampled_share, label_smoothing) if sampled_share else None
    validation = features(splits["val"])
    train(
        model,
        PictureDataset(splits["train"], inputs, vocabulary),
        PictureDataset(splits["val"], validation, vocabulary),
        folder,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=2e-3,
        label_smoothing=label_smoothing,
        averaging=averaging,
        patience=epochs,
        seed=seed,
        loss=loss,
    )
    search = partial(beam_search, length_power=1.0)
    written = caption_all(model, validation, vocabulary, search=search)
    scores = metrics.score(splits["val"].references(), candidates(splits["val"].ids, written))
    return {name: scores[name] for name in SCORES}


RUNS = {
    "the base": {},
    "the same, another seed": {"seed": 1},
    "without dropout": {"dropout": 0.0},
    "without label smoothing": {"label_smoothing": 0.0},
    "the last weights, not their mean": {"averaging": 0.0},
    "without mirrored pictures": {"views": ("whole",)},
    "an output layer of its own": {"model_class": Untied},
    "every word seen twice or more": {"min_count": 2},
    "only words seen ten times or more": {"min_count": 10},
    "scheduled sampling, share 0.2": {"sampled_share": 0.2},
    "EfficientNet-Lite0 for Lite2": {"encoder_name": "efficientnet_lite0"},
}


def main() -> None:
    """Make the runs one after the other; print a table and keep it beside them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where the runs are kept and resumed")
    options = parser.parse_args()
    print(describe(), flush=True)
    folder = options.folder or data_folder() / "checkpoints" / "ablation"
    rows, path = {}, folder / f"scores-{options.epochs}-epochs.json"
    if path.exists():
        rows = json.loads(path.read_text())
    print(f"{'':36}" + "".join(f"{name:>8}" for name in SCORES))
    for name, changes in RUNS.items():
        if name not in rows:
            run = folder / f"{name.replace(' ', '-').replace(',', '')}-{options.epochs}"
            rows[name] = run_once(run, options.epochs, **changes)
            with complete_or_absent(path) as unfinished:
                unfinished.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{name:36}" + "".join(f"{rows[name][s]:8.1f}" for s in SCORES), flush=True)


if __name__ == "__main__":
    main()
