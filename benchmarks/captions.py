"""Draw the picture of the README: photographs with the captions of the shipped model.

python benchmarks/captions.py
"""

from functools import partial
from pathlib import Path

from convrnn_utils import data, plots
from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model
from convrnn_utils.decoding import beam_search, caption_all

SHOWN = ("dog", "horses", "tiger", "parrot", "musicians", "square", "wall", "rocket")


def main() -> None:
    """Caption the photographs and write ``captions.jpg`` beside this file."""
    model, vocabulary, _ = load_model(SHIPPED_CAPTIONER)
    photos = data.load_split(data.photos(), "test")
    search = partial(beam_search, beam_width=5, length_power=1.0)  # as the command line does
    captions = caption_all(model, data.Pictures(photos, model.cnn), vocabulary, 8, search=search)
    written = {path.stem: (path, text) for path, text in zip(photos.paths, captions, strict=True)}
    plots.set_style()
    shown = [written[name] for name in SHOWN]
    figure = plots.show_pictures([data.read_image(p) for p, _ in shown], [t for _, t in shown])
    figure.savefig(Path(__file__).with_name("captions.jpg"), dpi=80, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
