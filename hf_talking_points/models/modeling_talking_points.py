"""What both models share: vision tower, image tokens, language model, and sequences of one image that share their prefix."""

import os

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPast

from .configuration_talking_points import TalkingPointsConfig
from .remote_code import CompleteRepoMixin


def shared_prefix_length(input_ids, group, stop_token_id=None):
    """Number of leading tokens that all `group` consecutive rows of every image have in common (before `stop_token_id`)."""
    rows = input_ids.view(-1, group, input_ids.shape[1])
    differs = (rows != rows[:, :1]).flatten(0, 1).any(0)
    if stop_token_id is not None:
        differs = differs | (input_ids == stop_token_id).any(0)
    differs[-1] = True  # at least one token stays in every row
    return int(differs.int().argmax())


def run_with_shared_prefix(language_model, inputs_embeds, attention_mask, group, prefix, **kwargs):
    """Runs rows whose first `prefix` positions agree within each `group` as one packed sequence a group.

    The packed sequence is [prefix, suffix of row 1, …, suffix of row G]; a block mask lets a suffix see the prefix and itself, and
    position ids count on from the prefix, so the result equals that of separate rows.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(rows, length, hidden)`), attention_mask (`(rows, length)`, 0 = padding).
    Returns:
        `torch.Tensor` of shape `(rows, length, hidden)`: the last hidden states, aligned with the rows that went in.
    """
    rows, length, hidden = inputs_embeds.shape
    batch, suffix = rows // group, length - prefix
    embeds = inputs_embeds.view(batch, group, length, hidden)
    packed = torch.cat([embeds[:, 0, :prefix], embeds[:, :, prefix:].flatten(1, 2)], 1)

    def pack(values):
        values = values.view(batch, group, length)
        return torch.cat([values[:, 0, :prefix], values[:, :, prefix:].flatten(1)], 1)

    valid = pack(attention_mask).bool()
    position_ids = pack((attention_mask.long().cumsum(1) - 1).clamp(min=0))
    device = inputs_embeds.device
    block = torch.cat(
        [
            torch.zeros(prefix, device=device),
            torch.arange(1, group + 1, device=device).repeat_interleave(suffix),
        ]
    )
    index = torch.arange(len(block), device=device)
    seen = (index[None] <= index[:, None]) & ((block[None] == 0) | (block[None] == block[:, None]))
    allowed = seen[None] & valid[:, None]
    mask = torch.zeros(allowed.shape, dtype=packed.dtype, device=device)
    mask = mask.masked_fill(~allowed, torch.finfo(packed.dtype).min)[:, None]
    out = language_model(
        inputs_embeds=packed,
        attention_mask=mask,
        position_ids=position_ids,
        use_cache=False,
        **kwargs,
    )
    states = out.last_hidden_state
    head = states[:, None, :prefix].expand(-1, group, -1, -1)
    tail = states[:, prefix:].view(batch, group, suffix, hidden)
    return torch.cat([head, tail], 2).reshape(rows, length, hidden)


