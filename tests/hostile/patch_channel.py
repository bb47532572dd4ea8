# Exchanges the worker's own sender.
# process: valid|crashed
# sandbox: valid|crashed

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
        from nngen.training import frames

        send = frames.Channel.send_bytes
        frames.Channel.send_bytes = lambda self, kind, body: send(self, kind, bytes(len(body)) if kind != 1 else body)

    def train_setup(self, prm):
        self.optimizer = torch.optim.SGD(self.parameters(), lr=prm["lr"], momentum=prm["momentum"])

    def learn(self, train_data):
        for inputs, labels in train_data:
            self.optimizer.zero_grad()
            loss = self.criterion(self(inputs), labels)
            loss.backward()
            self.optimizer.step()

    def forward(self, x):
        return self.head(x)
