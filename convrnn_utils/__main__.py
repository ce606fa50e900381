"""The command line: ``python -m convrnn_utils train``, ``evaluate`` and ``caption``."""

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from convrnn_utils import data
from convrnn_utils.checkpoints import DECODERS
from convrnn_utils.commands import DATA_SETS, caption_files, evaluate, train_and_score

DATA_HELP = f"{', '.join(DATA_SETS)}, or a CSV file of your own (data/README.md describes it)"


class HelpWithDefaults(argparse.ArgumentDefaultsHelpFormatter):
    """Names the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False  # 0 is one
        return action.help if has_none else super()._get_help_string(action)


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
        advice = (
            " Give the same command again: a download and a training go on where they were; a pass "
            "of the CNN over the pictures of a split begins anew."
        )
        print(f"\nInterrupted.{advice if trains else ''}", file=sys.stderr)
        sys.exit(130)  # as the shell has it for a program that was interrupted


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="python -m convrnn_utils",
        description="Train a captioner, score it, or caption photographs with it.",
        epilog="If something does not work: python -m convrnn_utils.checkup says what is missing.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_caption(commands)
    return parser


def _add_train(commands) -> None:
    training = commands.add_parser(
        "train",
        help="train a captioner and score it on the test split",
        description="Train a captioner on the train split, keep the epoch whose greedy captions of "
        "the val split have the highest CIDEr, and score it on val and test.",
        formatter_class=HelpWithDefaults,
    )
    training.set_defaults(command=train_and_score)
    training.add_argument("--data", type=_data_set, default="flickr8k", help=DATA_HELP)
    training.add_argument(
        "--encoder",
        default="efficientnet_lite2",
        help="a CNN of the course (efficientnet_lite2, efficientnet_lite0, small_cnn) or of "
        "torchvision (resnet50)",
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
        metavar="VIEW",
        help=f"how a picture may be seen in training: {', '.join(data.VIEWS)}; mirrored makes "
        "captions that tell left from right false",
    )
    training.add_argument(
        "--epochs",
        type=_number(int, 1),
        default=8,
        help="passes over the captions, at most: it stops when three in a row bring nothing better",
    )
    training.add_argument(
        "--batch-size",
        type=_number(int, 2),
        default=64,
        help="captions per step, or pictures with --by-picture",
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
    size, share = _number(int, 1), _number(float, 0, 1)
    training.add_argument("--embed-size", type=size, default=512, help="of a word's vector")
    training.add_argument("--hidden-size", type=size, default=512, help="of the LSTM's state")
    training.add_argument(
        "--attention-size", type=size, default=256, help="of keys and query of --decoder attention"
    )
    training.add_argument(
        "--dropout",
        type=share,
        default=0.4,
        metavar="SHARE",
        help="of the decoder's activations that are set to 0 in a step",
    )
    training.add_argument(
        "--label-smoothing",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="of the target that is spread over all words",
    )
    training.add_argument(
        "--weight-decay", type=_number(float, 0), default=0.0, metavar="RATE", help="of AdamW"
    )
    training.add_argument(
        "--averaging",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="of itself that a running mean of the weights keeps at each step; 0: no mean",
    )
    training.add_argument(
        "--min-count", type=_number(int, 1), default=5, help="rarer words are unknown"
    )
    training.add_argument(
        "--self-critical",
        type=_number(int, 0),
        default=0,
        metavar="EPOCHS",
        help="then go on for so many epochs, training on CIDEr itself; needs --by-picture",
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
        type=share,
        default=0.7,
        metavar="SHARE",
        help="of these weights in the result; the rest is from the weights before",
    )
    training.add_argument(
        "--seed", type=_number(int, 0, 2**32 - 1), default=0, help="fixes everything that is random"
    )
    training.add_argument(
        "--folder",
        type=Path,
        help="where the run is kept; it goes on with the same options only; without this "
        "data/checkpoints/DATA-ENCODER-DECODER",
    )


def _add_evaluate(commands) -> None:
    evaluating = commands.add_parser(
        "evaluate",
        help="score the captions of a trained model",
        description="Caption every picture of a split, and print BLEU, METEOR, ROUGE-L and CIDEr.",
        formatter_class=HelpWithDefaults,
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


def _add_caption(commands) -> None:
    captioning = commands.add_parser(
        "caption",
        help="write captions for photographs",
        description="Write a caption for each photograph.",
        formatter_class=HelpWithDefaults,
    )
    captioning.set_defaults(command=caption_files)
    captioning.add_argument(
        "photos", nargs="+", type=Path, metavar="PHOTO", help="picture files, such as *.jpg"
    )
    captioning.add_argument(
        "--checkpoint",
        type=Path,
        help="a .safetensors that train has written; without it the one that comes with the course",
    )
    captioning.add_argument("--json", action="store_true", help="print one JSON list")
    captioning.add_argument(
        "--attention",
        type=Path,
        metavar="DIR",
        help="save for each a picture of where it looked, DIR/PHOTO.jpg.attention.png",
    )
    _add_search_options(captioning, beam=5)


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
        type=_number(float, 0, 10),
        default=1.0,
        metavar="POWER",
        help="the log-probability of each beam is divided by its number of words, the end "
        "included, to this power, and the highest wins: 0 takes the most probable caption, more "
        "than 0 longer ones",
    )


def _number(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """A function that reads a number of this kind (``int`` or ``float``) within these bounds."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value <= most or math.isinf(value):
            bounds = f"{least} or more" if most == math.inf else f"between {least} and {most}"
            raise argparse.ArgumentTypeError(f"it is {text}, and has to be {bounds}")
        return value

    number.__name__ = kind.__name__  # argparse names it where the text is not one
    return number


def _data_set(name: str) -> str:
    if name not in DATA_SETS and not name.endswith(".csv"):
        known = ", ".join(DATA_SETS)
        raise argparse.ArgumentTypeError(f"{name!r} is neither {known} nor a file NAME.csv")
    return name


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # in a file, Windows would have another encoding
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # any name can be printed
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # without a line of ours
    main()
