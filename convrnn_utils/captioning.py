"""Caption one photograph, and show where the captioner looked and which words it considered."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ipywidgets
import matplotlib.pyplot as plt
import numpy
import torch
from matplotlib.figure import Figure
from PIL import Image

from convrnn_utils.data import read_image
from convrnn_utils.decoding import beam_search, forbid, words_before
from convrnn_utils.plots import PALETTE, draw_grid, html_image, light_up
from convrnn_utils.text import Vocabulary
from convrnn_utils.widgets import Explorer, picture_chooser, row_of, unobserved


class Caption(NamedTuple):
    """What a captioner with attention wrote about a picture.

    Attributes:
        words: T words.
        attention: the weights (T, L) with which it looked at the L places before each word.
        log_probability: of the whole caption, its end included, in nats.
        choices: for each word, the five most probable words at that point with their
            probabilities, and also the word that was written if it is not among the five; empty
            if they were not asked for.
    """

    words: list[str]
    attention: numpy.ndarray
    log_probability: float
    choices: Sequence[dict[str, float]] = ()

    def __str__(self) -> str:
        return " ".join(self.words)


@torch.inference_mode()
def caption_picture(
    model,
    vocabulary: Vocabulary,
    picture: Image.Image,
    beam_width: int = 1,
) -> Caption:
    """Write a caption for one picture.

    Args:
        model: a captioner with attention, such as ``ShowAttendTell``, in evaluation mode.
        vocabulary: the model's.
        picture: of any size.
        beam_width: see ``beam_search``; a beam of 1 is greedy search.
    """
    pictures = model.cnn.preprocess(picture).unsqueeze(0).to(next(model.parameters()).device)
    features = model.cnn(pictures)  # (1, L, D)
    ids = beam_search(model, features, beam_width=beam_width)
    logits, attention = model.forward_with_attention(features, words_before(ids))
    probabilities = forbid(logits[0]).softmax(dim=1)  # (T, V)
    written = probabilities.gather(1, ids[0].unsqueeze(1)).squeeze(1)

    words = vocabulary.decode(ids[0]).split()
    choices = []
    for step, word, probability in zip(probabilities, words, written.tolist(), strict=False):
        best, numbers = step.topk(min(5, len(step)))
        named = [vocabulary.words[number] for number in numbers.tolist()]
        choices.append({**dict(zip(named, best.tolist(), strict=True)), word: probability})
    weights = attention[0, : len(words)].cpu().numpy()
    return Caption(words, weights, written.log().sum().item(), choices)


def place_of_most(weights: Sequence[float]) -> tuple[int, int]:
    """Row and column, counted from 1, of the largest of L weights on a square grid."""
    side = math.isqrt(len(weights))
    row, column = divmod(int(numpy.argmax(weights)), side)
    return row + 1, column + 1


def show_step(picture: Image.Image, caption: Caption, number: int) -> Figure:
    """How one word of a caption comes about: the grid, where the captioner looks, the choice.

    Args:
        picture: as the captioner saw it.
        caption: what it wrote.
        number: which word, counted from 1.

    Raises:
        ValueError: the caption has no such word.
    """
    if not 1 <= number <= len(caption.words):
        raise ValueError(f"there is no word {number}: the caption has {len(caption.words)}.")
    weights, choices = caption.attention[number - 1], caption.choices[number - 1]
    side = math.isqrt(len(weights))
    lit = light_up(picture, weights)
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.7), width_ratios=(1, 1, 0.8))
    for axis, shown in zip(axes, (picture.resize(lit.size), lit), strict=False):
        axis.imshow(shown)
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
    draw_grid(axes[0], lit.width, side)
    before = " ".join(caption.words[max(0, number - 4) : number - 1])
    before = f"“{'… ' if number > 4 else ''}{before}”" if before else "the start"
    axes[0].set_title(f"1  The CNN makes features\nof {side} × {side} places")
    axes[1].set_title(f"2  After {before}\nthe LSTM looks here")
    axes[2].set_title("3  and the next word is")
    _draw_choices(axes[2], choices, caption.words[number - 1])
    return figure


def _draw_choices(axis, choices: Mapping[str, float], written: str) -> None:
    """Bars for the probabilities of words; the one that was written is dark."""
    colours = [PALETTE[0] if word == written else "0.75" for word in choices]
    axis.barh(range(len(choices)), list(choices.values()), color=colours)
    axis.set(xlabel="probability", xlim=(0, 1), yticks=range(len(choices)))
    axis.set_yticklabels(choices, fontsize=12)
    axis.invert_yaxis()
    axis.grid(False, axis="y")


# ---------------------------------------------------------------- the explorer


def caption_explorer(
    write: Callable[[Image.Image, int], Caption], paths: Sequence[Path]
) -> Explorer:
    """Caption a photograph, the course's or your own, and step through the caption word by word.

    A file that is uploaded stays in memory, and joins the list of photographs.

    Args:
        write: ``write(picture, beam_width)`` gives the caption.
        paths: the photographs to begin with.
    """
    width = ipywidgets.IntSlider(
        value=1, min=1, max=5, description="beam width", continuous_update=False
    )
    number = ipywidgets.IntSlider(value=0, min=0, max=1, description="word")
    result = ipywidgets.HTML()
    picture: Image.Image = read_image(paths[0])
    caption = write(picture, 1)

    def show(_=None) -> None:
        result.value = _explained(picture, caption, number.value)

    def write_again(_=None) -> None:
        nonlocal caption
        caption = write(picture, width.value)
        with unobserved(number, show):
            number.value, number.max = 0, len(caption.words)
        show()

    def choose(chosen: Image.Image) -> None:
        nonlocal picture
        picture = chosen
        write_again()

    photograph, upload, message = picture_chooser({path.stem: path for path in paths}, choose)
    width.observe(write_again, "value")
    number.observe(show, "value")
    number.max = len(caption.words)
    show()
    number.layout.width = "30em"
    controls = row_of([photograph, upload, width])
    return Explorer("captions, word by word", [controls, number, message, result])


def _explained(picture: Image.Image, caption: Caption, number: int) -> str:
    """HTML with the picture, lit for one word of its caption (or whole, for 0), and a sentence."""
    marked = [html.escape(word) for word in caption.words]
    if number == 0:
        shown, chosen = picture.resize((224, 224)), ""
        said = "The whole picture, as the captioner sees it. Move to word 1, 2 and on."
    else:
        word, weights = caption.words[number - 1], caption.attention[number - 1]
        choices = caption.choices[number - 1]
        shown = light_up(picture, weights)
        marked[number - 1] = f"<mark>{marked[number - 1]}</mark>"
        row, column = place_of_most(weights)
        grid = math.isqrt(len(weights))
        said = (
            f"Word {number} of {len(marked)}, “{word}”: probability {choices[word]:.2f}. It looked "
            f"most at row {row}, column {column} of {grid} × {grid} (weight {weights.max():.2f})."
        )
        rows = "".join(
            f"<tr><td>{html.escape(other)}</td><td>{probability:.2f}</td>"
            f'<td><meter value="{probability:.3f}">{probability:.2f}</meter></td></tr>'
            for other, probability in choices.items()
        )
        title = '<caption style="white-space:nowrap">what could have come here</caption>'
        chosen = f"<div><table>{title}{rows}</table></div>"
    image = html_image(shown, f"{caption}. {said}", "jpeg", "width:20em")
    return (
        f'<p style="font-size:larger">{" ".join(marked)}</p><p role="status">'
        f"{html.escape(said)} Log-probability of the caption: {caption.log_probability:.1f}.</p>"
        f'<div style="display:flex;flex-wrap:wrap;gap:1em">{image}{chosen}</div>'
    )
