"""How the weights of ``small_cnn`` came about: trained to tag scenes, as others are on ImageNet.

``python -m convrnn_utils.tagging`` draws 20,000 scenes of its own, trains the network to say which
tags are true of each (there is a red star; a star is striped; a star is at the top left; ...) and
what lies at each place, and writes ``data/small_cnn/weights.safetensors``. No caption is used, and
none of the combinations that ``scenes`` holds out is shown.
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from convrnn_utils import data, files, scenes
from convrnn_utils.encoders import SMALL_CNN_WEIGHTS, ImageEncoder, create_encoder
from convrnn_utils.env import device, seed_everything
from convrnn_utils.scenes import Scene

PLACE_CLASSES = (scenes.SHAPES, tuple(scenes.COLOURS), scenes.PATTERNS, tuple(scenes.SIZES))


def tags(scene: Scene) -> set[tuple]:
    """What is true of a scene, as tuples such as ``("red", "star")`` or ``("star", 0, 2)``."""
    true: set[tuple] = {(scene.background,), (len(scene.things),)}
    for thing in scene.things:
        column, row = (min(int(3 * value / scenes.SIZE), 2) for value in (thing.x, thing.y))
        true |= {
            (thing.colour, thing.shape),
            (thing.pattern, thing.shape),
            (thing.size, thing.shape),
            (thing.pattern, thing.colour),
            (thing.size, thing.colour),
            (thing.shape, column, row),
            (thing.colour, column, row),
        }
    return true


def tag_table(records: list[dict]) -> tuple[Tensor, list[tuple]]:
    """The tags of N pictures as (N, number of tags) of 0 and 1, and what each column means."""
    tag_sets = [tags(Scene.from_json(record["scene"])) for record in records]
    columns = sorted(set().union(*tag_sets), key=str)
    number = {tag: index for index, tag in enumerate(columns)}
    table = torch.zeros(len(records), len(columns))
    for row, tag_set in enumerate(tag_sets):
        table[row, [number[tag] for tag in tag_set]] = 1
    return table, columns


def place_table(records: list[dict], side: int = 6) -> Tensor:
    """What lies at each place of the grid: (N, side · side, 4) of class numbers.

    A place has the shape, colour, pattern and size of the thing whose centre is in it; where there
    is none, the shape is one more class, and the others are −100, which the loss passes over.
    """
    table = torch.full((len(records), side * side, 4), -100)
    table[:, :, 0] = len(scenes.SHAPES)
    for row, record in enumerate(records):
        for thing in Scene.from_json(record["scene"]).things:
            column, line = (int(side * value / scenes.SIZE) for value in (thing.x, thing.y))
            table[row, side * line + column] = torch.tensor(
                [
                    names.index(value)
                    for names, value in zip(PLACE_CLASSES, _looks(thing), strict=True)
                ]
            )
    return table


def _looks(thing) -> tuple[str, str, str, str]:
    return thing.shape, thing.colour, thing.pattern, thing.size


def train_tagger(
    encoder: ImageEncoder,
    pictures: Tensor,
    tag_targets: Tensor,
    place_targets: Tensor,
    epochs: int,
    batch_size: int = 128,
) -> nn.Linear:
    """Train an encoder by two linear layers; give the one that tags.

    One reads the pooled vector and says which tags are true of the picture. The other reads the
    vector of each place and says what lies there; it makes the training many times shorter,
    since the network need not find out by itself which part of a picture a tag is about.

    Args:
        encoder: not frozen; trained in place.
        pictures: (N, 3, S, S) of bytes.
        tag_targets, place_targets: see ``tag_table`` and ``place_table``.
    """
    where = encoder.mean.device
    widths = [len(scenes.SHAPES) + 1, *(len(names) for names in PLACE_CLASSES[1:])]
    tag_head = nn.Linear(encoder.dim, tag_targets.shape[1]).to(where)
    place_head = nn.Linear(encoder.dim, sum(widths)).to(where)
    weights = [*encoder.parameters(), *tag_head.parameters(), *place_head.parameters()]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.01)
    steps = epochs * math.ceil(len(pictures) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    with tqdm(total=steps, unit="batch") as bar:
        for _ in range(epochs):
            for rows in torch.randperm(len(pictures)).split(batch_size):
                grid = encoder(pictures[rows].to(where))
                tag_loss = functional.binary_cross_entropy_with_logits(
                    tag_head(grid.mean(dim=1)), tag_targets[rows].to(where)
                )
                answers = place_head(grid).split(widths, dim=2)
                place_loss = sum(
                    functional.cross_entropy(answer.flatten(0, 1), target.flatten())
                    for answer, target in zip(
                        answers, place_targets[rows].to(where).unbind(dim=2), strict=True
                    )
                )
                optimizer.zero_grad()
                (100 * tag_loss + place_loss).backward()
                optimizer.step()
                schedule.step()
                losses = f"tags {tag_loss.item():.4f}, places {place_loss.item():.3f}"
                bar.set_description(losses, refresh=False)
                bar.update()
    return tag_head


@torch.inference_mode()
def average_precision(encoder: ImageEncoder, head: nn.Linear, pictures: Tensor, table: Tensor):
    """Mean over tags of the average precision with which pictures are ranked by a tag's score."""
    encoder.eval()
    where = encoder.mean.device
    batches = pictures.split(256)
    logits = torch.cat([head(encoder(batch.to(where)).mean(dim=1)) for batch in batches]).cpu()
    precisions = []
    for scores, true in zip(logits.T, table.T, strict=True):
        ranked = true[scores.argsort(descending=True)]
        if ranked.any():
            hits = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1)
            precisions.append((hits * ranked).sum() / ranked.sum())
    return torch.stack(precisions).mean().item()


def main() -> None:
    """Draw, train, measure and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, default=SMALL_CNN_WEIGHTS)
    options = parser.parse_args()

    seed_everything(0)
    encoder = create_encoder("small_cnn", weights=None, frozen=False).to(device())
    folder = data.scenes(train=options.pictures, seed=1)
    split = data.load_split(folder, "train")
    pictures = data.Pictures(split, encoder, in_memory=True).kept
    table, columns = tag_table(split.records)
    places = place_table(split.records)
    kept = len(pictures) // 20  # the last twentieth is for measuring
    head = train_tagger(encoder, pictures[:-kept], table[:-kept], places[:-kept], options.epochs)
    precision = average_precision(encoder, head, pictures[-kept:], table[-kept:])
    print(f"mean average precision over {len(columns)} tags on {kept} new scenes: {precision:.3f}")
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in encoder.network.state_dict().items()
    }
    with files.complete_or_absent(options.output) as unfinished:
        save_file(weights, unfinished)


if __name__ == "__main__":
    main()
