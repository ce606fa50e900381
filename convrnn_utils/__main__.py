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
    """Help that names the default of each option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        has_none = action.default is None or action.default is False  # 0 is a default
        return action.help if has_none else super()._get_help_string(action)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and do what it says."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # the options hold the arguments as they were given, too: train saves them with the model
    options = build_parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    try:
        options.command(options)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        trains = options.command is train_and_score
        advice = (
            " Give the same command again: a download and a training run continue where they "
            "stopped; a pass of the CNN over the pictures of a split starts again."
        )
        print(f"\nInterrupted.{advice if trains else ''}", file=sys.stderr)
        sys.exit(130)  # what a shell reports for a program that was interrupted


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
        help="rnn reads one vector per picture, attention looks at the places of a grid",
    )
    training.add_argument(
        "--views",
        nargs="+",
        choices=data.VIEWS,
        default=["whole"],
        metavar="VIEW",
        help=f"how a picture may be seen in training: {', '.join(data.VIEWS)}; mirrored makes "
        "captions false that mention left or right",
    )
    training.add_argument(
        "--epochs",
        type=_number(int, 1),
        default=8,
        help="maximum number of passes over the captions",
    )
    training.add_argument(
        "--patience",
        type=_number(int, 1),
        default=3,
        metavar="EPOCHS",
        help="training stops after this many epochs in a row without a better one",
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
        help="each step takes pictures with five captions each, and reads a picture only once",
    )
    training.add_argument(
        "--learning-rate",
        type=_number(float, 0),
        default=1e-3,
        metavar="RATE",
        help="the learning rate of Adam in the first step; it falls to 0",
    )
    size, share = _number(int, 1), _number(float, 0, 1)
    training.add_argument("--embed-size", type=size, default=512, help="size of a word's vector")
    training.add_argument("--hidden-size", type=size, default=512, help="size of the LSTM's state")
    training.add_argument(
        "--attention-size",
        type=size,
        default=256,
        help="size of the keys and the query of --decoder attention",
    )
    training.add_argument(
        "--dropout",
        type=share,
        default=0.4,
        metavar="SHARE",
        help="share of the decoder's activations that are set to 0 in a step",
    )
    training.add_argument(
        "--label-smoothing",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="share of the target that is spread over all words",
    )
    training.add_argument(
        "--weight-decay", type=_number(float, 0), default=0.0, metavar="RATE", help="rate in AdamW"
    )
    training.add_argument(
        "--averaging",
        type=share,
        default=0.0,
        metavar="SHARE",
        help="share of itself that a running mean of the weights keeps at each step; 0: no mean",
    )
    training.add_argument(
        "--min-count",
        type=_number(int, 1),
        default=5,
        help="words that occur less often become <unknown>",
    )
    training.add_argument(
        "--self-critical",
        type=_number(int, 0),
        default=0,
        metavar="EPOCHS",
        help="then train for this many more epochs, on CIDEr itself; needs --by-picture",
    )
    training.add_argument(
        "--self-critical-rate",
        type=_number(float, 0),
        default=2e-4,
        metavar="RATE",
        help="the learning rate of the epochs of --self-critical",
    )
    training.add_argument(
        "--self-critical-share",
        type=share,
        default=0.7,
        metavar="SHARE",
        help="share of the weights after --self-critical in the result; the rest is from before",
    )
    training.add_argument(
        "--seed", type=_number(int, 0, 2**32 - 1), default=0, help="fixes everything that is random"
    )
    training.add_argument(
        "--folder",
        type=Path,
        help="where the run is kept; it can only be resumed with the same options; by default "
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
    evaluating.add_argument(
        "checkpoint", type=Path, help="a .safetensors file that train has written"
    )
    evaluating.add_argument(
        "--data", type=_data_set, help=f"{DATA_HELP}; by default what the model was trained on"
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
        help="a .safetensors file that train has written; by default the one that comes with the "
        "course",
    )
    captioning.add_argument("--json", action="store_true", help="print one JSON list")
    captioning.add_argument(
        "--attention",
        type=Path,
        metavar="DIR",
        help="for each photograph, save a picture of where the model looked, as "
        "DIR/PHOTO.jpg.attention.png",
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
        help="the log-probability of each beam is divided by its number of words (the end "
        "included) raised to this power, and the highest wins: 0 takes the most probable caption, "
        "more than 0 favours longer ones",
    )


def _number(kind: type, least: float, most: float = math.inf) -> Callable[[str], float]:
    """A function that reads a number of this kind (``int`` or ``float``) within these bounds."""

    def number(text: str) -> float:
        value = kind(text)
        if not least <= value <= most or math.isinf(value):
            bounds = f"{least} or more" if most == math.inf else f"between {least} and {most}"
            raise argparse.ArgumentTypeError(f"it is {text}, and has to be {bounds}")
        return value

    number.__name__ = kind.__name__  # for argparse to name it if the text is not a number
    return number


def _data_set(name: str) -> str:
    if name not in DATA_SETS and not name.endswith(".csv"):
        known = ", ".join(DATA_SETS)
        raise argparse.ArgumentTypeError(f"{name!r} is neither {known} nor a file NAME.csv")
    return name


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):  # on Windows a file would get another encoding
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # any name can be printed
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # without a line of our code
    main()
