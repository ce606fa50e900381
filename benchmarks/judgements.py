"""How well metrics agree with people: Kendall's tau on the judgements that come with Flickr8k.

python benchmarks/judgements.py [--json FILE]

Two to three minutes of one core, most of them METEOR. The published numbers are those of Hessel et
al., arXiv:2104.08718, tables 1 and 2; Anderson et al., arXiv:1607.08822, began this comparison.
"""

import argparse
import json
from pathlib import Path

from convrnn_utils import data
from convrnn_utils.judgements import agreement, crowd_judgements, expert_judgements

PUBLISHED = {
    "expert": {"BLEU-1": 32.3, "BLEU-4": 30.8, "METEOR": 41.8, "ROUGE-L": 32.3, "CIDEr": 43.9},
    "crowd": {"BLEU-4": 16.9, "METEOR": 22.2, "ROUGE-L": 19.9, "CIDEr": 24.6},
}
VARIANTS = {"expert": "c", "crowd": "b"}


def main() -> None:
    """Compute the numbers, print them as a table, and write them as JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    folder = data.flickr8k()
    sets = {"expert": expert_judgements(folder), "crowd": crowd_judgements(folder)}
    results = {}
    for name, judgements in sets.items():
        scores = sum(len(judgement.scores) for judgement in judgements)
        print(f"{name}: {len(judgements):,} captions, {scores:,} scores, tau-{VARIANTS[name]}")
        found = agreement(judgements, VARIANTS[name])
        results[name] = {metric: 100 * tau for metric, tau in found.items()}
        print(f"{'metric':10}{'tau × 100':>10}{'published':>11}")
        for metric, tau in results[name].items():
            published = PUBLISHED[name].get(metric)
            print(f"{metric:10}{tau:10.2f}{'' if published is None else published:>11}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
