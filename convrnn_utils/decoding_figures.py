"""Figures and explorers of 05, 06 and 07: losses by word, a beam as a tree, samples, intervals."""

import html
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from convrnn_utils.plots import LINES, PALETTE, html_image
from convrnn_utils.widgets import Explorer, picture_html, row_of, turning_buttons, unobserved

BESIDE = "flex:none;align-self:flex-start"  # for a picture beside text: it keeps its shape


class Candidate(NamedTuple):
    """One continuation that a beam search considered.

    Attributes:
        parent: the place of the beginning it continues, among those kept at the step before (0 at
            the first step).
        word: the word added; empty if the caption had already ended.
        log_probability: of the whole beginning, in nats.
        kept: whether it stays in the beam.
    """

    parent: int
    word: str
    log_probability: float
    kept: bool


class Judged(NamedTuple):
    """What a model thinks of one word of a caption.

    Attributes:
        word: the word that the caption has here.
        loss: minus the logarithm of its probability, in nats.
        best: the most probable words here, each with its probability.
    """

    word: str
    loss: float
    best: Mapping[str, float]


# ---------------------------------------------------------------- figures


def show_losses(judged: Sequence[Judged], marked: int | None = None) -> Figure:
    """The loss of each word of a caption as a bar, and their mean as a line.

    Args:
        judged: the words in order.
        marked: the number of a word, from 0, whose bar is hatched.
    """
    losses = [each.loss for each in judged]
    figure, axis = plt.subplots(figsize=(max(4.0, 0.62 * len(judged) + 1.2), 2.8))
    bars = axis.bar(range(len(judged)), losses, color=PALETTE[0])
    if marked is not None:
        bars[marked].set(facecolor="white", edgecolor=PALETTE[0], hatch="///", linewidth=2)
    mean = sum(losses) / len(losses)
    axis.axhline(mean, color="0.25", linestyle="--", label=f"mean {mean:.2f}")
    axis.set(ylabel="loss, nats", xticks=range(len(judged)))
    axis.set_xticklabels([each.word for each in judged], rotation=40, ha="right")
    axis.grid(False, axis="x")
    axis.legend(loc="upper right", fontsize=10)
    axis.set_ylim(0, 1.25 * max(*losses, 0.1))
    return figure


def show_beam_tree(steps: Sequence[Sequence[Candidate]], until: int | None = None) -> Figure:
    """A beam search as a tree: a column for each step, kept beginnings above dropped ones.

    Args:
        steps: the candidates of each step, the kept ones first and in the order of the beam.
        until: the number of steps drawn; by default all.

    The way to the best beginning of the last step drawn is marked by thick lines.
    """
    drawn = steps[:until]
    rows = max(len(candidates) for candidates in steps)
    figure, axis = plt.subplots(figsize=(1.22 * (len(steps) + 1) + 0.2, 0.62 * rows + 0.5))
    axis.text(0, 0, "<start>", **_box("black", "white", bold=True))
    best = best_path(drawn)
    for t, candidates in enumerate(drawn, start=1):
        for place, candidate in enumerate(candidates):
            on_path = best[t - 1] == place
            colour = PALETTE[0] if candidate.kept else "0.55"
            axis.plot(
                [t - 0.7, t - 0.3],
                [-candidate.parent, -place],
                "-" if candidate.kept else ":",
                color=colour,
                lw=3.5 if on_path else 1.2,
            )
            text = f"{candidate.word or 'ended'}\n{candidate.log_probability:.2f}"
            face = "white" if candidate.kept else "0.93"
            axis.text(t, -place, text, **_box(colour, face, bold=on_path))
    for t in range(len(steps)):
        axis.text(t + 1, 0.75, f"step {t + 1}", ha="center", fontsize=10, color="0.3")
    axis.set(xlim=(-0.5, len(steps) + 0.55), ylim=(-rows + 0.4, 1.0))
    axis.set_axis_off()
    return figure


