"""What the commands of ``python -m convrnn_utils`` do: train, evaluate, caption."""

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
from convrnn_utils.env import data_folder, describe, device, seed_everything
from convrnn_utils.files import complete_or_absent
from convrnn_utils.runs import saves_in
from convrnn_utils.self_critical import SelfCriticalLoss
from convrnn_utils.text import Vocabulary
from convrnn_utils.training import best_epoch, blend, train

DATA_SETS = {"flickr8k": data.flickr8k, "scenes": data.scenes, "coco": data.coco}


def train_and_score(options: argparse.Namespace) -> None:
    """Cache features, train, and print the scores of greedy captions of val and test."""
    if options.self_critical and not options.by_picture:
        raise ValueError("--self-critical needs all captions of a picture: add --by-picture.")
    _require_folder(options.folder, "--folder")
    if options.data == "scenes" and "mirrored" in options.views:
        raise ValueError(
            "mirrored scenes make 'to the left of' false; leave 'mirrored' out of --views."
        )
    processes.join()
    _say(describe())
    with processes.first_before_others():  # the first downloads, and caches the features
        encoder = create_encoder(options.encoder).to(device())  # a wrong name is said at once
        folder = _folder_of(options.data)
        splits = _splits(options, folder)
        inputs = _inputs(options, encoder, splits)
    captions = [caption for group in splits["train"].captions for caption in group]
    vocabulary = Vocabulary.from_captions(captions, options.min_count)
    if not vocabulary.own_words:
        raise ValueError(
            f"no word of the {len(captions)} captions occurs {options.min_count} times or more; "
            "give a lower --min-count."
        )
    _say(f"{len(splits['train'])} pictures, {len(captions)} captions, {len(vocabulary)} words")

    seed_everything(options.seed)  # for the initial weights, too
    model = _new_model(options, encoder, vocabulary)
    kind = data.PictureDataset if options.by_picture else data.CaptionDataset
    training, validation = (kind(splits[n], inputs[n], vocabulary) for n in ("train", "val"))
    run = options.folder or data_folder() / "checkpoints" / (
        f"{Path(options.data).stem}-{options.encoder}-{options.decoder}"
    )
    _train_in(
        run,
        options,
        (model, training, validation),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        label_smoothing=options.label_smoothing,
        weight_decay=options.weight_decay,
    )
    if options.self_critical:
        _train_in(
            run / "self-critical",
            options,
            (model, training, validation),
            epochs=options.self_critical,
            learning_rate=options.self_critical_rate,
            loss=SelfCriticalLoss(training),
        )
        blend(model, run / "best.safetensors", options.self_critical_share)
    if processes.leave() == 0:
        facts = {"data": folder.name, "command": options.arguments, "metrics": {}}
        _save_with_scores(run / "captioner.safetensors", model, vocabulary, facts, splits, inputs)


def _splits(options: argparse.Namespace, folder: Path) -> dict[str, data.Split]:
    """The three splits of a data set, without the pictures that cannot be read."""
    splits = {
        name: data.readable(data.load_split(folder, name)) for name in ("train", "val", "test")
    }
    if options.by_picture:
        data.require_captions(splits["train"])
        data.require_captions(splits["val"])
    return splits


def _save_with_scores(
    path: Path, model, vocabulary: Vocabulary, facts: dict, splits: dict, inputs: dict
) -> None:
    """Save a captioner, print the scores of its captions of val and test, and save these, too."""
    save_model(path, model, vocabulary, half=True, **facts)
    model = load_model(path)[0].to(device())  # score the weights as they were saved
    for name in ("val", "test"):
        written = caption_all(model, inputs[name], vocabulary)
        split = splits[name]
        scores = metrics.score(split.references(), candidates(split.ids, written))
        facts["metrics"][name] = scores
        _print_scores(split, "greedy", scores)
    save_model(path, model, vocabulary, half=True, **facts)
    print(f"The captioner is {path}.")


def _say(sentence: str) -> None:
    """Print a sentence once, not in every process."""
    if processes.rank() == 0:
        print(sentence, flush=True)


def _inputs(options: argparse.Namespace, encoder, splits: dict[str, data.Split]) -> dict:
    """The cached features of each split, and for the training pictures those of every view."""
    features = partial(data.cached_features, encoder=encoder, pooled=options.decoder == "rnn")
    views = {v: features(splits["train"], view=v, for_training=True) for v in options.views}
    return {"train": data.Views(views)} | {n: features(splits[n]) for n in ("val", "test")}


def _new_model(options: argparse.Namespace, encoder, vocabulary: Vocabulary):
    """The decoder that the options ask for, untrained, with its encoder."""
    sizes = {"attention_size": options.attention_size} if options.decoder == "attention" else {}
    return DECODERS[options.decoder](
        options.embed_size,
        options.hidden_size,
        len(vocabulary),
        dropout=options.dropout,
        cnn=encoder,
        **sizes,
    ).to(device())


