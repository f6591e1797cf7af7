"""Point Descriptor: image + pixel -> text. Talking Points (arXiv 2510.14583), section 3."""

import math
from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    BaseModelOutputWithPooling,
    CausalLMOutputWithPast,
)
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils.generic import can_return_tuple

from .configuration_talking_points import PointDescriptorConfig
from .modeling_talking_points import TalkingPointsModel, TalkingPointsPreTrainedModel


@dataclass
class PointDescriptorImageOutput(BaseModelOutputWithPooling):
    """What precedes the language model.

    Args:
        pooler_output (list of `torch.Tensor` of shape `(image_seq_length, hidden)`): the image tokens, one entry per image.
        point_embeds (`torch.Tensor` of shape `(points, hidden)`): point tokens, image after image, padding left out.
        point_features (`torch.Tensor` of shape `(points, 2 * hidden_dim)`): [query; query_pos] before the projection.
        point_mask_logits (list of `torch.Tensor` of shape `(points, height, width)`): masks predicted before each decoder layer and after
            the last one; only with `point_mask="predicted"`.
        point_counts (`list[int]`): number of points of each image.
    """

    point_embeds: torch.FloatTensor | None = None
    point_features: torch.FloatTensor | None = None
    point_mask_logits: list | None = None
    point_counts: list | None = None


@dataclass
class PointDescriptorModelOutputWithPast(BaseModelOutputWithPast):
    point_features: torch.FloatTensor | None = None
    point_mask_logits: list | None = None


@dataclass
class PointDescriptorCausalLMOutputWithPast(CausalLMOutputWithPast):
    """`CausalLMOutputWithPast` plus `point_features` and `point_mask_logits` of [`PointDescriptorImageOutput`]."""

    point_features: torch.FloatTensor | None = None
    point_mask_logits: list | None = None


def gaussian_attention_mask(points, height, width, sigma, threshold):
    """Cells of one feature level that a point may not attend to (section 3.1 of the paper).

    A cell at distance d is open where exp(-d^2 / 2 sigma^2) >= threshold; the nearest cell always is, since a Gaussian narrower than a
    cell would otherwise block everything.

    Args:
        points (`torch.Tensor` of shape `(batch, points, 2)`): (x, y) on the canvas, in [0, 1].
    Returns:
        bool `torch.Tensor` of shape `(batch, points, height * width)`, True = blocked (the convention of `nn.MultiheadAttention`).
    """
    points = points.float()
    y = (torch.arange(height, device=points.device) + 0.5) / height
    x = (torch.arange(width, device=points.device) + 0.5) / width
    distance = (y[:, None] - points[..., 1, None, None]) ** 2 + (
        x - points[..., 0, None, None]
    ) ** 2
    distance = distance.flatten(2)
    blocked = torch.exp(-distance / (2 * sigma**2)) < threshold
    return blocked.scatter(2, distance.argmin(-1, keepdim=True), False)


class PointPromptEncoder(nn.Module):
    """A point's content query (learned) and position query (sinusoidal encoding of a small box around it + linear)."""

    def __init__(self, config):
        super().__init__()
        self.dim, self.box = (
            config.vision_config.hidden_dim,
            config.point_box_size / config.image_size,
        )
        self.prompt_embedding = nn.Embedding(1, self.dim)
        self.position_projection = nn.Linear(2 * self.dim, self.dim)

    def forward(self, points):
        coordinates = torch.cat(
            [points.flip(-1), torch.full_like(points, self.box)], -1
        ).float() * (2 * math.pi)
        half = self.dim // 2
        period = 10000 ** (2 * (torch.arange(half, device=points.device) // 2).float() / half)
        angle = coordinates[..., None] / period
        encoding = torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), -1).flatten(-3)
        query_pos = self.position_projection(encoding.to(self.position_projection.weight.dtype))
        return self.prompt_embedding.weight[0].expand_as(query_pos), query_pos


