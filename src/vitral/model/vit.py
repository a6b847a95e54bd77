"""The Vision Transformer of the paper (equations 1 to 4), its hybrids, and ways to look inside.

Read `ViT.embed` (images become tokens, equation 1), `_encode` (the blocks, equations 2 and 3) and
`_head_inputs` (what the heads read, equation 4); the public methods put them together.
"""

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitral.errors import ModelError
from vitral.model.layers import Attention, AttentionPool, Block, StepSamples, drop, uniform
from vitral.model.merging import Merging, mean_of_patches
from vitral.model.patches import PatchProjection
from vitral.model.positions import Grid, PositionContext, Positions, position_context
from vitral.model.resnet import ResNet
from vitral.specs import Dropouts, ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """The tokens that a model makes of each image, normed as the head sees them.

    Attributes:
        cls: (B, width) or None where there is no such token.
        distillation: (B, width) or None.
        registers: (B, registers, width).
        patches: (B, rows * columns, width) in raster order.
        grid: (rows, columns).
        per_block: maps an index to the (B, T, width) that enters that block, not normed, and
            `depth` to what leaves the last.
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


class Embedded(NamedTuple):
    """Tokens as they enter the first block, and what the blocks need to know of them.

    Attributes:
        tokens: (B, T, width).
        tables: (1 or depth, T, width) positions to add at the input of each block; None if they
            were added already. Where images keep patches of their own, (1 or depth, B, T, width).
        context: for attention.
        grid: (rows, columns) of patches.
    """

    tokens: Tensor
    tables: Tensor | None
    context: PositionContext | None
    grid: Grid


class ViT(nn.Module):
    """A Vision Transformer: the spec decides its weights, the dropouts what training adds.

    Build one with `vitral.model.build`. A spec with a ResNet puts it before the patches (hybrid);
    where there are no blocks (BiT) the ResNet is the whole network, and the cells of its last map
    are the tokens. `spec.prefix` tokens stand before the patches: class, distillation, registers.
    """

    def __init__(self, spec: ModelSpec, dropouts: Dropouts, *, checkpointing: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.dropouts = dropouts
        self.checkpointing = checkpointing
        self.merge: tuple[int, ...] = ()  # tokens that each block merges when the network answers
        self.stem: nn.Module = nn.Identity()
        self.patches: nn.Module = nn.Identity()
        self.norm: nn.Module = nn.Identity()
        channels = spec.channels
        if spec.resnet is not None:
            self.stem = ResNet(spec.resnet, channels)
            channels = spec.resnet.outputs
        if not spec.is_resnet:
            self.patches = PatchProjection(spec, channels)
            self.norm = nn.LayerNorm(spec.width, eps=spec.norm_eps)
        self.cls = _learned_tokens(int(spec.class_token), spec.width)
        self.distillation = _learned_tokens(int(spec.distillation_token), spec.width)
        self.registers = _learned_tokens(spec.registers, spec.width)
        self.positions = Positions(spec) if spec.adds_positions else None
        self.blocks = nn.ModuleList(Block(spec, dropouts, index) for index in range(spec.depth))
        self.pool = AttentionPool(spec) if spec.pool == "map" else None
        hidden = spec.representation
        distilled = spec.distillation_token
        self.pre_logits = nn.Linear(spec.pooled_width, hidden) if hidden else None
        self.head = nn.Linear(spec.read_width, spec.classes) if spec.classes else None
        self.distillation_head = nn.Linear(spec.width, spec.classes) if distilled else None
        self.register_state_dict_post_hook(_keep_spec)

    def forward(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """Return the logits (B, classes) of images (B, channels, H, W).

        Without classes, what a head would read. With a distillation token, the mean of the two
        heads, in training too: DeiT's loss takes them apart with `logits_per_head`.

        Raises ModelError for images of another size than the spec's, unless any_size=True resizes
        the positions to theirs; SpecError for a size that is not a multiple of the patch.
        """
        return _mean(self.logits_per_head(images, any_size=any_size))

    def logits_per_head(
        self, images: Tensor, *, any_size: bool = False, samples: StepSamples | None = None
    ) -> tuple[Tensor, ...]:
        """Return (B, classes) of the class token's head, then of the distillation token's if any.

        In training, `samples` says which samples of their step the images are.
        """
        return self._head_logits(self._read(images, any_size, samples=samples))

    def forward_with_attention(
        self, images: Tensor, *, any_size: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Return `forward` and the attention it went through, in the graph: d logits / d A exists.

        One (B, heads, T, T) per block, row = query. Unless the head reads the last class token
        alone, one more for each vector of `spec.readout`, which pools: (B, heads, 1, T) of a probe,
        (B, 1, 1, T) of a mean, each of its tokens 1 / N, or of a class token, 1.
        """
        attention_out: list[Tensor] = []
        read = self._read(images, any_size, attention_out)
        return _mean(self._head_logits(read)), attention_out

    def logits_from_tokens(self, *tokens: Tensor) -> Tensor:
        """Return logits (B, classes) of tokens (B, T, width) after any block, read as the last.

        A head that reads class tokens of several blocks (`spec.pool_blocks`) is given the tokens
        after each block up to that one; where there are fewer, the first stands for the missing.
        """
        return _mean(self._head_logits(self._head_inputs(tokens)))

    def representation(self, images: Tensor, *, any_size: bool = False) -> Tensor:
        """Return what the head reads, y of equation 4: (B, representation or pooled width).

        Of two heads, the mean of what they read. timm calls it the pre-logits.
        """
        return _mean(self._read(images, any_size))

    def inputs_per_head(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what each head of `logits_per_head` reads, (B, width) each."""
        return self._read(images, any_size=False)

    def logits_and_detector_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return `forward` of images and what foreign ones may be told by, in one pass.

        The second are `representation`, and after it what the patch tokens of an image have in
        common: their mean and their deviation as they enter the first block, then their mean and
        the logarithm of their deviation after three quarters of the blocks, and after the last:
        (B, read width + 6 width).
        """
        embedded = self.embed(images, any_size=False)
        late = (round(0.75 * self.spec.depth), self.spec.depth)
        merging = self._merging()
        tokens, entered = self._encode(embedded, {*self._read_blocks, *late}, merging=merging)
        after = (*(entered[index] for index in self._read_blocks), tokens)
        read = self._head_inputs(after, merging=merging)
        statistics = [_mean(read).float(), *self._mean_and_deviation(embedded.tokens, None)]
        for index in late:
            sizes = None if merging is None else merging.sizes[index]
            mean, deviation = self._mean_and_deviation(entered[index], sizes)
            statistics += [mean, (deviation + 1e-6).log()]
        return _mean(self._head_logits(read)), torch.cat(statistics, dim=1)

    def _mean_and_deviation(self, tokens: Tensor, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, width) each, of the patch tokens; merged ones count as what they stand for."""
        patches = tokens[:, self.spec.prefix :].float()
        sizes = None if sizes is None else sizes[:, self.spec.prefix :]
        mean = mean_of_patches(patches, sizes)
        return mean, mean_of_patches((patches - mean[:, None]).square(), sizes).sqrt()

    def features(
        self, images: Tensor, blocks: Collection[int] = (), *, any_size: bool = False
    ) -> Features:
        """Return every token at the end, and those that enter the blocks asked for (0 to depth).

        Patches are never dropped here, not even in training.
        """
        if unknown := sorted(set(blocks) - set(range(self.spec.depth + 1))):
            raise ModelError(f"Blocks are 0 to {self.spec.depth}; there is no {unknown[0]}.")
        embedded = self.embed(images, any_size)
        tokens, entered = self._encode(embedded, blocks)
        if self.spec.pool_norm == "before" or self.spec.pool == "cls":
            tokens = self.norm(tokens)
        first = self.spec.class_token + self.spec.distillation_token
        return Features(
            cls=tokens[:, 0] if self.spec.class_token else None,
            distillation=tokens[:, 1] if self.spec.distillation_token else None,
            registers=tokens[:, first : self.spec.prefix],
            patches=tokens[:, self.spec.prefix :],
            grid=embedded.grid,
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
        embedded = self.embed(images, any_size=False, corruption=corruption)
        tokens, _ = self._encode(embedded, samples=samples)
        normed: Tensor = self.norm(tokens[:, self.spec.prefix :])
        return normed

    def attention_weights(
        self, images: Tensor, blocks: Collection[int] | None = None, *, any_size: bool = False
    ) -> list[Tensor]:
        """Return one (B, heads, T, T) per block asked for (all by default), in their order.

        Rows are queries. The softmax that `forward` computes, whatever kernel it runs on; every row
        sums to 1.
        """
        wanted = tuple(range(self.spec.depth) if blocks is None else blocks)
        if unknown := sorted(set(wanted) - set(range(self.spec.depth))):
            raise ModelError(f"Blocks are numbered from 0; {self.spec.name} has no {unknown[0]}.")
        features = self.features(images, wanted, any_size=any_size)
        context = position_context(self.spec, features.grid, features.patches)
        weights = []
        for index in wanted:
            attention, x = self._attention(index, features.per_block[index])
            weights.append(attention.weights(x, context))
        return weights

    def queries_keys_values(
        self, images: Tensor, block: int, *, any_size: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v of a block as they meet (equation 5), (B, heads, T, head_width) each."""
        if block not in range(self.spec.depth):
            raise ModelError(f"Blocks are 0 to {self.spec.depth - 1}; there is no {block}.")
        features = self.features(images, [block], any_size=any_size)
        attention, x = self._attention(block, features.per_block[block])
        return attention.project(x, position_context(self.spec, features.grid, features.patches))

    def merged(self, counts: tuple[int, ...]) -> "ViT":
        """Return the same network, of the same weights, whose blocks merge so many tokens each.

        They do so where it answers (`forward`, `representation`), not in training, nor for those
        who look inside. See `specs.merging.merge_counts`.
        """
        network = copy.copy(self)
        network.merge = counts
        return network

    def resized(self, size: tuple[int, int]) -> "ViT":
        """Return a copy for images of another size (height, width).

        The positions move by the rule of spec.resample; ModelError where nothing can move them.
        """
        spec = replace(self.spec, size=size)
        # raises where attention's positions belong to one grid
        position_context(self.spec, spec.grid, next(self.parameters()))
        weights = self.state_dict()
        if self.positions is not None:
            moved = self.positions.on(spec.grid)
            weights |= {f"positions.{name}": table.detach() for name, table in moved.items()}
        with torch.device("meta"):
            model = ViT(spec, self.dropouts, checkpointing=self.checkpointing)
        model.load_state_dict({name: x.clone() for name, x in weights.items()}, assign=True)
        for name, parameter in self.named_parameters():
            model.get_parameter(name).requires_grad_(parameter.requires_grad)
        return model.train(self.training)

    def _attention(self, index: int, entered: Tensor) -> tuple[Attention, Tensor]:
        """The attention of a block, and what it reads of the tokens that entered the block."""
        block = self.blocks[index]
        assert isinstance(block, Block)
        return block.attention, block.norm1(entered)

    def embed(
        self, images: Tensor, any_size: bool, corruption: PatchCorruption | None = None
    ) -> Embedded:
        """Make tokens of images, equation 1: z_0 = [x_class; x_p^1 E; ...; x_p^N E] + E_pos."""
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
        # The same class token for every image: what it becomes is up to attention.
        before = [x for x in (self.cls, self.distillation, self.registers) if x is not None]
        prefix = [x.expand(tokens.shape[0], -1, -1) for x in before]
        tokens = torch.cat([*prefix, tokens], dim=1) if prefix else tokens
        tables = None if self.positions is None else self.positions(grid, tokens)
        if tables is not None and self.spec.positions_at == "stem":
            tokens = tokens + tables
            tables = None
        tokens = drop(tokens, self.dropouts.dropout, self.training)
        return Embedded(tokens, tables, position_context(self.spec, grid, tokens), grid)

    def _without_some_patches(self, embedded: Embedded, samples: StepSamples | None) -> Embedded:
        """Patch dropout: each image keeps patches of its own, with their positions."""
        chosen = self._kept_patches(embedded.tokens, embedded.grid, samples)
        tokens, tables, context, grid = embedded
        tokens = tokens.gather(1, chosen[:, :, None].expand(-1, -1, tokens.shape[2]))
        tables = None if tables is None else tables[:, chosen]
        context = None if context is None else context.select(chosen, self.spec.prefix)
        return Embedded(tokens, tables, context, grid)

    def _kept_patches(self, tokens: Tensor, grid: Grid, samples: StepSamples | None) -> Tensor:
        """(B, T') indices of the tokens each image keeps: the whole prefix, and some patches."""
        count = grid[0] * grid[1]
        keep = max(1, round(count * (1 - self.dropouts.patch_dropout)))
        order = uniform(tokens, (count,), samples).argsort(1)
        patches = order[:, :keep].sort(1).values  # in raster order: no block minds, but readers do
        prefix = torch.arange(self.spec.prefix, device=tokens.device).expand(len(tokens), -1)
        return torch.cat([prefix, patches + self.spec.prefix], dim=1)

    def _encode(
        self,
        embedded: Embedded,
        wanted: Collection[int] = (),
        attention_out: list[Tensor] | None = None,
        samples: StepSamples | None = None,
        merging: Merging | None = None,
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Equations 2 and 3, L times; beside the result, what entered the wanted blocks."""
        x, tables, context, _ = embedded
        entered: dict[int, Tensor] = {}
        for index, block in enumerate(self.blocks):
            x = x if tables is None else x + tables[index % len(tables)]  # its own, or the one
            if index in wanted:
                entered[index] = x
            # Checkpointing keeps x alone and computes the block again in the backward pass; torch
            # brings the random state back, so that the same branches are dropped.
            if self.checkpointing and self.training:
                x = checkpoint(block, x, context, None, samples, use_reentrant=False)
            else:
                x = block(x, context, attention_out, samples, merging)
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
        """What each head reads of images."""
        embedded = self.embed(images, any_size)
        if self.training and self.dropouts.patch_dropout:
            embedded = self._without_some_patches(embedded, samples)
        return self._read_embedded(embedded, attention_out, samples)

    def _read_embedded(
        self,
        embedded: Embedded,
        attention_out: list[Tensor] | None = None,
        samples: StepSamples | None = None,
    ) -> tuple[Tensor, ...]:
        # those who look at attention look at the network as it was trained
        merging = self._merging() if attention_out is None else None
        tokens, entered = self._encode(embedded, self._read_blocks, attention_out, samples, merging)
        return self._head_inputs((*entered.values(), tokens), attention_out, merging)

    def _merging(self) -> Merging | None:
        """The merging of a pass that answers; None where nothing is to be merged."""
        return Merging(self.merge, self.spec.prefix) if self.merge and not self.training else None

    @property
    def _read_blocks(self) -> range:
        """The blocks whose input the head reads, beside the tokens after the last."""
        return range(self.spec.depth - self.spec.pool_blocks + 1, self.spec.depth)

    def _head_inputs(
        self,
        tokens: tuple[Tensor, ...],
        attention_out: list[Tensor] | None = None,
        merging: Merging | None = None,
    ) -> tuple[Tensor, ...]:
        """What each head reads of the tokens after the last blocks, those of the very last last."""
        vectors = []
        for back, which in self.spec.readout:
            after = tokens[max(len(tokens) - 1 - back, 0)]
            sizes = None if merging is None else merging.sizes[-1 - back]
            vectors.append(self._pooled(after, which, attention_out, sizes))
        pooled = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=1)
        pooled = pooled if self.pre_logits is None else torch.tanh(self.pre_logits(pooled))
        return (pooled,) if self.distillation is None else (pooled, self.norm(tokens[-1][:, 1]))

    def _head_logits(self, read: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        heads = (self.head, self.distillation_head)
        return tuple(x if head is None else head(x) for head, x in zip(heads, read, strict=False))

    def _pooled(
        self,
        x: Tensor,
        which: str,
        attention_out: list[Tensor] | None,
        sizes: Tensor | None = None,
    ) -> Tensor:
        """(B, width): equation 4, or another way to make one vector of the tokens.

        `sizes` (B, T, 1) are of merged tokens.
        """
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
            bias = None if sizes is None else sizes.log().mT[:, None]
            x = self.pool(x, attention_out, bias)
        elif attention_out is None:
            x = mean_of_patches(x[:, tokens], None if sizes is None else sizes[:, tokens])
        else:  # the same mean, as attention whose weights are all equal: d logits / d A exists
            share = x.new_zeros(len(x), 1, 1, x.shape[1])
            share[..., tokens] = 1 / x[0, tokens].shape[0]
            attention_out.append(share.requires_grad_(torch.is_grad_enabled()))
            x = (share[:, 0] @ x)[:, 0]
        return self.norm(x) if self.spec.pool_norm == "after" and which != "cls" else x


def _keep_spec(module: "ViT", _: object, prefix: str, metadata: dict[str, object]) -> None:
    """Let the specification travel with a state_dict, beside the version that torch keeps there."""
    metadata["spec"] = module.spec.to_dict()


def _learned_tokens(count: int, width: int) -> nn.Parameter | None:
    return nn.Parameter(torch.empty(1, count, width)) if count else None


def _mean(read: tuple[Tensor, ...]) -> Tensor:
    """What one head gives, or the mean of what two give."""
    return read[0] if len(read) == 1 else torch.stack(read).mean(0)
