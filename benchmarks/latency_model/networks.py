"""The networks whose latencies vendors publish, rebuilt (weights never initialised) to get their kernels."""

import warnings
from functools import cache

import torch
from torch import Tensor, nn

from compactor.ir.cost import kernels
from compactor.ir.exported import from_exported
from compactor.ir.kernels import Kernel

# depth, width, widest channel, nested blocks everywhere: Ultralytics' published scaling of YOLO11.
_YOLO11 = {
    "n": (0.5, 0.25, 1024, False),
    "s": (0.5, 0.5, 1024, False),
    "m": (0.5, 1.0, 512, True),
    "l": (1.0, 1.0, 512, True),
    "x": (1.0, 1.5, 512, True),
}


@cache
def network(name: str) -> tuple[Kernel, ...]:
    """Kernels of ``yolo11n``, ``bert-base-128``, ``bert-6-384-1536-12-64``, ``resnet20`` or ``mobilenetv2``."""
    with torch.device("meta"):
        module, shape, dtype = _build(name)
    inputs = (torch.zeros(shape, dtype=dtype),)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exported = torch.export.export(_First(module.to_empty(device="cpu").eval()), inputs)
        return kernels(from_exported(exported))


def example(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The network with random weights, in evaluation mode, and inputs for a batch of 2."""
    module, (_, *shape), dtype = _build(name)
    return _First(module).eval(), (torch.zeros((2, *shape), dtype=dtype),)


def _build(name: str) -> tuple[nn.Module, tuple[int, ...], torch.dtype]:
    if name.startswith("yolo11"):
        return Yolo11(*_YOLO11[name.removeprefix("yolo11")]), (1, 3, 640, 640), torch.float32
    if name.startswith("resnet"):
        return CifarResNet(int(name.removeprefix("resnet"))), (1, 3, 32, 32), torch.float32
    from transformers import BertConfig, BertModel, MobileNetV2Config, MobileNetV2ForImageClassification

    if name == "mobilenetv2":
        return MobileNetV2ForImageClassification(MobileNetV2Config(num_labels=1000)), (1, 3, 224, 224), torch.float32
    text = name.replace("base", "12-768-3072-12").replace("large", "24-1024-4096-16")
    layers, hidden, inner, heads, length = map(int, text.split("-")[1:])
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        num_attention_heads=heads,
        attn_implementation="sdpa",
    )
    return BertModel(config), (1, length), torch.int64


class _First(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        output = self.module(x)
        return output if isinstance(output, Tensor) else output[0]


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2: widths 16/32/64, depth 6n+2, shortcuts padded with zeros."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        n = (depth - 2) // 6
        layers: list[nn.Module] = [Conv(3, 16, 3, act=nn.ReLU)]
        for before, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2)):
            layers += [Basic(before if i == 0 else width, width, stride if i == 0 else 1) for i in range(n)]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean((2, 3)))


class Basic(nn.Module):
    """Two 3x3 convolutions with a shortcut without weights."""

    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(a, b, 3, stride, act=nn.ReLU), Conv(b, b, 3, act=nn.Identity))
        self.extra = (b - a) // 2

    def forward(self, x: Tensor) -> Tensor:
        short = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra)) if self.extra else x
        return torch.relu(self.body(x) + short)


class Conv(nn.Sequential):
    """Convolution, batch norm, activation."""

    def __init__(self, a: int, b: int, k: int = 1, s: int = 1, g: int = 1, act: type[nn.Module] = nn.SiLU) -> None:
        super().__init__(nn.Conv2d(a, b, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(b), act())


class Bottleneck(nn.Module):
    """Two 3x3 convolutions with a residual."""

    def __init__(self, c: int, e: float) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(c, int(c * e), 3), Conv(int(c * e), c, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class C3k(nn.Module):
    """A cross-stage block of two bottlenecks."""

    def __init__(self, c: int) -> None:
        super().__init__()
        h = c // 2
        self.a, self.b, self.out = Conv(c, h), Conv(c, h), Conv(2 * h, c)
        self.body = nn.Sequential(Bottleneck(h, 1.0), Bottleneck(h, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat((self.body(self.a(x)), self.b(x)), 1))


class C3k2(nn.Module):
    """A cross-stage block whose every stage feeds the output."""

    def __init__(self, a: int, b: int, n: int, nested: bool, e: float = 0.5) -> None:
        super().__init__()
        c = int(b * e)
        self.first, self.out = Conv(a, 2 * c), Conv((2 + n) * c, b)
        self.body = nn.ModuleList(C3k(c) if nested else Bottleneck(c, 0.5) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.body:
            parts.append(block(parts[-1]))
        return self.out(torch.cat(parts, 1))


class Pooling(nn.Module):
    """Three chained 5x5 poolings, concatenated."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.first, self.pool, self.out = Conv(c, c // 2), nn.MaxPool2d(5, 1, 2), Conv(2 * c, c)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.out(torch.cat(parts, 1))


class Attention(nn.Module):
    """Self-attention over positions with a depthwise positional term, then a feed-forward pair."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.heads = c // 64
        self.qkv, self.proj = Conv(c, 2 * c, act=nn.Identity), Conv(c, c, act=nn.Identity)
        self.position = Conv(c, c, 3, g=c, act=nn.Identity)
        self.ffn = nn.Sequential(Conv(c, 2 * c), Conv(2 * c, c, act=nn.Identity))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).view(b, self.heads, 128, h * w).split((32, 32, 64), 2)
        weights = ((q.transpose(-2, -1) @ k) * 32**-0.5).softmax(-1)
        mixed = (v @ weights.transpose(-2, -1)).view(b, c, h, w)
        x = x + self.proj(mixed + self.position(v.reshape(b, c, h, w)))
        return x + self.ffn(x)


class C2Psa(nn.Module):
    """A cross-stage block of attentions."""

    def __init__(self, c: int, n: int) -> None:
        super().__init__()
        self.first, self.out = Conv(c, c), Conv(c, c)
        self.body = nn.Sequential(*(Attention(c // 2) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x).chunk(2, 1)
        return self.out(torch.cat((a, self.body(b)), 1))


class Detect(nn.Module):
    """Box and class branches at three scales."""

    def __init__(self, channels: tuple[int, ...], classes: int = 80) -> None:
        super().__init__()
        box, cls = max(16, channels[0] // 4, 64), max(channels[0], min(classes, 100))
        self.classes = classes
        self.box = nn.ModuleList(
            nn.Sequential(Conv(c, box, 3), Conv(box, box, 3), nn.Conv2d(box, 64, 1)) for c in channels
        )
        self.cls = nn.ModuleList(
            nn.Sequential(
                Conv(c, c, 3, g=c), Conv(c, cls), Conv(cls, cls, 3, g=cls), Conv(cls, cls), nn.Conv2d(cls, classes, 1)
            )
            for c in channels
        )

    def forward(self, xs: list[Tensor]) -> Tensor:
        parts = [torch.cat((b(x), c(x)), 1).flatten(2) for x, b, c in zip(xs, self.box, self.cls, strict=True)]
        box, cls = torch.cat(parts, 2).split((64, self.classes), 1)
        edges = box.view(box.shape[0], 4, 16, -1).softmax(2).mean(2)
        return torch.cat((edges, cls.sigmoid()), 1)


class Yolo11(nn.Module):
    """YOLO11 detection, from its published layer table."""

    def __init__(self, depth: float, width: float, widest: int, nested: bool) -> None:
        super().__init__()
        c64, c128, c256, c512, c1024 = (int(min(c, widest) * width) for c in (64, 128, 256, 512, 1024))
        n = max(round(2 * depth), 1)
        self.p3 = nn.Sequential(
            Conv(3, c64, 3, 2), Conv(c64, c128, 3, 2), C3k2(c128, c256, n, nested, 0.25),
            Conv(c256, c256, 3, 2), C3k2(c256, c512, n, nested, 0.25),
        )  # fmt: skip
        self.p4 = nn.Sequential(Conv(c512, c512, 3, 2), C3k2(c512, c512, n, True))
        self.p5 = nn.Sequential(Conv(c512, c1024, 3, 2), C3k2(c1024, c1024, n, True), Pooling(c1024), C2Psa(c1024, n))
        self.up = nn.Upsample(scale_factor=2)
        self.n4, self.n3 = C3k2(c1024 + c512, c512, n, nested), C3k2(2 * c512, c256, n, nested)
        self.down3, self.down4 = Conv(c256, c256, 3, 2), Conv(c512, c512, 3, 2)
        self.o4, self.o5 = C3k2(c256 + c512, c512, n, nested), C3k2(c512 + c1024, c1024, n, True)
        self.detect = Detect((c256, c512, c1024))

    def forward(self, x: Tensor) -> Tensor:
        p3 = self.p3(x)
        p4 = self.p4(p3)
        p5 = self.p5(p4)
        n4 = self.n4(torch.cat((self.up(p5), p4), 1))
        n3 = self.n3(torch.cat((self.up(n4), p3), 1))
        o4 = self.o4(torch.cat((self.down3(n3), n4), 1))
        o5 = self.o5(torch.cat((self.down4(o4), p5), 1))
        return self.detect([n3, o4, o5])
