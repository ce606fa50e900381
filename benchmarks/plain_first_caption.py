"""A first caption as a tutorial's script gives it: the reference side of speed_first_caption.py.

python benchmarks/plain_first_caption.py PHOTO.jpg

It does what such a script does, but with the captioner of this course. It imports the packages for
drawing and scoring along with those for captioning, and then runs the search for this one picture,
with the places projected again before every word.
"""

import sys

import matplotlib.pyplot  # noqa: F401
import torch
from plain_attention import plain_copy, search_alone
from pycocoevalcap.bleu.bleu import Bleu  # noqa: F401
from torchvision import transforms  # noqa: F401

from convrnn_utils.checkpoints import SHIPPED_CAPTIONER, load_model
from convrnn_utils.data import read_image


def main() -> None:
    """Print the caption of the photograph."""
    model, vocabulary, _ = load_model(SHIPPED_CAPTIONER)
    picture = model.cnn.preprocess(read_image(sys.argv[1])).unsqueeze(0)
    with torch.no_grad():
        features = model.cnn(picture)
    print(vocabulary.decode(search_alone(plain_copy(model), features)))


if __name__ == "__main__":
    main()
