"""How the weights of ``small_cnn`` came about: trained to tag scenes, as others are on ImageNet.

``python -m convrnn_utils.tagging`` draws 20,000 scenes of its own, trains the network to say which
tags are true of each (there is a red star; a star is striped; a star is at the top left; ...), and
writes ``data/small_cnn/weights.safetensors``. No caption is used, and none of the combinations
that ``scenes`` holds out is shown.
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from convrnn_utils import data, scenes
from convrnn_utils.encoders import SMALL_CNN_WEIGHTS, ImageEncoder, create_encoder
from convrnn_utils.env import device, seed_everything
from convrnn_utils.scenes import Scene


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


def train_tagger(
    encoder: ImageEncoder, pictures: Tensor, table: Tensor, epochs: int, batch_size: int = 128
) -> nn.Linear:
    """Train an encoder and a linear layer on its pooled vector; give the layer.

    Args:
        encoder: not frozen; trained in place.
        pictures: (N, 3, S, S) of bytes.
        table: (N, number of tags), see ``tag_table``.
    """
    where = encoder.mean.device
    head = nn.Linear(encoder.dim, table.shape[1]).to(where)
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, weight_decay=0.01)
    steps = epochs * math.ceil(len(pictures) / batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    with tqdm(total=steps, unit="batch") as bar:
        for _ in range(epochs):
            for rows in torch.randperm(len(pictures)).split(batch_size):
                logits = head(encoder(pictures[rows].to(where)).mean(dim=1))
                loss = functional.binary_cross_entropy_with_logits(logits, table[rows].to(where))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                bar.set_description(f"loss {loss.item():.4f}", refresh=False)
                bar.update()
    return head


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
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=SMALL_CNN_WEIGHTS)
    options = parser.parse_args()

    seed_everything(0)
    encoder = create_encoder("small_cnn", weights=None, frozen=False).to(device())
    folder = data.scenes(train=options.pictures, seed=1)
    split = data.load_split(folder, "train")
    pictures = data.Pictures(split, encoder, in_memory=True).kept
    table, columns = tag_table(split.records)
    kept = len(pictures) // 20  # the last twentieth is for measuring
    head = train_tagger(encoder, pictures[:-kept], table[:-kept], options.epochs)
    precision = average_precision(encoder, head, pictures[-kept:], table[-kept:])
    print(f"mean average precision over {len(columns)} tags on {kept} new scenes: {precision:.3f}")
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in encoder.network.state_dict().items()
    }
    with data.complete_or_absent(options.output) as unfinished:
        save_file(weights, unfinished)


if __name__ == "__main__":
    main()
