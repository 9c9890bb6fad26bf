"""Hand-written transformer parts: packed QKV in both spellings, gated feed-forward, a tied language model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChunkAttention(nn.Module):
    """One projection, split by ``chunk(3)`` into query, key and value."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = (t.view(n, length, self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(n, length, width))


class ViewAttention(nn.Module):
    """One projection viewed as (3, heads, size), the timm spelling, with attention written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.heads, self.size = heads, width // heads

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        q, k, v = self.qkv(x).reshape(n, length, 3, self.heads, self.size).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q * self.size**-0.5 @ k.transpose(-2, -1), -1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, length, width))


class Mlp(nn.Module):
    """Two layers with GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(x)))


class SwiGlu(nn.Module):
    """Shazeer, 2020: separate gate and value projections."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Glu(nn.Module):
    """Gate and value packed in one projection, `torch.nn.functional.glu`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.glu(self.up(x), -1))


class Encoder(nn.Module):
    """Pre-norm encoder over feature sequences (N, 12, 10), pooled to logits."""

    def __init__(self, width: int, layers: list[tuple[nn.Module, nn.Module]]) -> None:
        super().__init__()
        self.embed = nn.Linear(10, width)
        self.mixers = nn.ModuleList(mixer for mixer, _ in layers)
        self.mlps = nn.ModuleList(mlp for _, mlp in layers)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * len(layers) + 1))
        self.head = nn.Linear(width, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, (mixer, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mixer(self.norms[2 * i](x))
            x = x + mlp(self.norms[2 * i + 1](x))
        return self.head(self.norms[-1](x).mean(1))


class TiedLanguageModel(nn.Module):
    """Token embedding reused as the output head; a causal block with root-mean-square norms between."""

    def __init__(self, words: int = 50, width: int = 32) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.positions = nn.Embedding(64, width)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(3))
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = SwiGlu(width, 48)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        n, length = ids.shape
        x = self.words(ids) + self.positions(torch.arange(length, device=ids.device))
        parts = self.qkv(self.norms[0](x)).split(x.shape[-1], -1)
        q, k, v = (t.view(n, length, 4, -1).transpose(1, 2) for t in parts)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, length, -1))
        x = x + self.mlp(self.norms[1](x))
        return self.head(self.norms[2](x))


def packed_chunk() -> nn.Module:
    """Two layers of `ChunkAttention`."""
    return Encoder(32, [(ChunkAttention(32, 4), Mlp(32, 48)) for _ in range(2)])


def packed_view() -> nn.Module:
    """Two layers of `ViewAttention`."""
    return Encoder(32, [(ViewAttention(32, 4), Mlp(32, 48)) for _ in range(2)])


def gated() -> nn.Module:
    """Both gated feed-forward kinds."""
    return Encoder(32, [(SwiGlu(32, 40), Glu(32, 24)), (Glu(32, 40), SwiGlu(32, 24))])