def _box(colour, face, bold: bool) -> dict:
    box = {"boxstyle": "round,pad=0.2", "facecolor": face, "edgecolor": colour}
    box["linewidth"] = 2.5 if bold else 1.2
    weight = "bold" if bold else "normal"
    return {"ha": "center", "va": "center", "fontsize": 9, "weight": weight, "bbox": box}


def best_path(steps: Sequence[Sequence[Candidate]]) -> list[int]:
    """The path to the most probable beginning of the last step, as a place for each step."""
    if not steps:
        return []
    last = range(len(steps[-1]))
    return _path_to(steps, max(last, key=lambda place: steps[-1][place].log_probability))


def _path_to(steps: Sequence[Sequence[Candidate]], place: int) -> list[int]:
    """The path to the beginning at a place of the last step, as a place for each step."""
    places = [place]
    for candidates in reversed(steps[1:]):
        places.insert(0, candidates[places[0]].parent)
    return places


def show_distributions(
    panels: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]],
) -> Figure:
    """Probabilities of words, panels side by side; words that cannot be drawn are hatched.

    Args:
        panels: by title, two mappings: the probability with which each word is drawn; and, for
            words that were cut off, the probability that they had before.
    """
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.6 * len(panels) + 0.4, 3.3), sharex=True, squeeze=False
    )
    for axis, (title, (drawn, cut)) in zip(axes[0], panels.items(), strict=True):
        axis.barh(range(len(drawn)), list(drawn.values()), color=PALETTE[0])
        rows = range(len(drawn), len(drawn) + len(cut))
        axis.barh(rows, list(cut.values()), facecolor="white", edgecolor="0.4", hatch="///")
        words = [*drawn, *cut]
        axis.set(xlabel="probability", title=title, yticks=range(len(words)), yticklabels=words)
        axis.invert_yaxis()
        axis.grid(False, axis="y")
    return figure


def show_alignment(candidate: str, reference: str, pairs: Sequence[tuple[int, int]]) -> Figure:
    """Two sentences, one above the other, and lines between the words that METEOR matches.

    Args:
        candidate, reference: words with spaces between them.
        pairs: places (in the candidate, in the reference), in the order of the candidate.

    Lines of one chunk have one colour and style, and the number of the chunk in the middle.
    """
    words = candidate.split(), reference.split()
    figure, axis = plt.subplots(figsize=(1.05 * max(map(len, words)), 2.1))
    for line, y, name in zip(words, (1, 0), ("candidate", "reference"), strict=True):
        axis.text(-0.8, y, name, ha="right", va="center", fontsize=10, color="0.3")
        for x, word in enumerate(line):
            axis.text(x, y, word, ha="center", va="center", fontsize=12)
    chunk, before = 0, None
    for i, j in pairs:
        if before != (i - 1, j - 1):
            chunk += 1
        before = i, j
        style = ["-", "--", ":", "-."][(chunk - 1) % 4]
        axis.plot([i, j], [0.86, 0.14], style, color=PALETTE[(chunk - 1) % 10], lw=2)
        mark = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        x, y = i + 0.12 * (j - i), 0.86 - 0.12 * 0.72
        axis.text(x, y, chunk, ha="center", va="center", fontsize=10, bbox=mark)
    axis.set(xlim=(-2.3, max(map(len, words)) - 0.3), ylim=(-0.25, 1.25))
    axis.set_axis_off()
    return figure


def show_curves(panels: Mapping[str, Mapping[str, Mapping[float, float]]], x_label: str) -> Figure:
    """Curves, panels side by side, each curve with a marker of its own.

    Args:
        panels: y by x, for each label of a vertical axis, then for each name of a curve.
        x_label: what the horizontal axis shows; its ticks are the x that are there.
    """
    count = len(panels)
    figure, axes = plt.subplots(1, count, figsize=(4.2 * count + 0.3, 3.3), squeeze=False)
    for axis, (label, curves) in zip(axes[0], panels.items(), strict=True):
        ticks = sorted({x for points in curves.values() for x in points})
        for number, (name, points) in enumerate(curves.items()):
            axis.plot(
                [ticks.index(x) for x in points], list(points.values()), marker=LINES[number][0],
                label=name, color=PALETTE[number], ls=LINES[number][1],
            )  # fmt: skip
        axis.set_xticks(range(len(ticks)), ticks)
        axis.set(xlabel=x_label, ylabel=label)
    axes[0, 0].legend(fontsize=10)
    return figure


