"""The training loop on images beside a bare loop: torchvision's transforms and a DataLoader of two workers.

    python benchmarks/images.py digits FOLDER [--epochs 3] [--rounds 1]     MNIST's IDX files; the perceptron
    python benchmarks/images.py photos FOLDER [--epochs 3] [--rounds 1]     train/CLASS/NAME.png; a ResNet-8
    python benchmarks/images.py masks FOLDER [--epochs 3] [--rounds 1]      images, masks, train.txt; a U-Net
    python benchmarks/images.py masks FOLDER --share                        which part of an epoch prepares batches
    python benchmarks/images.py masks FOLDER --words hardware.precision=fp32    llmft in the precision of the bare loop

Whole processes are measured, once with one epoch and once with more: the slope between is what an epoch costs from the
second on. Processor seconds, those of worker processes included, are what a busy machine leaves comparable.
"""

import argparse
import gzip
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy
import torch
from PIL import Image
from torch import nn

RECIPES = {
    "digits": ("mnist_mlp", "idx", ["dataset.path={}"]),
    "photos": ("cifar_resnet", "images", ["dataset.train={}/train", "dataset.test={}/test"]),
    "masks": ("segmentation", "masks", ["dataset.train={}/train.txt", "dataset.split.validation=0"]),
}


def words(kind: str, folder: Path, epochs: int, place: str, more: list[str]) -> list[str]:
    """What is typed for llmft."""
    recipe, reader, files = RECIPES[kind]
    own = [f"dataset={reader}", *(word.format(folder) for word in files), "dataset.max_overlap=1"]
    own += ["hardware.device=cpu", "trainer.log_every=1000", f"trainer.epochs={epochs}", f"run.dir={place}/run"]
    return ["finetune", f"+recipe={recipe}", *own, *more]


class Digits(torch.utils.data.Dataset):
    """MNIST's training rows, as torchvision's own class gives them: an image of PIL each, changed one by one."""

    def __init__(self, folder: Path, changes: Any) -> None:
        with gzip.open(folder / "train-images-idx3-ubyte.gz") as stream:
            count, height, width = struct.unpack(">III", stream.read(16)[4:])
            self.pixels = numpy.frombuffer(stream.read(), numpy.uint8).reshape(count, height, width)
        with gzip.open(folder / "train-labels-idx1-ubyte.gz") as stream:
            self.labels = stream.read()[8:]
        self.changes = changes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.changes(Image.fromarray(self.pixels[index])), self.labels[index]


class Masks(torch.utils.data.Dataset):
    """The images of a list of names, and their masks, which change together."""

    def __init__(self, folder: Path, changes: Any) -> None:
        self.folder, self.changes = folder, changes
        self.names = (folder / "train.txt").read_text().split()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        from torchvision.tv_tensors import Mask

        image = Image.open(self.folder / "images" / f"{self.names[index]}.png").convert("RGB")
        mask = Mask(numpy.array(Image.open(self.folder / "masks" / f"{self.names[index]}.png")))
        pixels, labels = self.changes(image, mask)
        return pixels, labels.long()


