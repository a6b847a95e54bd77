"""The Vision Transformer of the paper (equations 1 to 4), its hybrids, and a way to look inside."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitral.errors import ModelError
from vitral.model.layers import Attention, AttentionPool, Block, StepSamples, dropped, uniform
from vitral.model.patches import PatchProjection
from vitral.model.positions import Grid, PositionContext, Positions, position_context
from vitral.model.resnet import ResNet
from vitral.specs import Dropouts, ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What the model makes of each image; the tokens are normed as the head sees them.

    `patches` are (B, rows * columns, width) in raster order; `cls` and `distillation` (B, width),
    or None where there is no such token; `registers` (B, registers, width). `per_block` maps an
    index to the (B, T, width) that enters that block, and `depth` to what leaves the last.
    """

    cls: Tensor | None
    distillation: Tensor | None
    registers: Tensor
    patches: Tensor
    grid: Grid
    per_block: dict[int, Tensor]


class PatchCorruption(NamedTuple):
    """A substitution of patches: the embeddings that an encoder is shown in their places.

    `source` int64 (B, N) is the patch of the same image whose embedding stands in each place, and
    where `masked` (B, N) holds, `mask_token` (width,) stands instead. Positions are added to it.
    """

    source: Tensor
    masked: Tensor
    mask_token: Tensor