class PointProjector(nn.Module):
    """[query; query_pos] -> one token of the language model."""

    def __init__(self, config):
        super().__init__()
        hidden = config.text_config.hidden_size
        self.fc1 = nn.Linear(2 * config.vision_config.hidden_dim, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def forward(self, features):
        return self.fc2(nn.functional.gelu(self.fc1(features)))


class PointDescriptorModel(TalkingPointsModel):
    config: PointDescriptorConfig

    def __init__(self, config):
        super().__init__(config)
        self.point_encoder = PointPromptEncoder(config)
        self.point_projector = PointProjector(config)
        self.post_init()
        self.freeze_unreached()

    def get_image_features(self, pixel_values=None, input_points=None, feature_maps=None, **kwargs):
        """Encodes images, and their points if given, once.

        Args:
            pixel_values (`torch.Tensor` of shape `(images, 3, image_size, image_size)`)
            input_points (`torch.Tensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1]; NaN rows are padding.
            feature_maps (list of `torch.Tensor`): the backbone's maps instead of `pixel_values`.
        """
        _, decoded, tokens = self.encode_image(pixel_values, feature_maps)
        output = PointDescriptorImageOutput(pooler_output=list(tokens))
        if input_points is not None:
            features, output.point_mask_logits = self.perceive_points(decoded, input_points)
            real = ~input_points.isnan().any(-1)
            output.point_features, output.point_counts = features[real], real.sum(1).tolist()
            output.point_embeds = self.point_projector(output.point_features)
        return output

    def perceive_points(self, decoded, input_points):
        """Decoder layers over the points. Points of one image share its keys and values and do not see each other."""
        config, transformer = self.config, self.vision_tower.transformer_module
        heads, decoder = config.vision_config.num_attention_heads, transformer.decoder
        points = input_points.float().nan_to_num(0.5)  # half precision would move a point by pixels
        query, query_pos = self.point_encoder(points)
        keys, positions, sizes = [], [], []
        for i, level in enumerate(decoded.multi_scale_features[: transformer.num_feature_levels]):
            sizes.append(level.shape[-2:])
            keys.append(
                (
                    transformer.input_projections[i](level).flatten(2)
                    + transformer.level_embed.weight[i][None, :, None]
                ).permute(2, 0, 1)
            )
            positions.append(
                transformer.position_embedder(level.shape, level.device, level.dtype, None)
                .flatten(2)
                .permute(2, 0, 1)
            )
        fixed = None
        if config.point_mask == "gaussian":
            fixed = [
                gaussian_attention_mask(
                    points, *size, config.mask_sigma, config.mask_threshold
                ).repeat_interleave(heads, 0)
                for size in sizes
            ]

        batch, count, dim = query.shape
        x, pos = query.transpose(0, 1), query_pos.transpose(0, 1)  # (points, batch, dim)
        flat_pos, mask_logits = pos.reshape(1, count * batch, dim), []
        for i, layer in enumerate(decoder.layers):
            level = i % transformer.num_feature_levels
            blocked = fixed and fixed[level]
            if config.point_mask == "predicted":
                logits, blocked = decoder.mask_predictor(
                    decoder.layernorm(x), decoded.mask_features, sizes[level]
                )
                blocked = blocked & ~blocked.all(
                    -1, keepdim=True
                )  # nothing predicted: look everywhere
                mask_logits.append(logits)
            attended = layer.cross_attn(
                x + pos,
                keys[level] + positions[level],
                keys[level],
                attn_mask=blocked,
                need_weights=False,
            )[0]
            x = layer.cross_attn_layer_norm(x + attended)
            alone = x.reshape(
                1, count * batch, dim
            )  # one query per entry: self-attention sees one point
            x = layer.self_attn_layer_norm(
                x
                + layer.self_attn(alone, position_embeddings=flat_pos)[0].reshape(count, batch, dim)
            )
            x = layer.final_layer_norm(x + layer.fc2(layer.activation_fn(layer.fc1(x))))
        if config.point_mask == "predicted":
            mask_logits.append(
                decoder.mask_predictor(decoder.layernorm(x), decoded.mask_features, sizes[0])[0]
            )
            real = ~input_points.isnan().any(-1)
            mask_logits = [logits[real] for logits in mask_logits]
        return torch.cat([x, pos], -1).transpose(0, 1), mask_logits or None

    def tokens_of_images(self, image, input_ids):
        """The image tokens, one entry per image if every image has as many rows of text, else one per row."""
        tokens, counts = list(image.pooler_output), image.point_counts
        regions = (input_ids == self.config.region_token_id).sum(1)
        if (
            counts
            and len(counts) == len(tokens) < len(regions)
            and sum(counts) == int(regions.sum())
        ):
            owners = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[
                regions.cpu().cumsum(0) - 1
            ]
            if owners.bincount(minlength=len(counts)).unique().numel() > 1:
                return [tokens[owner] for owner in owners]
        return tokens

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        pixel_values=None,
        input_points=None,
        feature_maps=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        logits_to_keep=0,
        mm_encoder_outputs=None,
        **kwargs,
    ):
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        image = (mm_encoder_outputs or {}).get("image")
        if image is None and (pixel_values is not None or feature_maps is not None):
            image = self.get_image_features(pixel_values, input_points, feature_maps)
        group, stop_token_id = 1, self.config.region_token_id
        if image is not None:
            tokens = self.tokens_of_images(image, input_ids)
            group = len(input_ids) // len(tokens)
            tokens = self.rows_of_images(torch.stack(tokens), len(input_ids))
            inputs_embeds = self.scatter(
                inputs_embeds,
                input_ids == self.config.image_token_id,
                tokens.flatten(0, 1),
                "image",
            )
            regions = input_ids == self.config.region_token_id
            if image.point_embeds is not None:
                inputs_embeds = self.scatter(inputs_embeds, regions, image.point_embeds, "region")
                if len(image.point_embeds) == len(input_ids):
                    points = image.point_embeds.view(-1, group, image.point_embeds.shape[-1])
                    if bool((points == points[:, :1]).all()):
                        stop_token_id = None  # rows of one point share what follows it too
            elif bool(regions.any()):
                raise ValueError(
                    "the text has region placeholders but no points were given: pass input_points"
                )
        out = self.run_language_model(
            input_ids,
            inputs_embeds,
            attention_mask,
            group,
            stop_token_id=stop_token_id,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return PointDescriptorModelOutputWithPast(
            last_hidden_state=slice_logits_to_keep(out.last_hidden_state, logits_to_keep),
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
            point_features=image.point_features if image is not None else None,
            point_mask_logits=image.point_mask_logits if image is not None else None,
        )


class PointDescriptorForConditionalGeneration(TalkingPointsPreTrainedModel, GenerationMixin):
    """Describes points: `generate(**processor(images, text, points))`.

    Rows of text that belong to one image stand together; `pixel_values` holds each image once, `input_points` its points, and the
    region placeholders of the rows take them in order."""

    config: PointDescriptorConfig
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config):
        super().__init__(config)
        self.model = PointDescriptorModel(config)
        self.lm_head = nn.Linear(
            config.text_config.hidden_size, config.text_config.vocab_size, bias=False
        )
        self.post_init()
        self.freeze_unreached()

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def get_image_features(self, pixel_values=None, input_points=None, feature_maps=None, **kwargs):
        return self.model.get_image_features(pixel_values, input_points, feature_maps, **kwargs)

    def _prepare_multimodal_encoder_kwargs_for_generation(self, model_kwargs):
        # the inherited one drops these in silence when there are no pixel_values
        given = [k for k in ("input_points", "feature_maps") if model_kwargs.get(k) is not None]
        if given and model_kwargs.get("pixel_values") is None:
            raise ValueError(
                f"generate() takes {given} only with pixel_values: encode with get_image_features and pass mm_encoder_outputs alone"
            )
        return super()._prepare_multimodal_encoder_kwargs_for_generation(model_kwargs)

    def _expand_multimodal_outputs(
        self, input_ids, mm_encoder_output, expand_size=1, inputs_embeds=None
    ):
        image = mm_encoder_output.get("image")
        if (
            image is not None
        ):  # a copy: the inherited method writes into what the caller may use again
            image = replace(image, pooler_output=self.model.tokens_of_images(image, input_ids))
            mm_encoder_output = {**mm_encoder_output, "image": image}
        out = super()._expand_multimodal_outputs(
            input_ids, mm_encoder_output, expand_size, inputs_embeds
        )
        if image is not None and image.point_embeds is not None:
            counts = (input_ids == self.config.region_token_id).sum(1).tolist()
            image.point_embeds = torch.cat(
                [rows.repeat(expand_size, 1) for rows in image.point_embeds.split(counts)]
            )
            image.point_counts = None
        return out

    def _rows_alike(self, input_ids, image, tokens, attention_mask):
        """Largest n for which every n consecutive rows have one prompt, image and point; `tokens` are the image tokens of each row."""
        rows = len(input_ids)
        alike = torch.ones(rows - 1, dtype=torch.bool, device=input_ids.device)
        for values in (input_ids, attention_mask, image.point_embeds):
            if values is not None:
                alike &= (values[1:] == values[:-1]).all(1)
        alike = [
            same and one is other for same, one, other in zip(alike.tolist(), tokens[1:], tokens)
        ]
        starts = [0, *(i for i, same in enumerate(alike, 1) if not same), rows]
        return math.gcd(*(stop - start for start, stop in zip(starts, starts[1:])))

    def _prefill(self, input_ids, generation_config, model_kwargs, is_first_iteration=True):
        rows, group = len(input_ids), 1
        image, cache = (
            (model_kwargs.get("mm_encoder_outputs") or {}).get("image"),
            model_kwargs.get("past_key_values"),
        )
        states = generation_config.output_attentions or generation_config.output_hidden_states
        plain = (
            type(cache) is DynamicCache
            and not cache.get_seq_length()
            and generation_config.prefill_chunk_size is None
            and not states
        )
        if (
            plain
            and image is not None
            and image.point_embeds is not None
            and len(image.point_embeds) == rows
        ):
            tokens = self.model.tokens_of_images(image, input_ids)
            tokens = [own for own in tokens for _ in range(rows // len(tokens))]
            group = self._rows_alike(input_ids, image, tokens, model_kwargs.get("attention_mask"))
        if group == 1:
            return super()._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)
        # rows alike, such as the samples of a policy, are prefilled once
        first = {
            k: v[::group] if torch.is_tensor(v) and v.ndim > 1 and len(v) == rows else v
            for k, v in model_kwargs.items()
        }
        image = replace(
            image,
            pooler_output=tokens[::group],
            point_embeds=image.point_embeds[::group],
            point_counts=None,
        )
        first["mm_encoder_outputs"] = {"image": image}
        outputs = super()._prefill(input_ids[::group], generation_config, first, is_first_iteration)
        outputs.past_key_values.batch_repeat_interleave(group)
        outputs.logits = outputs.logits.repeat_interleave(group, 0)
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids=None,
        pixel_values=None,
        input_points=None,
        feature_maps=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        labels=None,
        logits_to_keep=0,
        mm_encoder_outputs=None,
        **kwargs,
    ):
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(rows, length)`)
            pixel_values (`torch.Tensor` of shape `(images, 3, image_size, image_size)`): rows must be a multiple of images.
            input_points (`torch.Tensor` of shape `(images, points, 2)`): (x, y) on the canvas, in [0, 1]; NaN rows are padding.
            feature_maps (list of `torch.Tensor`): the backbone's maps instead of `pixel_values`.
            labels (`torch.LongTensor` of shape `(rows, length)`): -100 where no loss is taken.
            mm_encoder_outputs (`dict`): {"image": output of `get_image_features`} instead of images and points.
        """
        out = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            input_points=input_points,
            feature_maps=feature_maps,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        logits = self.lm_head(out.last_hidden_state)
        loss = None
        if labels is not None:
            loss = self.loss_function(
                logits=logits,
                labels=labels,
                vocab_size=self.config.text_config.vocab_size,
                **kwargs,
            )
        return PointDescriptorCausalLMOutputWithPast(
            loss=loss, logits=logits, **{k: v for k, v in out.items() if k != "last_hidden_state"}
        )


__all__ = ["PointDescriptorForConditionalGeneration", "PointDescriptorModel"]