class ImageProjector(nn.Module):
    """Backbone maps -> image tokens: [fusion of strides,] space-to-depth, [perception prior,] two linear layers."""

    def __init__(self, config):
        super().__init__()
        vision, hidden = config.vision_config, config.text_config.hidden_size
        self.ratio, self.levels = (
            config.pixel_shuffle_ratio,
            [vision.feature_strides.index(s) for s in config.token_strides],
        )
        channels = backbone_channels(vision)
        width = channels[self.levels[-1]]
        self.fuse = nn.ModuleList()
        if len(self.levels) > 1:
            width = vision.hidden_dim
            self.fuse = nn.ModuleList(
                [
                    nn.Sequential(nn.Conv2d(channels[i], width, 1), nn.GroupNorm(8, width))
                    for i in self.levels
                ]
            )
            self.mix = nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, width, 1)
            )
        prior = 2 * vision.hidden_dim if config.use_perception_prior else 0
        self.fc1 = nn.Linear(width * self.ratio**2 + prior, hidden)
        self.act = ACT2FN[config.projector_hidden_act]
        self.fc2 = nn.Linear(hidden, hidden)
        self.position_embedding = nn.Embedding(config.image_seq_length, hidden)

    def cells(self, feature_maps):
        """-> (batch, channels * ratio^2, height, width) at the resolution of the image tokens."""
        maps = [feature_maps[i] for i in self.levels]
        if self.fuse:
            size = maps[0].shape[-2:]
            maps = [
                nn.functional.interpolate(f(m), size=size, mode="bilinear", align_corners=False)
                for f, m in zip(self.fuse, maps)
            ]
            x = sum(maps)
            x = x + self.mix(x)
        else:
            x = maps[0]
        b, c, h, w = x.shape
        r = self.ratio
        return x.reshape(b, c, h // r, r, w // r, r).permute(0, 3, 5, 1, 2, 4).flatten(1, 3)

    def forward(self, cells, prior=None):
        tokens = cells.flatten(2).transpose(1, 2)
        if prior is not None:
            tokens = torch.cat([tokens, prior], -1)
        return self.fc2(self.act(self.fc1(tokens))) + self.position_embedding.weight


def backbone_channels(vision_config):
    """Channels of the backbone's feature maps, finest first."""
    backbone = vision_config.backbone_config
    if getattr(backbone, "hidden_sizes", None):
        sizes = backbone.hidden_sizes
    else:  # Swin states the first stage's width and doubles it
        sizes = [backbone.embed_dim * 2**i for i in range(len(backbone.depths))]
    return list(sizes[-len(backbone.out_features) :])


class TalkingPointsPreTrainedModel(CompleteRepoMixin, PreTrainedModel):
    config: TalkingPointsConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["Mask2FormerPixelDecoder", "Mask2FormerMaskedAttentionDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            module.reset_parameters()  # what lies between two models starts at the scale of its inputs, not at a language model's 0.02
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        loaded = super().from_pretrained(*args, **kwargs)
        (loaded[0] if isinstance(loaded, tuple) else loaded).freeze_unreached()
        return loaded

    @classmethod
    def from_vision_text_pretrained(cls, vision, text, processor, **config_fields):
        """Composes a fresh model from two pretrained ones; only what lies between them is new.

        Args:
            vision, text: Hub id or path, or a loaded model, of a Mask2Former-style model and of a causal language model.
            processor: made by `from_tokenizer` of this model's processor class; the embeddings grow by its special tokens.
            config_fields: further fields of this class's config, such as `head` or `point_mask`.
        """
        vision = (
            AutoModel.from_pretrained(vision) if isinstance(vision, (str, os.PathLike)) else vision
        )
        text = (
            AutoModelForCausalLM.from_pretrained(text)
            if isinstance(text, (str, os.PathLike))
            else text
        )
        if len(processor.tokenizer) > text.get_input_embeddings().num_embeddings:
            text.resize_token_embeddings(len(processor.tokenizer))
        names = ("image_token_id", "region_token_id", "seg_token_id")
        tokens = {name: getattr(processor, name) for name in names if hasattr(processor, name)}
        config = cls.config_class(
            vision_config=vision.config,
            text_config=text.config,
            image_size=processor.image_size,
            tie_word_embeddings=text.config.tie_word_embeddings,
            **tokens,
            **config_fields,
        )
        if config.image_seq_length != processor.image_seq_length:
            raise ValueError(
                f"the processor makes {processor.image_seq_length} image tokens but the config {config.image_seq_length}"
            )
        model = cls(config)
        core = model.base_model
        core.vision_tower.load_state_dict(vision.state_dict())
        core.language_model.load_state_dict(text.base_model.state_dict())
        if model.get_output_embeddings() is not None:
            model.get_output_embeddings().load_state_dict(text.get_output_embeddings().state_dict())
        if model.can_generate():
            model.generation_config = text.generation_config
            model.generation_config.suppress_tokens = list(tokens.values())
        return model

    def freeze_unreached(self):
        """Takes the gradient from parameters that no loss reaches."""
        for parameter in self.base_model.unreached_parameters():
            parameter.requires_grad_(False)

    def freeze_backbone(self):
        """Freezes the backbone, whose feature maps can then be computed once and given to `forward` as `feature_maps`."""
        self.base_model.backbone.requires_grad_(False)

    def freeze_vision(self):
        """Freezes everything that precedes the language model."""
        for name, module in self.base_model.named_children():
            if name not in ("language_model", "map_keys"):
                module.requires_grad_(False)

    def enable_input_require_grads(self):
        # the inherited one also hooks Swin's patch embedding, which returns a tuple
        hook = self.get_input_embeddings().register_forward_hook(
            lambda module, args, out: out.requires_grad_(True)
        )
        self._require_grads_hooks = [hook]

    def get_input_embeddings(self):
        return self.base_model.language_model.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.base_model.language_model.set_input_embeddings(value)


class TalkingPointsModel(TalkingPointsPreTrainedModel):
    """Vision tower, image projector and language model: image tokens and text in, last hidden states out."""

    def __init__(self, config):
        super().__init__(config)
        config.vision_config._attn_implementation = "eager"  # Mask2FormerModel raises for any other
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.image_projector = ImageProjector(config)
        if config.use_perception_prior:
            self.class_predictor = nn.Linear(
                config.vision_config.hidden_dim, config.vision_config.num_labels + 1
            )
        self.language_model = AutoModel.from_config(config.text_config)

    @property
    def backbone(self):
        return self.vision_tower.pixel_level_module.encoder

    @property
    def pixel_decoder(self):
        return self.vision_tower.pixel_level_module.decoder

    def train(self, mode=True):
        super().train(mode)
        self.backbone.eval()  # a few images a batch are too few for batch statistics, and frozen features must not drift
        return self

    def unreached_modules(self):
        transformer = self.vision_tower.transformer_module
        unreached = []
        if not self.config.use_perception_prior:
            unreached += [transformer.queries_embedder, transformer.queries_features]
        if (
            not self.config.use_perception_prior
            and getattr(self.config, "point_mask", None) != "predicted"
        ):
            decoder = self.pixel_decoder
            unreached += [
                transformer.decoder.layernorm,
                transformer.decoder.mask_predictor,
                decoder.mask_projection,
            ]
            unreached += [*decoder.lateral_convolutions, *decoder.output_convolutions]
        return unreached

    def reached_strides(self):
        """Strides of the backbone maps that reach a loss."""
        strides, masks = (
            self.config.vision_config.feature_strides,
            getattr(self.config, "point_mask", None) == "predicted",
        )
        return set(
            strides
            if masks or self.config.use_perception_prior
            else [*strides[-3:], *self.config.token_strides]
        )

    def unreached_parameters(self):
        """Parameters that no loss reaches; which these are follows from the config."""
        for module in self.unreached_modules():
            yield from module.parameters()
        backbone, strides = self.backbone, self.config.vision_config.feature_strides
        for stage, stride in zip(backbone.out_features, strides):
            if stride not in self.reached_strides() and hasattr(backbone, "hidden_states_norms"):
                yield from backbone.hidden_states_norms[stage].parameters()
        if hasattr(backbone, "swin"):  # the norm of the plain model, which the backbone leaves out
            yield from backbone.swin.layernorm.parameters()
        if not self.config.vision_config.encoder_layers:
            yield self.pixel_decoder.level_embed
        if not self.config.use_perception_prior:
            for layer in (
                self.vision_tower.transformer_module.decoder.layers
            ):  # a softmax over a single point has no gradient
                yield from (
                    *layer.self_attn.q_proj.parameters(),
                    *layer.self_attn.k_proj.parameters(),
                )

    def encode_image(self, pixel_values=None, feature_maps=None):
        """-> (backbone feature maps, pixel decoder output, image tokens of shape `(images, image_seq_length, hidden)`)."""
        if (pixel_values is None) == (feature_maps is None):
            raise ValueError("give either pixel_values or feature_maps")
        if feature_maps is None:
            feature_maps = self.backbone(pixel_values.to(self.dtype)).feature_maps
        feature_maps = [m.to(self.dtype) for m in feature_maps]
        decoded = self.pixel_decoder(feature_maps)
        cells = self.image_projector.cells(feature_maps)
        prior = (
            self.perception_prior(decoded, cells.shape[-2:])
            if self.config.use_perception_prior
            else None
        )
        return feature_maps, decoded, self.image_projector(cells, prior)

    def perception_prior(self, decoded, size):
        """OMG-LLaVA's prior: object queries painted back on the pixels, `(images, cells, 2 * hidden_dim)`."""
        transformer = self.vision_tower.transformer_module
        out = transformer(decoded.multi_scale_features, decoded.mask_features)
        query = out.last_hidden_state
        query_pos = transformer.queries_embedder.weight.expand(query.shape[0], -1, -1)
        score = (
            self.class_predictor(out.intermediate_hidden_states[-1].transpose(0, 1))
            .softmax(-1)[..., :-1]
            .amax(-1)
        )
        weight = (0.5 + 0.5 * score)[..., None, None] * out.masks_queries_logits[-1].sigmoid()
        weight = nn.functional.interpolate(
            weight.float(), size=size, mode="bilinear", align_corners=False
        )
        return weight.softmax(1).flatten(2).transpose(1, 2).to(query.dtype) @ torch.cat(
            [query, query_pos], -1
        )

    def scatter(self, inputs_embeds, where, values, name):
        """Puts `values` (n, hidden) at the n placeholders marked in `where` (rows, length)."""
        if int(where.sum()) != len(values):
            raise ValueError(
                f"the text has {int(where.sum())} {name} placeholders but there are {len(values)} {name} features"
            )
        return inputs_embeds.masked_scatter(where[..., None], values.to(inputs_embeds))

    def rows_of_images(self, tokens, rows):
        """Image tokens for each of `rows` text rows; the rows of one image stand together and every image has as many."""
        if rows % len(tokens):
            raise ValueError(f"{rows} text rows cannot be shared evenly by {len(tokens)} images")
        return tokens.repeat_interleave(rows // len(tokens), 0)

    def run_language_model(
        self, input_ids, inputs_embeds, attention_mask, group=1, stop_token_id=None, **kwargs
    ):
        """Runs the language model; without a cache, rows that belong to one image (`group` of them) share their prefix."""
        implementation = self.language_model.config._attn_implementation
        prefix = 0
        if (
            group > 1
            and not kwargs.get("use_cache")
            and kwargs.get("past_key_values") is None
            and implementation in ("eager", "sdpa")
        ):
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            prefix = shared_prefix_length(
                input_ids.masked_fill(mask == 0, -1), group, stop_token_id
            )
        if prefix:
            kwargs = {
                k: v
                for k, v in kwargs.items()
                if k not in ("use_cache", "past_key_values", "position_ids")
            }
            states = run_with_shared_prefix(
                self.language_model, inputs_embeds, mask, group, prefix, **kwargs
            )
            return BaseModelOutputWithPast(last_hidden_state=states)
        return self.language_model(
            inputs_embeds=inputs_embeds, attention_mask=attention_mask, **kwargs
        )
