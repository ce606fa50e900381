"""Figures and explorers of notebook 01: numbers in a grid, filters, maps, where a place looks."""

import html
from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor
from torch.nn import functional

from convrnn_utils import plots
from convrnn_utils.widgets import Explorer, row_of, unobserved

KERNELS = {
    "leave as it is": (0, 0, 0, 0, 1, 0, 0, 0, 0),
    "blur": (0.11, 0.11, 0.11, 0.11, 0.12, 0.11, 0.11, 0.11, 0.11),
    "sharpen": (0, -1, 0, -1, 5, -1, 0, -1, 0),
    "edge: dark left, bright right": (-1, 0, 1, -2, 0, 2, -1, 0, 1),
    "edge: dark above, bright below": (-1, -2, -1, 0, 0, 0, 1, 2, 1),
    "spot brighter than around it": (-1, -1, -1, -1, 8, -1, -1, -1, -1),
    "vertical line": (-1, 2, -1, -1, 2, -1, -1, 2, -1),
}


# ---------------------------------------------------------------- figures


def show_numbers(grids: Mapping[str, Tensor], windows: Mapping[str, tuple] | None = None) -> Figure:
    """Small matrices side by side, each number written in its cell.

    Args:
        grids: matrices (H, W) by title.
        windows: by title, a window (row, column, height, width) to frame in black.
    """
    widths = [grid.shape[1] for grid in grids.values()]
    figure, axes = plt.subplots(
        1,
        len(grids),
        figsize=(0.5 * sum(widths) + 0.8 * len(grids), 3),
        width_ratios=widths,
        squeeze=False,
    )
    limit = _limit(grids)
    for axis, (title, grid) in zip(axes[0], grids.items(), strict=True):
        _draw_numbers(axis, grid, limit)
        if windows and title in windows:
            _frame(axis, *windows[title], color="black", lw=3)
        axis.set_title(title, fontsize=11)
    return figure


def show_product(matrix: Tensor, vector: Tensor, bias: Tensor) -> Figure:
    """The product W x + b, with its numbers written in; zeros of the matrix are left blank.

    Args:
        matrix: W, (M, N).
        vector, bias: x, (N,), and b, (M,).
    """
    grids = {"W": matrix, "x": vector[:, None], "b": bias[:, None]}
    grids["W x + b"] = (matrix @ vector + bias)[:, None]
    figure, axes = plt.subplots(1, 4, figsize=(11, 4.8), width_ratios=[matrix.shape[1], 2, 2, 3])
    limit = _limit(grids)
    for axis, (name, grid) in zip(axes, grids.items(), strict=True):
        _draw_numbers(axis, grid, limit, zeros=name != "W", aspect="auto", fontsize=9)
        axis.set_title(f"{name}\n{grid.shape[0]} × {grid.shape[1]}", fontsize=11)
    for line in range(5, matrix.shape[1], 5):
        axes[0].axvline(line - 0.5, color="0.6", lw=0.8)
    return figure


def show_filters(filters: Tensor, titles: Sequence[str]) -> Figure:
    """Filters that read three colours, as small pictures: grey is zero, each at its own scale.

    Args:
        filters: (N, 3, k, k).
        titles: one text per filter.
    """
    scaled = filters / filters.abs().amax(dim=(1, 2, 3), keepdim=True)
    pixels = (255 * (0.5 + 0.5 * scaled)).byte().permute(0, 2, 3, 1).numpy()
    return plots.show_pictures(list(pixels), titles, 8, size=1.15)


def show_maps(rows: Mapping[str, Sequence[tuple[str, Tensor]]], size: float = 1.7) -> Figure:
    """Feature maps in rows, each at its own scale: bright yellow is high, dark blue low.

    Args:
        rows: by the row's label, pairs of title and map (h, w), or picture (h, w, 3) of bytes.
        size: width of a map in inches.
    """
    columns = max(len(row) for row in rows.values())
    height = size * max(
        pixels.shape[0] / pixels.shape[1] for row in rows.values() for _, pixels in row
    )
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(size * columns, (height + 0.3) * len(rows)), squeeze=False
    )
    for axis in axes.flat:
        _leave_bare(axis)
    for line, (label, row) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(label, fontsize=10)
        for axis, (title, pixels) in zip(line, row, strict=False):
            axis.imshow(numpy.asarray(pixels), cmap="cividis")
            axis.set_title(title, fontsize=9)
    return figure