def show_intervals(panels: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Points with intervals, one row each, panels side by side.

    Args:
        panels: for each label of a horizontal axis, then for each name of a row: the point, and
            the lower and the upper end of its interval.
    """
    rows = max(len(panel) for panel in panels.values())
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels) + 1.0, 0.55 * rows + 1.1), squeeze=False
    )
    for axis, (label, panel) in zip(axes[0], panels.items(), strict=True):
        for row, (name, (point, low, high)) in enumerate(panel.items()):
            number = names.index(name)  # a name has one colour and marker in all panels
            axis.plot([low, high], [row, row], color=PALETTE[number], lw=3)
            axis.plot(point, row, LINES[number][0], color=PALETTE[number], ms=9)
        if any(low < 0 for _, low, _ in panel.values()):
            axis.axvline(0, color="0.3", ls=":")
        axis.set(xlabel=label, yticks=range(len(panel)), yticklabels=list(panel))
        axis.set_ylim(len(panel) - 0.5, -0.5)
        axis.grid(False, axis="y")
    return figure


# ---------------------------------------------------------------- explorers


def loss_explorer(
    judge: Callable[[int, str], Sequence[Judged]],
    paths: Sequence[Path],
    captions: Sequence[Sequence[str]],
) -> Explorer:
    """Show the loss of each word of a caption, from the data set or typed by the reader.

    Args:
        judge: ``judge(row, caption)`` gives the words of a caption of picture ``row`` up to
            ``<end>``.
        paths: the pictures.
        captions: those of each picture; they are offered, and any other caption can be typed.
    """
    names = [f"{row + 1}: {path.stem}" for row, path in enumerate(paths)]
    picture = ipywidgets.Dropdown(options=names, description="picture")
    caption = ipywidgets.Combobox(
        value=captions[0][0],
        options=list(captions[0]),
        placeholder="type or pick a caption",
        description="caption",
        continuous_update=False,  # judge it at Enter, not at every letter
    )
    caption.layout.width = "36em"
    word = ipywidgets.IntSlider(value=1, min=1, max=1, description="word")
    result = ipywidgets.HTML()
    judged: Sequence[Judged] = []

    def show(_=None) -> None:
        chosen = judged[word.value - 1]
        before = " ".join(["<start>", *(each.word for each in judged[: word.value - 1])])
        best = ", ".join(f"{each} {100 * chance:.0f}%" for each, chance in chosen.best.items())
        mean = sum(each.loss for each in judged) / len(judged)
        said = (
            f"After “{before}” the model expects: {best}. The caption says “{chosen.word}”: "
            f"{100 * math.exp(-chosen.loss):.1f}%, {chosen.loss:.2f} nats. "
            f"Mean of all {len(judged)} words: {mean:.2f} nats."
        )
        losses = "loss of each word: " + ", ".join(f"{w.word} {w.loss:.2f}" for w in judged)
        path, name = paths[picture.index], names[picture.index]
        image = picture_html(path, name, BESIDE, longest=180)
        bars = html_image(show_losses(judged, word.value - 1), losses)
        result.value = (
            f'<p role="status">{html.escape(said)}</p>'
            f'<div style="display:flex;gap:1em;flex-wrap:wrap">{image}{bars}</div>'
        )

    def begin(_=None) -> None:
        nonlocal judged
        judged = judge(picture.index, caption.value)
        with unobserved(word, show):
            word.max = len(judged)
        show()

    def turn(_=None) -> None:
        own = captions[picture.index]
        with unobserved(caption, begin):
            caption.options, caption.value = list(own), own[0]
        begin()

    picture.observe(turn, "value")
    caption.observe(begin, "value")
    word.observe(show, "value")
    begin()
    return Explorer("loss, word by word", [ipywidgets.VBox([picture, caption, word]), result])


def beam_explorer(
    search: Callable[[int, int], Sequence[Sequence[Candidate]]], names: Sequence[str]
) -> Explorer:
    """Open a beam search step by step, for a picture and a width of one's choice.

    Args:
        search: ``search(row, width)`` gives the steps that ``show_beam_tree`` takes.
        names: what the pictures are called; row 0 is the first.
    """
    picture = ipywidgets.Dropdown(options=list(names), description="picture")
    width = ipywidgets.IntSlider(value=3, min=1, max=4, description="width")
    slider = ipywidgets.IntSlider(value=1, min=1, max=1, description="step")
    result = ipywidgets.HTML()
    steps: list[Sequence[Candidate]] = []

    def show(_=None) -> None:
        candidates = steps[slider.value - 1]
        kept = [
            _beginning(steps, slider.value, place) for place, c in enumerate(candidates) if c.kept
        ]
        said = f"Step {slider.value} of {slider.max}. Kept: " + "; ".join(kept) + "."
        figure = show_beam_tree(steps, slider.value)
        result.value = f'<p role="status">{html.escape(said)}</p>{html_image(figure, said)}'

    def begin(_=None) -> None:
        nonlocal steps
        steps = search(picture.index, width.value)
        with unobserved(slider, show):
            slider.max, slider.value = len(steps), 1
        show()

    picture.observe(begin, "value")
    width.observe(begin, "value")
    slider.observe(show, "value")
    begin()
    turns = turning_buttons(slider, "one step back", "one step on")
    controls = row_of([picture, width, slider, *turns])
    return Explorer("beam search, step by step", [controls, result])


def _beginning(steps: Sequence[Sequence[Candidate]], length: int, place: int) -> str:
    steps = steps[:length]
    words = [step[at].word for step, at in zip(steps, _path_to(steps, place), strict=True)]
    return f"{' '.join(filter(None, words))} ({steps[-1][place].log_probability:.2f})"


def sampling_explorer(
    write: Callable[[int, float, float], Sequence[tuple[str, float]]], paths: Sequence[Path]
) -> Explorer:
    """Captions drawn at random for a photograph, with sliders for temperature and nucleus.

    Args:
        write: ``write(row, temperature, top_p)`` gives captions with their log-probabilities; with
            fixed seeds, so that the same sliders give the same captions.
        paths: the pictures.
    """
    options = {"continuous_update": False, "style": {"description_width": "8em"}}
    picture = ipywidgets.Dropdown(options=[path.stem for path in paths], description="picture")
    temperature = ipywidgets.FloatSlider(
        value=1, min=0.1, max=2, step=0.1, description="temperature", **options
    )
    top_p = ipywidgets.FloatSlider(
        value=1, min=0.1, max=1, step=0.05, description="nucleus, top p", **options
    )
    result = ipywidgets.HTML()

    def show(_=None) -> None:
        written = write(picture.index, temperature.value, top_p.value)
        different = len({caption for caption, _ in written})
        said = f"{different} different captions out of {len(written)}."
        lines = "".join(
            f"<li>{html.escape(caption)} <small>({logarithm:.1f})</small></li>"
            for caption, logarithm in written
        )
        path = paths[picture.index]
        image = picture_html(path, path.stem, BESIDE)
        result.value = (
            f'<p role="status">{said} In brackets: the log-probability.</p>'
            f'<div style="display:flex;gap:1em">{image}<ol>{lines}</ol></div>'
        )

    for control in (picture, temperature, top_p):
        control.observe(show, "value")
    show()
    return Explorer("sampling", [ipywidgets.VBox([picture, temperature, top_p]), result])
