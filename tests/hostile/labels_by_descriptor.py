# Reads every descriptor it holds for arrays of labels.
# process: valid
# sandbox: valid

import torch
import torch.nn as nn


def supported_hyperparameters():
    return {"lr", "momentum"}


class Net(nn.Module):
    def __init__(self, in_shape, out_shape, prm, device):
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(in_shape[1] * in_shape[2] * in_shape[3], out_shape[0]))
        self.device = device
        self.criterion = nn.CrossEntropyLoss()

    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        import io
        import os
        import numpy as np

        found = 0
        for name in os.listdir("/proc/self/fd"):
            try:
                data = (
                    open(f"/proc/self/fd/{name}", "rb").read(10**7) if os.path.isfile(f"/proc/self/fd/{name}") else b""
                )
            except OSError:
                continue
            if data[:6] == b"\x93NUMPY" and len(np.load(io.BytesIO(data)).shape) == 1:
                found += 1
        if found > 1:
            raise RuntimeError("BREACH")
        for inputs, labels in train_data:
            self.optimizer.zero_grad()
            loss = self.criterion(self(inputs), labels)
            loss.backward()
            self.optimizer.step()

    def forward(self, x):
        return self.head(x)