def show_reach(sensitivities: Mapping[str, Tensor], sides: Sequence[float]) -> Figure:
    """How strongly each pixel affects the output in the middle, one panel per layer.

    A solid line frames all pixels that affect it at all.

    Args:
        sensitivities: (H, W), not negative, by title; shown by their square root.
        sides: of the dashed squares, in pixels; each lies around a sensitivity's centre of mass.
    """
    count = len(sensitivities)
    figure, axes = plt.subplots(1, count, figsize=(2.3 * count, 2.7), squeeze=False)
    for axis, (title, reach), side in zip(axes[0], sensitivities.items(), sides, strict=True):
        axis.imshow(reach.sqrt().numpy(), cmap="cividis")
        rows, columns = (torch.arange(size) for size in reach.shape)
        middle = (reach.sum(dim=1) @ rows.float(), reach.sum(dim=0) @ columns.float())
        top, left = ((each / reach.sum()).item() - side / 2 + 0.5 for each in middle)
        # white alone could not be seen on the page or on the bright parts of a panel
        line = {"lw": 1.8, "path_effects": [withStroke(linewidth=3.6, foreground="black")]}
        _frame(axis, top, left, side, side, ls="--", **line)
        reached = (reach > 0).nonzero()
        corner = reached.amin(dim=0)
        _frame(axis, *corner.tolist(), *(reached.amax(dim=0) - corner + 1).tolist(), **line)
        axis.set_title(title, fontsize=10)
        _leave_bare(axis)
    return figure


