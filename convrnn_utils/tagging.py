"""How the weights of ``small_cnn`` came about: trained on scenes, as others are on ImageNet.

``python -m convrnn_utils.tagging`` draws 20,000 scenes of its own. First all layers but
the last two learn to say what lies at each place of the grid and which tags are true of the
picture (there is a red star; a star is striped; ...); then the last two learn the tags from the
pooled vector, which is quick, since the layers before them stay as they are. The result is
``data/small_cnn/weights.safetensors``. No caption is used, and none of the combinations that
``scenes`` holds out is shown.
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


def train_lower_layers(
    encoder: ImageEncoder, pictures: Tensor, tags: Tensor, places: Tensor, epochs: int
) -> nn.Module:
    """Train all layers but the last two, by two tasks at once; give these layers.

    One linear layer reads the vector of each place and says what lies there; another, after a
    layer of its own, reads the pooled vector and says which tags are true.

    Args:
        encoder: its network is trained in place.
        pictures: (N, 3, S, S) of bytes.
        tags, places: see ``tag_table`` and ``place_table``.
    """
    lower = encoder.network[:-2]
    widths = [len(scenes.SHAPES) + 1, *(len(names) for names in PLACE_CLASSES[1:])]
    conjunctions = nn.Sequential(nn.Conv2d(128, 512, 1, bias=False), nn.BatchNorm2d(512), nn.ReLU())
    place_head, tag_head = nn.Linear(512, sum(widths)), nn.Linear(512, tags.shape[1])
    parts = nn.ModuleList([lower, conjunctions, place_head, tag_head]).to(tags.device)

    def loss_of(rows: Tensor) -> Tensor:
        feature_map = conjunctions(lower(encoder.normalise(pictures[rows])))
        grid = feature_map.flatten(2).transpose(1, 2)
        answers = place_head(grid).split(widths, dim=2)
        place_loss = sum(
            functional.cross_entropy(answer.flatten(0, 1), target.flatten())
            for answer, target in zip(answers, places[rows].unbind(dim=2), strict=True)
        )
        return place_loss + _tag_loss(tag_head(grid.mean(dim=1)), tags[rows])

    _minimise(loss_of, list(parts.parameters()), len(pictures), epochs)
    return lower


def _tag_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Mean binary cross-entropy of the tags, times 100 to weigh as much as the places."""
    return 100 * functional.binary_cross_entropy_with_logits(logits, tags)


def train_tags(network: nn.Module, maps: Tensor, tags: Tensor, epochs: int) -> nn.Linear:
    """Train the last layers by a linear layer on the pooled vector; give this layer.

    Args:
        network: the layers after the feature maps.
        maps: (N, 128, 6, 6), what the layers before make of N pictures.
        tags: (N, number of tags), see ``tag_table``.
    """
    head = nn.Linear(512, tags.shape[1]).to(tags.device)

    def loss_of(rows: Tensor) -> Tensor:
        logits = head(network(maps[rows].float()).mean(dim=(2, 3)))
        return _tag_loss(logits, tags[rows])

    _minimise(loss_of, [*network.parameters(), *head.parameters()], len(maps), epochs)
    return head


def _minimise(loss_of, weights: list, count: int, epochs: int, batch_size: int = 128) -> None:
    """AdamW over ``count`` examples, the learning rate rising at first and then falling."""
    optimizer = torch.optim.AdamW(weights, weight_decay=0.01)
    steps = epochs * math.ceil(count / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    with tqdm(total=steps, unit="batch") as bar:
        for _ in range(epochs):
            for rows in torch.randperm(count).split(batch_size):
                loss = loss_of(rows)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.set_description(f"loss {loss.item():.3f}", refresh=False)
                bar.update()


@torch.inference_mode()
def feature_maps(network: nn.Module, encoder: ImageEncoder, pictures: Tensor) -> Tensor:
    """What a network makes of N pictures, 256 at a time, in fp16."""
    batches = pictures.split(256)
    return torch.cat([network.eval()(encoder.normalise(batch)).half() for batch in batches])


@torch.inference_mode()
def average_precision(network: nn.Module, head: nn.Linear, maps: Tensor, tags: Tensor) -> float:
    """Mean over tags of the average precision with which pictures are ranked by a tag's score."""
    batches = maps.split(256)
    network.eval()
    logits = torch.cat([head(network(batch.float()).mean(dim=(2, 3))) for batch in batches])
    precisions = []
    for scores, true in zip(logits.T, tags.T, strict=True):
        ranked = true[scores.argsort(descending=True)]
        if ranked.any():
            hits = ranked.cumsum(0) / torch.arange(1, len(ranked) + 1, device=ranked.device)
            precisions.append((hits * ranked).sum() / ranked.sum())
    return torch.stack(precisions).mean().item()


def main() -> None:
    """Draw, train, measure and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--lower-epochs", type=int, default=8)
    parser.add_argument("--upper-epochs", type=int, default=14)
    parser.add_argument("--output", type=Path, default=SMALL_CNN_WEIGHTS)
    options = parser.parse_args()

    seed_everything(0)
    where = device()
    encoder = create_encoder("small_cnn", weights=None, frozen=False).to(where)
    split = data.load_split(data.scenes(train=options.pictures, seed=1), "train")
    pictures = data.Pictures(split, encoder, in_memory=True).kept.to(where)
    tags, columns = tag_table(split.records)
    tags, places = tags.to(where), place_table(split.records).to(where)
    kept = len(pictures) // 20  # the last twentieth is for measuring

    lower = train_lower_layers(
        encoder, pictures[:-kept], tags[:-kept], places[:-kept], options.lower_epochs
    )
    maps = feature_maps(lower, encoder, pictures)
    upper = encoder.network[-2:]
    head = train_tags(upper, maps[:-kept], tags[:-kept], options.upper_epochs)
    precision = average_precision(upper, head, maps[-kept:], tags[-kept:])
    print(f"mean average precision over {len(columns)} tags on {kept} new scenes: {precision:.3f}")
    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in encoder.network.state_dict().items()
    }
    with files.complete_or_absent(options.output) as unfinished:
        save_file(weights, unfinished)


if __name__ == "__main__":
    main()