class ViT(nn.Module):
    """The spec decides the weights, the dropouts what training adds; see `vitral.model.build`.

    A spec with a ResNet puts it before the patches (hybrid); where there are no blocks (BiT) the
    ResNet is the whole network, and the cells of its last map are the tokens. `spec.prefix` tokens
    stand before the patches: class, distillation, registers.
    """

    def __init__(self, spec: ModelSpec, dropouts: Dropouts, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.spec, self.dropouts = spec, dropouts
        self.checkpointing = checkpointing
        self.stem = ResNet(spec.resnet, spec.channels) if spec.resnet else nn.Identity()
        inputs = spec.resnet.outputs if spec.resnet else spec.channels
        self.patches: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        if not spec.is_resnet:
            self.patches = PatchProjection(spec, inputs)
            self.norm = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        counts = (spec.class_token, spec.distillation_token, spec.registers)
        self.cls, self.distillation, self.registers = (
            nn.Parameter(torch.empty(1, count, spec.width)) if count else None for count in counts
        )
        added = spec.positions not in ("none", "relative", "rope2d")
        self.positions = Positions(spec) if added else None
        self.blocks = nn.ModuleList(Block(spec, dropouts, index) for index in range(spec.depth))
        self.pool = AttentionPool(spec) if spec.pool == "map" else None
        hidden, distilled = spec.representation, spec.distillation_token
        self.pre_logits = nn.Linear(spec.pooled_width, hidden) if hidden else None
        self.head = nn.Linear(hidden or spec.pooled_width, spec.classes) if spec.classes else None
        self.distillation_head = nn.Linear(spec.width, spec.classes) if distilled else None

    def forward(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """Logits (B, classes) of images (B, channels, H, W); the representation if classes is 0.

        With a distillation token, the mean of the two heads, in training too: DeiT's loss takes
        them apart with `logits_per_head`.

        Raises ModelError for images of another size than the spec's, unless any_size=True resizes
        the positions to theirs; SpecError for a size that is not a multiple of the patch.
        """
        return _mean(self.logits_per_head(images, any_size=any_size))

    def logits_per_head(
        self, images: Tensor, *, any_size: bool = False, samples: StepSamples | None = None
    ) -> tuple[Tensor, ...]:
        """(B, classes) of the class token's head, then of the distillation token's if any.

        In training, `samples` says which samples of their step the images are.
        """
        return self._answers(self._read(images, any_size, samples=samples))

    def forward_with_attention(
        self, images: Tensor, *, any_size: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """`forward`, and the attention it went through, in the graph: d logits / d A exists.

        One (B, heads, T, T) per block, row = query. Unless the head reads the last class token
        alone, one more for each vector of `spec.readout`, which pools: (B, heads, 1, T) of a probe,
        (B, 1, 1, T) of a mean, each of its tokens 1 / N, or of a class token, 1.
        """
        attention_out: list[Tensor] = []
        return _mean(self._answers(self._read(images, any_size, attention_out))), attention_out

    def logits_from_tokens(self, *tokens: Tensor) -> Tensor:
        """Logits (B, classes) of tokens (B, T, width) after any block, read as the last's are.

        A head that reads class tokens of several blocks (`spec.pool_blocks`) is given the tokens
        after each block up to that one; where there are fewer, the first stands for the missing.
        """
        return _mean(self._answers(self._ended(tokens)))

    def representation(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """(B, representation or pooled width): what the head reads, y of equation 4.

        The mean of what two heads read.
        """
        return _mean(self._read(images, any_size))

    def features(
        self, images: Tensor, blocks: Collection[int] = (), *, any_size: bool = False
    ) -> Features:
        """Every token at the end, and the tokens that enter the blocks asked for (0 to depth).

        Patches are never dropped here, not even in training.
        """
        if unknown := sorted(set(blocks) - set(range(self.spec.depth + 1))):
            raise ModelError(f"Blocks are 0 to {self.spec.depth}; there is no {unknown[0]}.")
        tokens, tables, context, grid = self._embed(images, any_size)
        tokens, entered = self._run(tokens, tables, context, blocks)
        if self.spec.pool_norm == "before" or self.spec.pool == "cls":
            tokens = self.norm(tokens)
        first = self.spec.class_token + self.spec.distillation_token
        return Features(
            cls=tokens[:, 0] if self.spec.class_token else None,
            distillation=tokens[:, 1] if self.spec.distillation_token else None,
            registers=tokens[:, first : self.spec.prefix],
            patches=tokens[:, self.spec.prefix :],
            grid=grid,
            per_block=entered,
        )

    def forward_patches(
        self,
        images: Tensor,
        *,
        corruption: PatchCorruption | None = None,
        samples: StepSamples | None = None,
    ) -> Tensor:
        """Return the patches' tokens after the last block, normed: (B, N, width) in raster order.

        In training, `corruption` changes what the network sees of them and `samples` says which
        samples of their step the images are. Patches are never dropped here.
        """
        tokens, tables, context, _ = self._embed(images, any_size=False, corruption=corruption)
        tokens, _ = self._run(tokens, tables, context, samples=samples)
        normed: Tensor = self.norm(tokens)
        return normed[:, self.spec.prefix :]

    def attention_weights(
        self, images: Tensor, blocks: Collection[int] | None = None, *, any_size: bool = False
    ) -> list[Tensor]:
        """One (B, heads, T, T) per block asked for (all by default), in order; rows are queries.

        The softmax that `forward` computes, whatever kernel it runs on; every row sums to 1.
        """
        wanted = tuple(range(self.spec.depth) if blocks is None else blocks)
        if unknown := sorted(set(wanted) - set(range(self.spec.depth))):
            raise ModelError(f"Blocks are numbered from 0; {self.spec.name} has no {unknown[0]}.")
        seen = self.features(images, wanted, any_size=any_size)
        context = position_context(self.spec, seen.grid, seen.patches)
        parts = {index: self._attention(index, seen.per_block[index]) for index in wanted}
        return [attention.weights(x, context) for attention, x in map(parts.__getitem__, wanted)]

    def queries_keys_values(
        self, images: Tensor, block: int, *, any_size: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of one block as they meet (equation 5), (B, heads, T, head_width) each."""
        if block not in range(self.spec.depth):
            raise ModelError(f"Blocks are 0 to {self.spec.depth - 1}; there is no {block}.")
        seen = self.features(images, [block], any_size=any_size)
        attention, x = self._attention(block, seen.per_block[block])
        return attention.project(x, position_context(self.spec, seen.grid, seen.patches))

    def _attention(self, index: int, entered: Tensor) -> tuple[Attention, Tensor]:
        """The attention of a block, and what it reads of the tokens that entered the block."""
        block = self.blocks[index]
        assert isinstance(block, Block)
        return block.attention, block.norm1(entered)

    def resized(self, size: tuple[int, int]) -> "ViT":
        """A copy for images of another size (height, width); spec.resample moves the positions."""
        spec, weights = replace(self.spec, size=size), self.state_dict()
        like = next(self.parameters())
        position_context(self.spec, spec.grid, like)  # raises where nothing can move them
        if self.positions is not None:
            moved = self.positions.on(spec.grid)
            weights |= {f"positions.{name}": table.detach() for name, table in moved.items()}
        with torch.device("meta"):
            model = ViT(spec, self.dropouts, checkpointing=self.checkpointing)
        model.load_state_dict({name: x.clone() for name, x in weights.items()}, assign=True)
        for name, parameter in self.named_parameters():
            model.get_parameter(name).requires_grad_(parameter.requires_grad)
        return model.train(self.training)

    def _embed(
        self, images: Tensor, any_size: bool, corruption: PatchCorruption | None = None
    ) -> tuple[Tensor, Tensor | None, PositionContext | None, Grid]:
        """Equation 1: the tokens; the tables added at blocks; attention's context; the grid."""
        self.spec.check_images(images.shape, any_size)
        maps = self.patches(self.stem(images))
        grid = (maps.shape[2], maps.shape[3])
        # Under autocast the residual stream keeps the weights' precision, as where positions or a
        # class token of float32 are joined to the patches.
        precision = next(self.parameters()).dtype
        tokens = maps.flatten(2).transpose(1, 2).to(precision)  # b d r c -> b (r c) d
        if corruption is not None:
            source = corruption.source[:, :, None].expand(-1, -1, tokens.shape[2])
            masked = corruption.masked[:, :, None]
            tokens = torch.where(masked, corruption.mask_token.to(tokens), tokens.gather(1, source))
        before = [x for x in (self.cls, self.distillation, self.registers) if x is not None]
        prefix = [x.expand(tokens.shape[0], -1, -1) for x in before]
        tokens = torch.cat([*prefix, tokens], dim=1) if prefix else tokens
        tables = None if self.positions is None else self.positions(grid, tokens)
        if tables is not None and self.spec.positions_at == "stem":
            tokens, tables = tokens + tables, None
        tokens = dropped(tokens, self.dropouts.dropout, self.training)
        return tokens, tables, position_context(self.spec, grid, tokens), grid

    def _run(
        self,
        x: Tensor,
        tables: Tensor | None,
        context: PositionContext | None,
        wanted: Collection[int] = (),
        attention_out: list[Tensor] | None = None,
        samples: StepSamples | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Equations 2 and 3, L times; beside the result, what entered the wanted blocks."""
        entered: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = x if tables is None else x + tables[index % len(tables)]  # its own, or the one
            if index in wanted:
                entered[index] = x
            if self.checkpointing and self.training:
                x = checkpoint(block, x, context, None, samples, use_reentrant=False)
            else:
                x = block(x, context, attention_out, samples)
        if self.spec.depth in wanted:
            entered[self.spec.depth] = x
        return x, entered

    def _read(
        self,
        images: Tensor,
        any_size: bool,
        attention_out: list[Tensor] | None = None,
        samples: StepSamples | None = None,
    ) -> tuple[Tensor, ...]:
        """What each head reads, (B, representation or width)."""
        tokens, tables, context, grid = self._embed(images, any_size)
        if self.training and self.dropouts.patch_dropout:
            chosen = self._kept_patches(tokens, grid, samples)
            tokens = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
            tables = None if tables is None else tables[:, chosen]
            context = None if context is None else context.of(chosen, self.spec.prefix)
        earlier = range(self.spec.depth - self.spec.pool_blocks + 1, self.spec.depth)
        tokens, entered = self._run(tokens, tables, context, earlier, attention_out, samples)
        return self._ended((*entered.values(), tokens), attention_out)

    def _ended(
        self, tokens: tuple[Tensor, ...], attention_out: list[Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """What each head reads of the tokens after the last blocks, those of the very last last."""
        vectors = [
            self._pooled(tokens[max(len(tokens) - 1 - back, 0)], which, attention_out)
            for back, which in self.spec.readout
        ]
        pooled = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
        pooled = pooled if self.pre_logits is None else torch.tanh(self.pre_logits(pooled))
        return (pooled,) if self.distillation is None else (pooled, self.norm(tokens[-1][:, 1]))

    def _kept_patches(self, tokens: Tensor, grid: Grid, samples: StepSamples | None) -> Tensor:
        """(B, T') indices of the tokens each image keeps: the whole prefix, and some patches."""
        count, (batch, _, _), device = grid[0] * grid[1], tokens.shape, tokens.device
        keep = max(1, round(count * (1 - self.dropouts.patch_dropout)))
        numbers = uniform(tokens, (count,), samples)
        patches = numbers.argsort(1)[:, :keep].sort(1).values
        prefix = torch.arange(self.spec.prefix, device=device).expand(batch, -1)
        return torch.cat([prefix, patches + self.spec.prefix], dim=1)

    def _answers(self, read: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        heads = (self.head, self.distillation_head)
        return tuple(x if head is None else head(x) for head, x in zip(heads, read, strict=False))

    def _pooled(self, x: Tensor, which: str, attention_out: list[Tensor] | None) -> Tensor:
        """(B, width): equation 4, or another way to make one vector of the tokens."""
        first = self.spec.prefix
        match which:
            case "cls" if attention_out is None or len(self.spec.readout) == 1:
                return self.norm(x[:, 0])  # of one token alone: before and after are the same
            case "cls":
                tokens = slice(0, 1)
            case "mean":
                tokens = slice(first, None)
            case "mean_all" | "map":
                tokens = slice(None)
            case _:
                raise ModelError(f"There is no pool '{which}'.")
        x = self.norm(x) if self.spec.pool_norm == "before" or which == "cls" else x
        if self.pool is not None:
            x = self.pool(x, attention_out)
        elif attention_out is None:
            x = x[:, tokens].mean(1)
        else:  # attention whose weights are all the same
            share = x.new_zeros(len(x), 1, 1, x.shape[1])
            share[..., tokens] = 1 / x[0, tokens].shape[0]
            attention_out.append(share.requires_grad_(torch.is_grad_enabled()))
            x = (share[:, 0] @ x)[:, 0]
        return self.norm(x) if self.spec.pool_norm == "after" and which != "cls" else x


def _mean(read: tuple[Tensor, ...]) -> Tensor:
    """What one head gives, or the mean of what two give."""
    return read[0] if len(read) == 1 else torch.stack(read).mean(0)
