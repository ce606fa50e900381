"""The command line: ``python -m convrnn_utils train`` and ``python -m convrnn_utils caption``."""

import argparse
import sys
from pathlib import Path

from convrnn_utils import data, metrics
from convrnn_utils.checkpoints import load_model, save_model
from convrnn_utils.decoders import ConvRNN
from convrnn_utils.decoding import candidates, caption_all
from convrnn_utils.encoders import create_encoder
from convrnn_utils.env import data_folder, describe, device, repository
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import train

SHIPPED_CAPTIONER = repository() / "data" / "captioner" / "flickr8k_rnn.safetensors"
DATA_SETS = {"flickr8k": data.flickr8k, "scenes": data.scenes, "coco": data.coco}


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    options = build_parser().parse_args(arguments)
    try:
        options.command(options)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m convrnn_utils", description="Train a captioner, or caption photographs."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    training = commands.add_parser(
        "train",
        help="train a captioner and score it on the test split",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    training.set_defaults(command=train_and_score)
    training.add_argument("--data", choices=DATA_SETS, default="flickr8k")
    training.add_argument("--encoder", default="efficientnet_lite0", help="any CNN by name")
    training.add_argument("--decoder", choices=["rnn"], default="rnn")
    training.add_argument("--epochs", type=int, default=8)
    training.add_argument("--batch-size", type=int, default=64, help="captions a step")
    training.add_argument("--learning-rate", type=float, default=1e-3)
    training.add_argument("--embed-size", type=int, default=512)
    training.add_argument("--hidden-size", type=int, default=512)
    training.add_argument("--dropout", type=float, default=0.4)
    training.add_argument("--label-smoothing", type=float, default=0.1)
    training.add_argument("--min-count", type=int, default=5, help="rarer words are unknown")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--folder", type=Path, help="where the run is kept and resumed")

    captioning = commands.add_parser("caption", help="write captions for photographs")
    captioning.set_defaults(command=caption_files)
    captioning.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    captioning.add_argument("--checkpoint", type=Path, help="a .safetensors that train has written")
    return parser


def train_and_score(options: argparse.Namespace) -> None:
    """Cache features, train, and print the scores of greedy captions of the test split."""
    print(describe(), flush=True)
    folder = DATA_SETS[options.data]()
    encoder = create_encoder(options.encoder).to(device())
    splits = {name: data.load_split(folder, name) for name in ("train", "val", "test")}
    features = {
        name: data.cached_features(split, encoder, pooled=True) for name, split in splits.items()
    }
    captions = [caption for group in splits["train"].captions for caption in group]
    vocabulary = Vocabulary.from_captions(captions, options.min_count)
    print(f"{len(splits['train'])} pictures, {len(captions)} captions, {len(vocabulary)} words")

    model = ConvRNN(
        options.embed_size,
        options.hidden_size,
        len(vocabulary),
        dropout=options.dropout,
        cnn=encoder,
    ).to(device())
    run = options.folder or data_folder() / "checkpoints" / (
        f"{options.data}-{options.encoder}-{options.decoder}"
    )
    history = train(
        model,
        data.CaptionDataset(splits["train"], features["train"], vocabulary),
        data.CaptionDataset(splits["val"], features["val"], vocabulary),
        run,
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        label_smoothing=options.label_smoothing,
        seed=options.seed,
        on_epoch=lambda history: print(_epoch_line(history[-1]), flush=True),
    )
    written = caption_all(model, features["test"], vocabulary)
    scores = metrics.score(splits["test"].references(), candidates(splits["test"].ids, written))
    best = max(history, key=lambda entry: entry["cider"])
    facts = {"data": options.data, "metrics": {"validation": best, "test": scores}}
    save_model(run / "best.safetensors", model, vocabulary, **facts)
    print(f"{run / 'best.safetensors'}: epoch {best['epoch']}, the best CIDEr on val")
    references = len(splits["test"].captions[0])
    print(f"{options.data} test, greedy, {references} references, scores × 100")
    for name, value in scores.items():
        print(f"{name:8} {value:5.1f}")


def _epoch_line(entry: dict) -> str:
    return (
        f"epoch {entry['epoch']:2}: training loss {entry['training_loss']:.3f}, validation loss "
        f"{entry['validation_loss']:.3f}, CIDEr {entry['cider']:.1f}, {entry['seconds']:.0f} s"
    )


def caption_files(options: argparse.Namespace) -> None:
    """Print a caption for each photograph."""
    model, vocabulary, _ = load_model(options.checkpoint or SHIPPED_CAPTIONER)
    for path in options.photos:
        picture = model.cnn_encoder.cnn.preprocess(data.read_image(path))
        print(f"{path}: {caption_all(model, picture.unsqueeze(0), vocabulary)[0]}")


if __name__ == "__main__":
    main()
