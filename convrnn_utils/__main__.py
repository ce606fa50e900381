"""The command line: ``python -m convrnn_utils train``, ``evaluate`` and ``caption``."""

import argparse
import glob
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from convrnn_utils import data, metrics, processes
from convrnn_utils.checkpoints import DECODERS, SHIPPED_CAPTIONER, load_model, save_model
from convrnn_utils.decoding import (
    attention_of,
    beam_search,
    candidates,
    caption_all,
    greedy,
    log_probability,
)
from convrnn_utils.encoders import create_encoder
from convrnn_utils.env import data_folder, describe, device
from convrnn_utils.files import complete_or_absent
from convrnn_utils.self_critical import SelfCriticalLoss
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import blend, train

DATA_SETS = {"flickr8k": data.flickr8k, "scenes": data.scenes, "coco": data.coco}
DATA_HELP = f"{', '.join(DATA_SETS)}, or a CSV file of your own: see data.from_csv"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    try:
        options.command(options)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m convrnn_utils",
        description="Train a captioner, score it, or caption photographs with it.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    training = commands.add_parser(
        "train",
        help="train a captioner and score it on the test split",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    training.set_defaults(command=train_and_score)
    training.add_argument("--data", type=_data_set, default="flickr8k", help=DATA_HELP)
    training.add_argument("--encoder", default="efficientnet_lite2", help="any CNN by name")
    training.add_argument("--decoder", choices=DECODERS, default="rnn")
    training.add_argument(
        "--views",
        nargs="+",
        choices=data.VIEWS,
        default=["whole"],
        help="how a picture may be seen in training",
    )
    training.add_argument("--epochs", type=int, default=8)
    training.add_argument(
        "--batch-size", type=int, default=64, help="captions a step, or pictures with --by-picture"
    )
    training.add_argument(
        "--by-picture",
        action="store_true",
        help="a step takes pictures with five captions each, and reads each picture once",
    )
    training.add_argument("--learning-rate", type=float, default=1e-3)
    training.add_argument("--embed-size", type=int, default=512)
    training.add_argument("--hidden-size", type=int, default=512)
    training.add_argument("--attention-size", type=int, default=256, help="of --decoder attention")
    training.add_argument("--dropout", type=float, default=0.4)
    training.add_argument("--label-smoothing", type=float, default=0.1)
    training.add_argument("--weight-decay", type=float, default=0.0)
    training.add_argument("--averaging", type=float, default=0.0, help="share kept at each step")
    training.add_argument("--min-count", type=int, default=5, help="rarer words are unknown")
    training.add_argument(
        "--self-critical",
        type=int,
        default=0,
        metavar="EPOCHS",
        help="then go on for so many epochs, training on CIDEr itself; wants --by-picture",
    )
    training.add_argument("--self-critical-rate", type=float, default=2e-4, metavar="RATE")
    training.add_argument(
        "--self-critical-share",
        type=float,
        default=0.7,
        metavar="SHARE",
        help="of these weights in the result; the rest is the weights before them",
    )
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--folder", type=Path, help="where the run is kept and resumed")

    evaluating = commands.add_parser(
        "evaluate",
        help="score the captions of a trained model",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    evaluating.set_defaults(command=evaluate)
    evaluating.add_argument("checkpoint", type=Path, help="a .safetensors that train has written")
    evaluating.add_argument("--data", type=_data_set, default="flickr8k", help=DATA_HELP)
    evaluating.add_argument("--split", choices=["val", "test"], default="test")
    _add_search_options(evaluating, beam=1)

    captioning = commands.add_parser(
        "caption",
        help="write captions for photographs",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    captioning.set_defaults(command=caption_files)
    captioning.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    captioning.add_argument(
        "--checkpoint",
        type=Path,
        default=SHIPPED_CAPTIONER,
        help="a .safetensors that train has written",
    )
    captioning.add_argument("--json", action="store_true", help="print one JSON list")
    captioning.add_argument(
        "--attention", type=Path, metavar="DIR", help="save a picture of where it looked, for each"
    )
    _add_search_options(captioning, beam=5)
    return parser


def _add_search_options(parser: argparse.ArgumentParser, beam: int) -> None:
    parser.add_argument("--beam", type=int, default=beam, metavar="WIDTH", help="1 is greedy")
    parser.add_argument("--length-power", type=float, default=1.0, help="see beam_search")


def _data_set(name: str) -> str:
    if name not in DATA_SETS and not name.endswith(".csv"):
        known = ", ".join(DATA_SETS)
        raise argparse.ArgumentTypeError(f"{name!r} is neither {known} nor a file NAME.csv")
    return name


def _folder_of(name: str) -> Path:
    return DATA_SETS[name]() if name in DATA_SETS else data.from_csv(name)


def _search(options: argparse.Namespace):
    """The search that the options ask for, and its name."""
    if options.beam < 1:
        raise ValueError("a beam needs a width of at least 1.")
    if options.length_power < 0:
        raise ValueError(f"length_power is {options.length_power:g}; it must be 0 or more.")
    if options.beam == 1:
        return greedy, "greedy"
    search = partial(beam_search, beam_width=options.beam, length_power=options.length_power)
    return search, f"beam {options.beam}, length power {options.length_power:g}"


def train_and_score(options: argparse.Namespace) -> None:
    """Cache features, train, and print the scores of greedy captions of the test split."""
    if options.self_critical and not options.by_picture:
        raise ValueError("--self-critical needs all captions of a picture at once: --by-picture.")
    processes.join()
    if processes.rank() == 0:
        print(describe(), flush=True)
    with processes.first_before_others():  # it downloads, and keeps the features
        folder = _folder_of(options.data)
        encoder = create_encoder(options.encoder).to(device())
        splits = {
            name: data.readable(data.load_split(folder, name)) for name in ("train", "val", "test")
        }
        features = partial(data.cached_features, encoder=encoder, pooled=options.decoder == "rnn")
        views = data.Views({view: features(splits["train"], view=view) for view in options.views})
        validation, test = features(splits["val"]), features(splits["test"])
    captions = [caption for group in splits["train"].captions for caption in group]
    vocabulary = Vocabulary.from_captions(captions, options.min_count)
    if processes.rank() == 0:
        print(f"{len(splits['train'])} pictures, {len(captions)} captions, {len(vocabulary)} words")

    sizes = {"attention_size": options.attention_size} if options.decoder == "attention" else {}
    model = DECODERS[options.decoder](
        options.embed_size,
        options.hidden_size,
        len(vocabulary),
        dropout=options.dropout,
        cnn=encoder,
        **sizes,
    ).to(device())
    run = options.folder or data_folder() / "checkpoints" / (
        f"{Path(options.data).stem}-{options.encoder}-{options.decoder}"
    )
    kind = data.PictureDataset if options.by_picture else data.CaptionDataset
    dataset = kind(splits["train"], views, vocabulary)
    go_on = partial(
        train,
        model,
        dataset,
        kind(splits["val"], validation, vocabulary),
        batch_size=options.batch_size,
        averaging=options.averaging,
        seed=options.seed,
        on_epoch=lambda history: print(_epoch_line(history[-1]), flush=True),
    )
    go_on(
        run,
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        label_smoothing=options.label_smoothing,
        weight_decay=options.weight_decay,
    )
    if options.self_critical:
        loss, rate = SelfCriticalLoss(dataset), options.self_critical_rate
        go_on(run / "self-critical", epochs=options.self_critical, learning_rate=rate, loss=loss)
        blend(model, run / "best.safetensors", options.self_critical_share)
    if processes.leave() > 0:
        return
    path = run / "captioner.safetensors"
    facts = {"data": options.data, "command": options.arguments, "metrics": {}}
    save_model(path, model, vocabulary, half=True, **facts)
    model = load_model(path)[0].to(device())  # what is scored is what is kept
    for name, array in (("val", validation), ("test", test)):
        written = caption_all(model, array, vocabulary)
        split = splits[name]
        scores = metrics.score(split.references(), candidates(split.ids, written))
        facts["metrics"][name] = scores
        _print_scores(split, "greedy", scores)
    save_model(path, model, vocabulary, half=True, **facts)
    print(f"The captioner is {path}.")


def _epoch_line(entry: dict) -> str:
    return (
        f"epoch {entry['epoch']:2}: training loss {entry['training_loss']:.3f}, validation loss "
        f"{entry['validation_loss']:.3f}, CIDEr {entry['cider']:.1f}, {entry['seconds']:.0f} s"
    )


def _print_scores(split: data.Split, search: str, scores: dict[str, float]) -> None:
    references = len(split.captions[0])
    print(f"{split.name.replace('/', ' ')}, {search}, {references} references, scores × 100")
    for name, value in scores.items():
        print(f"{name:8} {value:5.1f}")


def evaluate(options: argparse.Namespace) -> None:
    """Print the scores of a model's captions on one split of a data set."""
    search, name = _search(options)
    model, vocabulary, _ = load_model(options.checkpoint)
    model = model.to(device())
    split = data.load_split(_folder_of(options.data), options.split)
    features = data.cached_features(split, model.cnn, pooled=isinstance(model, DECODERS["rnn"]))
    written = caption_all(model, features, vocabulary, search=search)
    pair = split.references(), candidates(split.ids, written)
    _print_scores(split, name, metrics.score(*pair))
    free = metrics.score(*pair, meteor=False, brevity_penalty=False)
    bleu = ", ".join(f"{free[f'BLEU-{length}']:.1f}" for length in range(1, 5))
    print(f"BLEU-1 to BLEU-4 without the brevity penalty: {bleu}")


def caption_files(options: argparse.Namespace) -> None:
    """Print a caption for each photograph; one that cannot be read is named, and passed over."""
    search, _ = _search(options)
    model, vocabulary, _ = load_model(options.checkpoint)
    model = model.to(device())
    if options.attention and not hasattr(model, "forward_with_attention"):
        raise ValueError(f"{options.checkpoint} holds a model without attention: it looks nowhere.")
    photos = [path for given in options.photos for path in _matching(given)]
    if options.attention:
        _require_different_names(photos)
    records = []
    for start in tqdm(range(0, len(photos), 32), disable=len(photos) <= 32):
        readable = _readable(photos[start : start + 32])
        if not readable:
            continue
        paths, images = zip(*readable, strict=True)
        pictures = torch.stack([model.cnn.preprocess(image) for image in images])
        with torch.inference_mode():
            features = model.cnn(pictures.to(device()))
        ids = search(model, features)
        certainties = log_probability(model, features, ids).tolist()
        if options.attention:
            looks = attention_of(model, features, ids).cpu().numpy()
            for path, row, weights in zip(paths, ids.tolist(), looks, strict=True):
                words = vocabulary.decode(row).split()
                if words:
                    _save_attention(options.attention, path, words, weights[: len(words)])
        for path, row, certainty in zip(paths, ids.tolist(), certainties, strict=True):
            caption = vocabulary.decode(row)
            record = {"file": str(path), "caption": caption, "log_probability": certainty}
            records.append(record)
            if not options.json:
                print(f"{path}: {caption}", flush=True)
    if options.json:
        print(json.dumps(records, ensure_ascii=False, indent=1))
    if left_out := len(photos) - len(records):
        sys.exit(f"{left_out} of {len(photos)} files have no caption: see above.")


def _matching(path: Path) -> list[Path]:
    """The files that a pattern such as ``*.jpg`` names: on Windows the shell does not ask."""
    if path.exists():
        return [path]
    return [Path(name) for name in sorted(glob.glob(str(path)))] or [path]


def _require_different_names(paths: list[Path]) -> None:
    """Raise a ``ValueError`` where one picture of attention would replace another."""
    names = Counter(path.name for path in paths)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(
            f"several photographs are called {twice[0]}; with --attention, caption those of each "
            "folder by themselves."
        )


def _readable(paths: list[Path]) -> list[tuple[Path, Image.Image]]:
    """The files that hold a picture, and it; what is wrong with the others goes to stderr."""
    pictures = []
    for path in paths:
        try:
            pictures.append((path, data.read_image(path)))
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
    return pictures


def _save_attention(folder: Path, path: Path, words: list[str], weights) -> None:
    """Save ``photo.jpg.attention.png`` for ``photo.jpg``."""
    from convrnn_utils import plots  # takes a second to load, which only this needs

    figure = plots.show_attention(data.read_image(path), words, weights)
    folder.mkdir(parents=True, exist_ok=True)
    with complete_or_absent(folder / f"{path.name}.attention.png") as unfinished:
        figure.savefig(unfinished, format="png", dpi=100, bbox_inches="tight")
    plots.plt.close(figure)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # in a file, Windows would have another one
    main()
