"""The command line: ``python -m convrnn_utils train``, ``evaluate`` and ``caption``."""

import argparse
import glob
import json
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable
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
from convrnn_utils.runs import saves_in
from convrnn_utils.self_critical import SelfCriticalLoss
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import best_epoch, blend, train

DATA_SETS = {"flickr8k": data.flickr8k, "scenes": data.scenes, "coco": data.coco}
DATA_HELP = f"{', '.join(DATA_SETS)}, or a CSV file of your own (data/README.md says what is in it)"


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    try:
        options.command(options)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        trains = options.command is train_and_score
        advice = " The same command goes on from here." if trains else ""
        print(f"\nInterrupted.{advice}", file=sys.stderr)
        sys.exit(130)  # as the shell has it for a program that was interrupted


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m convrnn_utils",
        description="Train a captioner, score it, or caption photographs with it.",
        epilog="If something does not work: python -m convrnn_utils.checkup says what is missing.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    training = commands.add_parser(
        "train",
        help="train a captioner and score it on the test split",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    training.set_defaults(command=train_and_score)
    training.add_argument("--data", type=_data_set, default="flickr8k", help=DATA_HELP)
    training.add_argument(
        "--encoder",
        default="efficientnet_lite2",
        help="a CNN of the course (efficientnet_lite0, small_cnn) or of torchvision (resnet50)",
    )
    training.add_argument(
        "--decoder",
        choices=DECODERS,
        default="rnn",
        help="rnn reads one vector of a picture, attention looks at its places",
    )
    training.add_argument(
        "--views",
        nargs="+",
        choices=data.VIEWS,
        default=["whole"],
        help="how a picture may be seen in training",
    )
    training.add_argument(
        "--epochs",
        type=_number(int, 1),
        default=8,
        help="passes over the captions, at most: it stops when three bring nothing better",
    )
    training.add_argument(
        "--batch-size",
        type=_number(int, 2),
        default=64,
        help="captions a step, or pictures with --by-picture",
    )
    training.add_argument(
        "--by-picture",
        action="store_true",
        help="a step takes pictures with five captions each, and reads each picture once",
    )
    training.add_argument(
        "--learning-rate",
        type=_number(float, 0),
        default=1e-3,
        metavar="RATE",
        help="of Adam in the first step; it falls to 0",
    )
    size = _number(int, 1)
    training.add_argument("--embed-size", type=size, default=512, help="of a word's vector")
    training.add_argument("--hidden-size", type=size, default=512, help="of the LSTM's state")
    training.add_argument(
        "--attention-size", type=size, default=256, help="of keys and query of --decoder attention"
    )
    training.add_argument(
        "--dropout",
        type=_number(float, 0, 1),
        default=0.4,
        metavar="SHARE",
        help="of the decoder's activations that are set to 0 in a step",
    )
    training.add_argument(
        "--label-smoothing",
        type=_number(float, 0, 1),
        default=0.1,
        metavar="SHARE",
        help="of the target that all words share",
    )
    training.add_argument(
        "--weight-decay", type=_number(float, 0), default=0.0, metavar="RATE", help="of AdamW"
    )
    training.add_argument(
        "--averaging",
        type=_number(float, 0, 1),
        default=0.0,
        metavar="SHARE",
        help="that a running mean of the weights keeps at each step; 0 is without a mean",
    )
    training.add_argument(
        "--min-count", type=_number(int, 1), default=5, help="rarer words are unknown"
    )
    training.add_argument(
        "--self-critical",
        type=_number(int, 0),
        default=0,
        metavar="EPOCHS",
        help="then go on for so many epochs, training on CIDEr itself; wants --by-picture",
    )
    training.add_argument(
        "--self-critical-rate",
        type=_number(float, 0),
        default=2e-4,
        metavar="RATE",
        help="the learning rate of these epochs",
    )
    training.add_argument(
        "--self-critical-share",
        type=_number(float, 0, 1),
        default=0.7,
        metavar="SHARE",
        help="of these weights in the result; the rest is the weights before them",
    )
    training.add_argument("--seed", type=int, default=0, help="fixes all that is left to chance")
    training.add_argument(
        "--folder",
        type=Path,
        help="where the run is kept and goes on; without it data/checkpoints/DATA-ENCODER-DECODER",
    )

    evaluating = commands.add_parser(
        "evaluate",
        help="score the captions of a trained model",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    evaluating.set_defaults(command=evaluate)
    evaluating.add_argument("checkpoint", type=Path, help="a .safetensors that train has written")
    evaluating.add_argument(
        "--data", type=_data_set, help=f"{DATA_HELP}; without it what the model was trained on"
    )
    evaluating.add_argument(
        "--split", choices=["val", "test"], default="test", help="the pictures to caption"
    )
    _add_search_options(evaluating, beam=1)

    captioning = commands.add_parser(
        "caption",
        help="write captions for photographs",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    captioning.set_defaults(command=caption_files)
    captioning.add_argument(
        "photos", nargs="+", type=Path, metavar="PHOTO", help="picture files, such as *.jpg"
    )
    captioning.add_argument(
        "--checkpoint",
        type=Path,
        default=SHIPPED_CAPTIONER,
        help="a .safetensors that train has written",
    )
    captioning.add_argument("--json", action="store_true", help="print one JSON list")
    captioning.add_argument(
        "--attention",
        type=Path,
        metavar="DIR",
        help="save for each a picture of where it looked, DIR/PHOTO.jpg.attention.png",
    )
    _add_search_options(captioning, beam=5)
    return parser


def _add_search_options(parser: argparse.ArgumentParser, beam: int) -> None:
    parser.add_argument(
        "--beam",
        type=_number(int, 1),
        default=beam,
        metavar="WIDTH",
        help="beginnings that are kept at each word; with 1 the search is greedy",
    )
    parser.add_argument(
        "--length-power",
        type=_number(float, 0),
        default=1.0,
        metavar="POWER",
        help="of the beams, the one wins whose log-probability, divided by its number of words to "
        "this power, is highest: 0 takes the most probable caption, above 0 longer ones",
    )


def _number(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """What reads a number of this kind (``int`` or ``float``) that is not outside these bounds."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value <= most:
            bounds = f"{least} or more" if most == math.inf else f"between {least} and {most}"
            raise argparse.ArgumentTypeError(f"it is {text}, and has to be {bounds}")
        return value

    number.__name__ = kind.__name__  # argparse names it where the text is no number
    return number


def _data_set(name: str) -> str:
    if name not in DATA_SETS and not name.endswith(".csv"):
        known = ", ".join(DATA_SETS)
        raise argparse.ArgumentTypeError(f"{name!r} is neither {known} nor a file NAME.csv")
    return name


def _folder_of(name: str) -> Path:
    return DATA_SETS[name]() if name in DATA_SETS else data.from_csv(name)


def _search(options: argparse.Namespace):
    """The search that the options ask for, and its name."""
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
    validating = kind(splits["val"], validation, vocabulary)

    def train_in(folder: Path, epochs: int, **settings) -> None:
        if processes.rank() == 0:
            print(f"{'Going on' if saves_in(folder) else 'Training'} in {folder}.", flush=True)
        history = train(
            model,
            dataset,
            validating,
            folder,
            epochs=epochs,
            batch_size=options.batch_size,
            averaging=options.averaging,
            seed=options.seed,
            on_epoch=lambda history: tqdm.write(_epoch_line(history[-1])),  # above the bar
            **settings,
        )
        if processes.rank() == 0:
            print(_end_line(history, epochs), flush=True)

    train_in(
        run,
        options.epochs,
        learning_rate=options.learning_rate,
        label_smoothing=options.label_smoothing,
        weight_decay=options.weight_decay,
    )
    if options.self_critical:
        loss, rate = SelfCriticalLoss(dataset), options.self_critical_rate
        train_in(run / "self-critical", options.self_critical, learning_rate=rate, loss=loss)
        blend(model, run / "best.safetensors", options.self_critical_share)
    if processes.leave() > 0:
        return
    path = run / "captioner.safetensors"
    facts = {"data": folder.name, "command": options.arguments, "metrics": {}}
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


def _end_line(history: list[dict], epochs: int) -> str:
    """Which epoch is kept, why, and why there were fewer than asked for."""
    scores = [entry["cider"] for entry in history]
    best = best_epoch(history)
    alone = scores.count(best["cider"]) == 1
    reason = "highest CIDEr" if alone else "lowest validation loss of those with the highest CIDEr"
    end = f"Epoch {best['epoch']} is kept: {reason}."
    if len(history) < epochs:
        later = len(history) - best["epoch"]
        end += f" Training stopped, as the {later} after it brought nothing better."
    return end


def _print_scores(split: data.Split, search: str, scores: dict[str, float]) -> None:
    numbers = [len(captions) for captions in split.captions]
    fewest, most = min(numbers), max(numbers)
    references = f"{'' if fewest == most else f'{fewest} to '}{most} reference{'s'[: most - 1]}"
    print(f"{split.name.replace('/', ' ')}, {search}, {references}, scores × 100")
    for name, value in scores.items():
        print(f"{name:8} {value:5.1f}")


def evaluate(options: argparse.Namespace) -> None:
    """Print the scores of a model's captions on one split of a data set."""
    search, name = _search(options)
    model, vocabulary, facts = load_model(options.checkpoint)
    model = model.to(device())
    folder = _folder_of(options.data) if options.data else _trained_on(options.checkpoint, facts)
    split = data.load_split(folder, options.split)
    features = data.cached_features(split, model.cnn, pooled=isinstance(model, DECODERS["rnn"]))
    written = caption_all(model, features, vocabulary, search=search)
    pair = split.references(), candidates(split.ids, written)
    _print_scores(split, name, metrics.score(*pair))
    free = metrics.score(*pair, meteor=False, brevity_penalty=False)
    bleu = ", ".join(f"{free[f'BLEU-{length}']:.1f}" for length in range(1, 5))
    print(f"BLEU-1 to BLEU-4 without the brevity penalty: {bleu}")


def _trained_on(checkpoint: Path, facts: dict) -> Path:
    """The data set, here, that a model was trained on."""
    name = str(facts.get("data", "")).split("/")[0]  # of flickr8k/train, flickr8k
    if name and (folder := data_folder() / name).is_dir():
        return folder
    if name in DATA_SETS:
        return DATA_SETS[name]()
    raise ValueError(
        f"{checkpoint} was trained on {name or 'data that it does not name'}, which is not in "
        f"{data_folder()}; say with --data what to evaluate it on."
    )


def caption_files(options: argparse.Namespace) -> None:
    """Print a caption for each photograph; one that cannot be read is named, and passed over."""
    search, _ = _search(options)
    photos = [path for given in options.photos for path in _matching(given)]
    if options.attention:
        _require_different_names(photos)
    model, vocabulary, _ = load_model(options.checkpoint)
    model = model.to(device())
    if options.attention and not hasattr(model, "forward_with_attention"):
        raise ValueError(
            f"{options.checkpoint} holds a model without attention, which looks nowhere; leave "
            "out --attention."
        )
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
    if options.attention and records:
        print(f"Where it looked is drawn in {options.attention}.", file=sys.stderr)
    if left_out := len(photos) - len(records):
        sys.exit(f"Files without a caption: {left_out} of {len(photos)}; see above.")


def _matching(path: Path) -> list[Path]:
    """The files that a pattern such as ``*.jpg`` names: on Windows the shell does not ask."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matching = [Path(name) for name in sorted(glob.glob(str(path)))]
    if not matching:
        raise FileNotFoundError(f"no file is called {path}; check the folder and the pattern.")
    return matching


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
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # without a line of ours
    main()
