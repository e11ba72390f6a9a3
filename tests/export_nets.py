"""Small networks for the tests of the export: good ones, and one for each way in which a model can't leave."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

torch.library.define("export_nets::own", "(Tensor x) -> Tensor")
torch.library.impl("export_nets::own", "CPU")(lambda x: x.sin())

ROWS = torch.linspace(-1, 1, 8).reshape(2, 4)


class Small(nn.Module):
    """A convolution with its norm, a branch at half the size, and two results by name."""

    example_inputs = torch.linspace(-2, 2, 768).reshape(1, 3, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor, scale: float = 1.0) -> dict[str, Tensor]:
        y = F.relu(self.norm(self.conv(image)) * scale)
        y = y + F.interpolate(F.avg_pool2d(y, 2), size=y.shape[-2:])
        return {"logits": self.head(y.mean((2, 3))), "image": y}


class Rows(nn.Module):
    """What the faulty ones share: a layer on two rows of four."""

    example_inputs: object = ROWS

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.linear(x))


class Branch(Rows):
    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        if x.sum() > 0:
            return x
        return -x


class Inner(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


class Unsupported(Rows):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.linear(x))


class WrongShape(Rows):
    example_inputs: object = torch.zeros(2, 5)


class Own(Rows):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.export_nets.own(self.linear(x))


class Loop(Rows):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return torch.stack([y[row] * (row + 1) for row in range(int(x.shape[0]))])


class Dropping(Rows):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(self.linear(x), 0.5)


class Random(Rows):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + torch.randn_like(x)


class Picking(Rows):
    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y[y > 0]


class Dead(Rows):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x * 1e-6) + 1


class Stuck(Rows):
    """A part of it stays in training mode, whatever its owner says."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> "Stuck":
        super().train(mode)
        self.drop.training = True
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.linear(x))


class Named(Rows):
    """Keyword arguments only, a constant among them, and results in containers."""

    example_inputs: object = {"x": ROWS, "scale": torch.tensor(2.0), "flag": True}

    def forward(self, *, x: Tensor, scale: Tensor, flag: bool) -> dict[str, object]:  # type: ignore[override]
        y = self.linear(x) * scale if flag else x
        return {"y": y, "x": x, "count": 3, "more": [y + 1, (y, None)]}


class Hash(Rows):
    """A look-up by signs, as MemoryFormer's."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(32, dtype=torch.float32).reshape(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        rows = ((self.linear(x) >= 0) * torch.tensor([1, 2, 4, 8])).sum(-1)
        return F.embedding(rows, self.table)


class Recurrent(nn.Module):
    """The exporter declares the length of its result as the example's."""

    example_inputs = torch.linspace(-1, 1, 96).reshape(2, 6, 8)

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]


class Counting(Rows):
    """Its result depends on how often it was called."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x) + self.calls


class Caching(Rows):
    """It keeps something that no result depends on."""

    last: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("last", torch.zeros(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        self.last.copy_(y)
        return y


class Spectral(Rows):
    example_inputs: object = torch.complex(ROWS, ROWS)

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


class Phase(Rows):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(self.linear(x))


class Statless(Rows):
    """Its norm takes the statistics of the batch that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x))


class Large(nn.Module):
    example_inputs = ROWS

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 6000), nn.Linear(6000, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))
