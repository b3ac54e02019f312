"""A recipe and a data folder of a few drawn images, for tests of the training room."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


def recipe_data(**changes: Any) -> dict[str, Any]:
    """Return the shipped recipe cut down to two concepts and a tiny model."""
    data: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "nano.yaml").read_text())
    data["batch_images"] = 2
    data["workers"] = 1
    data["architecture"] = {
        "bpe_vocabulary": 300,
        "vision": {"image_size": 64, "patch_size": 16, "hidden": 32, "layers": 1, "heads": 2,
                   "mlp": 32},
        "language": {"hidden": 32, "layers": 1, "heads": 2, "key_value_heads": 1, "mlp": 32,
                     "positions": 512},
        "grounding": {"image_size": 64, "embed_dim": 8, "heads": 1, "stages": [1, 1, 2, 1],
                      "global_attention": [3], "windows": [4, 2, 4, 2], "d_model": 32,
                      "top_down_levels": [0, 1, 2, 3], "decoder_mlp": 32, "iou_hidden": 16,
                      "multimask_outputs": 0},
    }  # fmt: skip
    data["concepts"] = [
        {"target": "polyp", "modality": "endoscopy"},
        {"target": "breast tumour", "modality": "ultrasound"},
    ]
    data["sources"] = [
        {"folder": "polyps", "modality": "endoscopy", "organ": "colon",
         "targets": {"polyp, endoscopy": [1]}},
        {"folder": "breasts", "modality": "ultrasound",
         "targets": {"breast tumour, ultrasound": [1, 2]}},
    ]  # fmt: skip
    data["phantom"] = None
    data["stages"] = [
        {"kind": "vectors", "minutes": 5, "max_steps": 3, "lr": 1e-3},
        {"kind": "language", "minutes": 5, "max_steps": 2, "lr": 1e-3},
        {"kind": "joint", "minutes": 5, "max_steps": 2, "lr": 1e-3},
        {"kind": "spoken", "minutes": 5, "max_steps": 2, "lr": 1e-3},
    ]
    return {**data, **changes}


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write the small recipe as YAML."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_data(**changes)))
    return path


def write_data(folder: Path, images: int = 12) -> Path:
    """Draw bright boxes on noise; every third ultrasound image is empty."""
    draw = np.random.default_rng(0)
    for name in ("polyps", "breasts"):
        (folder / name / "images").mkdir(parents=True)
        (folder / name / "masks").mkdir()
        rows = []
        for number in range(images):
            mask = np.zeros((40, 50), np.uint8)
            if name == "polyps" or number % 3:
                top, left = draw.integers(2, 20, 2)
                mask[top : top + 15, left : left + 15] = 1 + (name == "breasts" and number % 2)
            picture = draw.integers(0, 90, (40, 50)).astype(np.uint8) + 120 * (mask > 0)
            picture = picture.astype(np.uint8)
            if name == "polyps":
                picture = np.repeat(picture[..., None], 3, axis=2)
            Image.fromarray(picture).save(folder / name / "images" / f"{number}.png")
            Image.fromarray(mask).save(folder / name / "masks" / f"{number}.png")
            rows.append([f"images/{number}.png", f"masks/{number}.png", f"group{number}"])
        with (folder / name / "labels.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image", "mask", "group"])
            writer.writerows(rows)
    return folder