def show_probes(scores: Mapping[str, Mapping], chances: Mapping[str, float], depths) -> Figure:
    """Accuracy of linear probes against depth, one panel per question.

    Args:
        scores: by question, then by line: accuracies (splits, depths) in 0..1.
        chances: by question, the accuracy of always giving the commonest answer.
        depths: names of the depths.
    """
    figure, axes = plt.subplots(2, 3, figsize=(9, 5), sharex=True, sharey=True)
    for axis, (question, lines) in zip(axes.flat, scores.items(), strict=True):
        for (line, values), (marker, style) in zip(lines.items(), plots.LINES, strict=False):
            if values is None:
                axis.plot([], [], marker=marker, ls=style, label=line)  # keeps colours in step
                continue
            values = 100 * numpy.asarray(values)
            axis.errorbar(
                range(len(depths)), values.mean(axis=0), values.std(axis=0, ddof=1),
                marker=marker, ls=style, markersize=5, capsize=2, label=line,
            )  # fmt: skip
        axis.axhline(100 * chances[question], color="black", lw=1, label="chance")
        axis.set(title=question, ylim=(0, 105))
        axis.set_xticks(range(len(depths)), depths, rotation=60, ha="right", fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel("right answers, %")
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    return figure


def show_looks(picture, sensitivities: Mapping[int, Tensor], grid: int) -> Figure:
    """A picture divided into cells, and maps of how sensitive places are to every pixel.

    Args:
        picture: what is looked at, an image of PIL or an array of bytes, square.
        sensitivities: (H, W), not negative, by the number of the place, whose cell is framed.
        grid: places in a row.
    """
    figure, axes = _beside_picture(picture, grid, len(sensitivities))
    for axis, (place, reach) in zip(axes, sensitivities.items(), strict=True):
        smooth = functional.avg_pool2d(reach[None], 15, 1, 7, count_include_pad=False)[0]
        axis.imshow(smooth.numpy(), cmap="cividis")
        cell = reach.shape[0] / grid
        _frame(axis, place // grid * cell, place % grid * cell, cell, cell, lw=2)
        axis.set_title(f"place {place}", fontsize=10)
    return figure


def _limit(grids: Mapping[str, Tensor]) -> float:
    """One end of a colour scale for all grids: twice their largest number, for pale cells."""
    return 2 * (max(grid.abs().max().item() for grid in grids.values()) or 1)


def _draw_numbers(axis, grid: Tensor, limit: float, zeros=True, aspect="equal", fontsize=None):
    """A matrix as pale cells, orange below zero and purple above, with its numbers written in."""
    axis.imshow(grid.numpy(), cmap="PuOr", vmin=-limit, vmax=limit, aspect=aspect)
    for (row, column), value in numpy.ndenumerate(grid.numpy()):
        if value or zeros:
            axis.text(column, row, f"{value:g}", ha="center", va="center", fontsize=fontsize)
    _leave_bare(axis)


def _frame(axis, row, column, height, width, color="white", **line) -> None:
    """Frame a window; its corner, like a cell of imshow, begins half a cell before its number."""
    corner = (column - 0.5, row - 0.5)
    axis.add_patch(Rectangle(corner, width, height, fill=False, ec=color, clip_on=False, **line))


def _leave_bare(axis) -> None:
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_frame_on(False)


def _beside_picture(picture, grid: int, count: int) -> tuple[Figure, numpy.ndarray]:
    """A figure with the picture, divided into cells, on the left, and the empty axes beside it."""
    figure, axes = plt.subplots(1, 1 + count, figsize=(2.3 * (1 + count), 2.6))
    pixels = numpy.asarray(picture)
    for axis in axes:
        _leave_bare(axis)
    axes[0].imshow(pixels)
    plots.draw_grid(axes[0], len(pixels), grid)
    axes[0].set_title(f"the picture, {grid} × {grid} places", fontsize=10)
    return figure, axes[1:]


# ---------------------------------------------------------------- explorers


def kernel_response(picture: Image.Image, kernel, bias: float = 0.0, relu: bool = False) -> Tensor:
    """What a 3 × 3 kernel makes of a picture in grey, 0 to 1: (H - 2, W - 2), no padding.

    Args:
        picture: an image of PIL.
        kernel: nine numbers, row by row.
        bias: added to every place.
        relu: set what is negative to zero.
    """
    grey = torch.from_numpy(numpy.array(picture.convert("L"))).float() / 255
    weight = torch.tensor(kernel, dtype=torch.float32).view(1, 1, 3, 3)
    response = functional.conv2d(grey[None, None], weight, torch.tensor([float(bias)]))[0, 0]
    return response.relu() if relu else response


def response_pixels(response: Tensor) -> numpy.ndarray:
    """A response as a picture (H, W, 3) of bytes.

    In grey from 0 to 1 if nothing is negative; otherwise orange below zero, white at zero and
    purple above it, with the full colour for the strongest hundredth of all places.
    """
    if response.min() >= 0:
        grey = response / max(1.0, response.max().item())
        return numpy.repeat((255 * grey).byte().numpy()[..., None], 3, axis=2)
    strength = response.abs().flatten()
    limit = torch.quantile(strength, 0.99).item() or strength.max().item()
    scaled = 0.5 + 0.5 * response / limit
    return (255 * plt.get_cmap("PuOr")(scaled.numpy())[..., :3]).astype(numpy.uint8)


def kernel_explorer(pictures: Mapping[str, Image.Image]) -> Explorer:
    """Choose a kernel or change its nine numbers, and see what it makes of a photograph.

    Args:
        pictures: images of PIL by name.

    Returns:
        the explorer; as the last line of a cell it shows itself.
    """
    small = {name: _small(picture) for name, picture in pictures.items()}
    photograph = ipywidgets.Dropdown(options=list(small), description="photograph")
    preset = ipywidgets.Dropdown(options=[*KERNELS, "your own"], description="kernel")
    preset.value = "edge: dark left, bright right"
    numbers = [
        _slider(f"{row},{column}", f"row {row}, column {column}")
        for row in "123"
        for column in "123"
    ]
    bias = _slider("bias", "the bias, added everywhere")
    relu = ipywidgets.Checkbox(description="then ReLU", indent=False)
    result = ipywidgets.HTML()

    def show(_=None) -> None:
        kernel = [number.value for number in numbers]
        picture = small[photograph.value]
        response = kernel_response(picture, kernel, bias.value, relu.value)
        low, high = response.min().item(), response.max().item()
        negative = (response < 0).float().mean().item()
        said = f"The numbers sum to {sum(kernel):.2f}. The response goes from {low:.2f} to "
        said += f"{high:.2f}; {negative:.0%} of it is negative."
        said += " Orange: negative; white: zero; purple: positive." if low < 0 else ""
        grey = numpy.asarray(picture.convert("L").convert("RGB"))
        result.value = _side_by_side({photograph.value: grey, said: response_pixels(response)})

    def choose(_=None) -> None:
        if preset.value in KERNELS:
            for number, value in zip(numbers, KERNELS[preset.value], strict=True):
                with unobserved(number, change):
                    number.value = value
        show()

    def change(_) -> None:
        with unobserved(preset, choose):
            preset.value = "your own"
        show()

    preset.observe(choose, "value")
    for number in numbers:
        number.observe(change, "value")
    for control in (photograph, bias, relu):
        control.observe(show, "value")
    choose()
    grid = ipywidgets.GridBox(numbers)
    grid.layout.grid_template_columns = "repeat(3, 15em)"
    controls = row_of([photograph, preset, bias, relu])
    return Explorer("kernel explorer", [controls, grid, result])


def layer_explorer(
    layers: Callable[[Image.Image], Mapping[str, Tensor]], pictures: Mapping[str, Image.Image]
) -> Explorer:
    """Choose a layer and a channel of a network, and see its map of a photograph.

    Args:
        layers: gives, for a picture, the map (channels, h, w) of every layer by name.
        pictures: images of PIL by name.

    Returns:
        the explorer; as the last line of a cell it shows itself.
    """
    known: dict[str, Mapping[str, Tensor]] = {}
    photograph = ipywidgets.Dropdown(options=list(pictures), description="photograph")
    names = list(layers(pictures[photograph.value]))
    layer = ipywidgets.Dropdown(options=names, description="layer")
    channel = ipywidgets.IntSlider(description="channel", continuous_update=False)
    result = ipywidgets.HTML()

    def show(_=None) -> None:
        name = photograph.value
        if name not in known:
            known[name] = layers(pictures[name])
        maps = known[name][layer.value]
        with unobserved(channel, show):
            channel.max = len(maps) - 1  # this moves the channel if its number is now too large
        response = maps[channel.value]
        height, width = response.shape
        row, column = (1 + place for place in divmod(response.argmax().item(), width))
        said = f"{layer.value}, channel {channel.value} of {len(maps)}: {height} × {width} places, "
        said += f"from {response.min():.2f} to {response.max():.2f}, highest in row {row}, column "
        said += f"{column}; {(response == 0).float().mean():.0%} of the places are exactly zero."
        spread = max((response.max() - response.min()).item(), 1e-9)
        scaled = plt.get_cmap("cividis")(((response - response.min()) / spread).numpy())
        pixels = (255 * scaled[..., :3]).astype(numpy.uint8)
        result.value = _side_by_side({name: numpy.asarray(_small(pictures[name])), said: pixels})

    for control in (photograph, layer, channel):
        control.observe(show, "value")
    show()
    return Explorer("layer explorer", [row_of([photograph, layer, channel]), result])


def _slider(name: str, tooltip: str) -> ipywidgets.FloatSlider:
    slider = ipywidgets.FloatSlider(min=-8, max=8, step=0.01, description=name, tooltip=tooltip)
    slider.layout.width = "14.5em"
    slider.style.description_width = "2.5em"
    return slider


def _small(picture: Image.Image) -> Image.Image:
    copy = picture.copy()
    copy.thumbnail((256, 256))
    return copy


def _side_by_side(pictures: Mapping[str, numpy.ndarray]) -> str:
    """Pictures (H, W, 3) of bytes in a row as HTML; the text under each is also its description."""
    figures = []
    for text, pixels in pictures.items():
        style = "width:100%;image-rendering:pixelated"
        image = plots.html_image(Image.fromarray(pixels), text, style=style)
        figures.append(
            f'<figure style="margin:0;width:20em">{image}'
            f'<figcaption role="status">{html.escape(text)}</figcaption></figure>'
        )
    return f'<div style="display:flex;flex-wrap:wrap;gap:1em">{"".join(figures)}</div>'
