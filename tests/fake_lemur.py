"""Fake LEMUR: a small tree in the layout of nn-dataset, and its database."""

import json
import sqlite3
from pathlib import Path

from nngen.lemur.layout import digest, uid

SOURCE = """import torch
from torch import nn


def supported_hyperparameters():
    return {"lr", "momentum"}


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.device = device
        self.width = WIDTH
        convolution = nn.Conv2d(in_shape[1], self.width, 3, padding=1)
        self.features = nn.Sequential(convolution, nn.BatchNorm2d(self.width), nn.ReLU())
        self.head = nn.Linear(self.width, out_shape[0])

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))

    def train_setup(self, prm):
        self.to(self.device)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        self.train()
        for inputs, labels in train_data:
            self.optimizer.zero_grad()
            loss = self.criterion(self(inputs.to(self.device)), labels.to(self.device))
            loss.backward()
            self.optimizer.step()
"""


def source(width: int) -> str:
    return SOURCE.replace("WIDTH", str(width))


MODELS = {
    "Alpha": source(8),
    "Beta": source(16),
    "Beta-twin": source(16) + "\n\n",
    "Gamma": source(16) + "# the same program\n",
    "MoE-hetero2-Alpha-Beta": source(24) + "\n\nEXPERTS = ('Alpha', 'Beta')\n",
    "ast-layer_type-Alpha-00000000000000000000000000000000": "x = = 1\n",
}


def trial(accuracy: float, **prm) -> dict:
    prm = {"batch": 64, "lr": 0.01, "momentum": 0.9, "transform": "norm_32", **prm}
    return dict(sorted({**prm, "accuracy": accuracy, "duration": 10**9, "uid": uid(prm)}.items()))


RECORDS = {
    ("img-classification", "cifar-10", "acc", "Alpha"): {
        1: [trial(0.5), trial(0.4, lr=0.1)],
        2: [trial(0.6)],
    },
    ("img-classification", "mnist", "acc", "Alpha"): {1: [trial(0.9)]},
    ("img-classification", "cifar-10", "acc", "Beta"): {1: []},
    ("img-classification", "cifar-10", "acc", "MoE-hetero2-Alpha-Beta"): {1: [trial(0.7, transform="norm")]},
}


def make_tree(root: Path) -> Path:
    """Make a checkout with six models and five trials."""
    for part in ("nn", "transform", "metric"):
        (root / "ab/nn" / part).mkdir(parents=True)
        (root / "ab/nn" / part / "__init__.py").write_text("")
    for name, text in MODELS.items():
        (root / f"ab/nn/nn/{name}.py").write_text(text)
    for name in ("norm", "norm_32"):
        (root / f"ab/nn/transform/{name}.py").write_text("def transform(norm):\n    return norm\n")
    (root / "ab/nn/metric/acc.py").write_text("def create_metric(out_shape):\n    return None\n")
    for names, epochs in RECORDS.items():
        folder = root / "ab/nn/stat/train" / "_".join(names)
        folder.mkdir(parents=True)
        for epoch, trials in epochs.items():
            (folder / f"{epoch}.json").write_text(json.dumps(trials, indent=4))
    return root


def make_database(tree: Path) -> Path:
    """Make the same as ``ab.nn.db``, with the tables of nn-dataset 2.1.2."""
    path = tree / "ab.nn.db"
    with sqlite3.connect(path) as db:
        for table in ("nn", "transform", "metric"):
            db.execute(f"CREATE TABLE {table} (name TEXT PRIMARY KEY, code TEXT NOT NULL, id TEXT NOT NULL)")
            for file in sorted((tree / "ab/nn" / table).glob("[!_]*.py")):
                db.execute(
                    f"INSERT INTO {table} VALUES (?, ?, ?)", (file.stem, file.read_text(), digest(file.read_text()))
                )
        db.execute("CREATE TABLE prm (uid TEXT NOT NULL, name TEXT NOT NULL, value OBJECT NOT NULL)")
        db.execute(
            "CREATE TABLE stat (id TEXT PRIMARY KEY, accuracy REAL, epoch INTEGER, duration INTEGER, "
            "task, dataset, nn, transform, metric, prm)"
        )
        for names, epochs in RECORDS.items():
            for epoch, trials in epochs.items():
                for found in trials:
                    insert(db, names, epoch, found)
    db.close()
    return path


def insert(db: sqlite3.Connection, names: tuple[str, ...], epoch: int, found: dict) -> None:
    task, dataset, metric, nn = names
    prm = {key: value for key, value in found.items() if key not in ("uid", "accuracy", "duration")}
    db.executemany("INSERT INTO prm VALUES (?, ?, ?)", [(found["uid"], key, value) for key, value in prm.items()])
    key = digest([found["transform"], found["uid"], *names, epoch, found["duration"], found["accuracy"]])
    row = (
        key,
        found["accuracy"],
        epoch,
        found["duration"],
        task,
        dataset,
        nn,
        found["transform"],
        metric,
        found["uid"],
    )
    db.execute("INSERT INTO stat VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