def _train_in(
    folder: Path, options: argparse.Namespace, what: tuple, epochs: int, **settings
) -> None:
    """Train ``what`` (a model and two data sets) or resume an earlier run, and report progress."""
    _say(f"{'Found an earlier run' if saves_in(folder) else 'Training'} in {folder}.")
    history = train(
        *what,
        folder,
        epochs=epochs,
        batch_size=options.batch_size,
        averaging=options.averaging,
        patience=options.patience,
        seed=options.seed,
        on_epoch=lambda history: tqdm.write(_epoch_line(history[-1])),  # above the bar
        **settings,
    )
    _say(_end_line(history, epochs))


def _folder_of(name: str) -> Path:
    return DATA_SETS[name]() if name in DATA_SETS else data.from_csv(name)


def _search(options: argparse.Namespace):
    """The search that the options ask for, and its name."""
    if options.beam == 1:
        return greedy, "greedy"
    search = partial(beam_search, beam_width=options.beam, length_power=options.length_power)
    return search, f"beam {options.beam}, length power {options.length_power:g}"


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
    count = str(most) if fewest == most else f"{fewest} to {most}"
    references = f"{count} reference{'s' if most > 1 else ''}"
    print(f"{split.name.replace('/', ' ')}, {search}, {references}, scores × 100")
    for name, value in scores.items():
        print(f"{name:8} {value:5.1f}")


def evaluate(options: argparse.Namespace) -> None:
    """Print the scores of a model's captions on one split of a data set."""
    search, name = _search(options)
    model, vocabulary, facts = load_model(options.checkpoint)
    model = model.to(device())
    folder = _folder_of(options.data) if options.data else _trained_on(options.checkpoint, facts)
    split = data.readable(data.load_split(folder, options.split))
    features = data.cached_features(split, model.cnn, pooled=isinstance(model, DECODERS["rnn"]))
    written = caption_all(model, features, vocabulary, search=search)
    pair = split.references(), candidates(split.ids, written)
    _print_scores(split, name, metrics.score(*pair))
    free = metrics.score(*pair, meteor=False, brevity_penalty=False)
    bleu = ", ".join(f"{free[f'BLEU-{length}']:.1f}" for length in range(1, 5))
    print(f"BLEU-1 to BLEU-4 without the brevity penalty: {bleu}")


def _trained_on(checkpoint: Path, facts: dict) -> Path:
    """The folder, on this machine, of the data set that a model was trained on."""
    name = str(facts.get("data", "")).split("/")[0]  # flickr8k from flickr8k/train
    if name and (folder := data_folder() / name).is_dir():
        return folder
    if name in DATA_SETS:
        return DATA_SETS[name]()
    raise ValueError(
        f"{checkpoint} was trained on {name or 'data that it does not name'}, which is not in "
        f"{data_folder()}; say with --data what to evaluate it on."
    )


def caption_files(options: argparse.Namespace) -> None:
    """Print a caption for each photograph; name those that cannot be read, and skip them."""
    search, _ = _search(options)
    photos = [path for given in options.photos for path in _matching(given)]
    if options.attention:
        _require_different_names(photos)
        _require_folder(options.attention, "--attention")
    checkpoint = options.checkpoint or SHIPPED_CAPTIONER
    model, vocabulary, _ = load_model(checkpoint)
    model = model.to(device())
    if options.attention and not hasattr(model, "forward_with_attention"):
        raise ValueError(
            f"{checkpoint} holds a model without attention, so there is nothing to draw; leave "
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
            for path, image, row, weights in zip(paths, images, ids.tolist(), looks, strict=True):
                words = vocabulary.decode(row).split()
                if words:
                    weights = weights[: len(words)]
                    _save_attention(options.attention, path.name, image, words, weights)
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
    """The files that match a pattern such as ``*.jpg``, which Windows' shell does not expand."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    matching = [Path(name) for name in sorted(glob.glob(str(path)))]
    if not matching:
        raise FileNotFoundError(f"no file matches {path}; check the folder and the pattern.")
    return matching


def _require_folder(path: Path | None, option: str) -> None:
    """Raise a ``ValueError`` if what an option names as a folder is a file."""
    if path and path.is_file():
        raise ValueError(f"{path} is a file; {option} wants a folder.")


def _require_different_names(paths: list[Path]) -> None:
    """Raise a ``ValueError`` if one drawing of the attention would overwrite another."""
    names = Counter(path.name for path in paths)
    if twice := [name for name, times in names.items() if times > 1]:
        raise ValueError(
            f"several photographs are called {twice[0]}; with --attention, caption each folder "
            "by itself."
        )


def _readable(paths: list[Path]) -> list[tuple[Path, Image.Image]]:
    """The files that can be read, with their pictures; errors in the others go to stderr."""
    pictures = []
    for path in paths:
        try:
            pictures.append((path, data.read_image(path)))
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
    return pictures


def _save_attention(
    folder: Path, name: str, picture: Image.Image, words: list[str], weights
) -> None:
    """Save ``photo.jpg.attention.png`` for ``photo.jpg``."""
    from convrnn_utils import plots  # takes a second to load, and only this needs it

    figure = plots.show_attention(picture, words, weights)
    with complete_or_absent(folder / f"{name}.attention.png") as unfinished:
        figure.savefig(unfinished, format="png", dpi=100, bbox_inches="tight")
    plots.plt.close(figure)