def bare(kind: str, folder: Path, epochs: int) -> None:
    """What one would write by hand."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from llmft.models.image_models import (
        ImageMLPConfig,
        ImageMLPForImageClassification,
        SmallResNetConfig,
        SmallResNetForImageClassification,
    )
    from llmft.models.unet import UNetConfig, UNetForSemanticSegmentation
    from llmft.tasks.images.segmentation_objective import cross_entropy, dice_loss

    loss = nn.functional.cross_entropy
    rows: Any
    optimizer: torch.optim.Optimizer
    if kind == "digits":
        changes = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1307], [0.3081])])
        rows = Digits(folder, changes)
        config: Any = ImageMLPConfig(image_size=28, num_channels=1, num_labels=10)
        model: Any = ImageMLPForImageClassification(config)
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        size = 32
    elif kind == "photos":
        changes = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.491, 0.482, 0.447], [0.247, 0.243, 0.262]),
            ]
        )
        rows = ImageFolder(str(folder / "train"), changes)
        config = SmallResNetConfig(image_size=32, num_labels=10)
        model = SmallResNetForImageClassification(config)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4, nesterov=True)
        size = 64
    else:
        changes = v2.Compose(
            [
                v2.ToImage(),
                v2.RandomCrop(128),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.ColorJitter(brightness=0.5, contrast=0.5),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize([0.5], [0.5]),
            ]
        )
        rows = Masks(folder, changes)
        model = UNetForSemanticSegmentation(UNetConfig(num_labels=2))
        optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
        size = 2

        def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return cross_entropy(logits, labels) + dice_loss(logits, labels)

    loader = DataLoader(rows, size, shuffle=True, num_workers=2)
    model.train()
    for _ in range(epochs):
        for images, labels in loader:
            loss(model(images).logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()


def measured(command: list[str], cache: str) -> tuple[float, float]:
    """Wall-clock and processor seconds of a process with its children."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    surroundings = os.environ | {"HF_HUB_OFFLINE": "1", "LLMFT_CACHE": cache}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=surroundings)
    if done.returncode:
        sys.exit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, used


def slopes(kind: str, folder: Path, epochs: int, rounds: int, more: list[str]) -> None:
    """Seconds of an epoch from the second on, of both."""
    found: dict[str, list[tuple[float, float]]] = {"llmft": [], "bare": []}
    with tempfile.TemporaryDirectory() as cache:
        for number in range(rounds):
            for who in ("llmft", "bare"):
                ends = []
                for count in (1, epochs):
                    with tempfile.TemporaryDirectory() as place:
                        command = ["-m", "llmft", *words(kind, folder, count, place, more)]
                        if who == "bare":
                            command = [__file__, kind, str(folder), "--bare", str(count)]
                        ends.append(measured(command, cache))
                (first, first_cpu), (last, last_cpu) = ends
                found[who].append(((last - first) / (epochs - 1), (last_cpu - first_cpu) / (epochs - 1)))
            print(number, {who: values[-1] for who, values in found.items()}, file=sys.stderr)
    middle = {who: [median(column) for column in zip(*values, strict=True)] for who, values in found.items()}
    for who, (wall, cpu) in middle.items():
        print(f"{who:6} {wall:.2f} s of wall clock and {cpu:.2f} s of processor time an epoch")
    print(f"llmft's speed, of that of the bare loop: {middle['bare'][1] / middle['llmft'][1]:.2f} by processor time")


def share(kind: str, folder: Path, more: list[str]) -> None:
    """The part of an epoch that reads and augments batches, all in this process."""
    from llmft.commands.session import Session
    from llmft.config.load import load
    from llmft.training.batches import Drawn, collator, shuffle
    from llmft.training.batches import epoch_generator as generator

    with tempfile.TemporaryDirectory() as place:
        session = Session(load("finetune", words(kind, folder, 1, place, more)[1:]))
        session.check()
        session.prepare()
        session.build()
        features, size = session.splits["train"].features, session.config.trainer.rows
        rows = Drawn(features, 0) if session.config.augment.active else features
        collate, model = collator(session.config, session.task), session.model.train()
        optimizer = torch.optim.SGD(model.parameters(), 1e-3, 0.9)
        preparing = stepping = 0.0
        order = shuffle(len(features), size, None, generator(0, 0))
        for start in range(0, len(order), size):
            began = time.process_time()
            batch = collate(rows.__getitems__(order[start : start + size]))
            ready = time.process_time()
            session.task.objective.loss(model, batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            preparing += ready - began
            stepping += time.process_time() - ready
    print(json.dumps({"preparing": round(preparing, 3), "steps": round(stepping, 3)}))
    print(f"{preparing / (preparing + stepping):.1%} of an epoch prepares batches")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=RECIPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--share", action="store_true")
    parser.add_argument("--words", nargs="*", default=[], help="overrides for llmft")
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.bare:
        bare(given.kind, given.folder, given.bare)
    elif given.share:
        share(given.kind, given.folder.absolute(), given.words)
    else:
        slopes(given.kind, given.folder.absolute(), given.epochs, given.rounds, given.words)


if __name__ == "__main__":
    main()
