"""EfficientNet-Lite0 as a transformers backbone (Tan & Le, arXiv 1905.11946).

The Lite variants drop squeeze-and-excite and use ReLU6.
"""

from typing import Any

import torch
from torch import nn
from transformers import (
    AutoBackbone,
    AutoConfig,
    Mask2FormerConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

STEM_CHANNELS = 32
STAGE_NAMES = ["stem", "pixels", "stage1", "colors", "stage2", "stage3", "stage4"]
HIDDEN_SIZES = [3, 24, 12, 40, 112, 320]
# (repeats, kernel, stride, expansion, channels, name of the stage that ends here)
BLOCKS = [
    (1, 3, 1, 1, 16, None),
    (2, 3, 2, 6, 24, "stage1"),
    (2, 5, 2, 6, 40, "stage2"),
    (3, 3, 2, 6, 80, None),
    (3, 5, 1, 6, 112, "stage3"),
    (4, 5, 2, 6, 192, None),
    (1, 3, 1, 6, 320, "stage4"),
]


class EfficientNetLiteConfig(BackboneConfigMixin, PreTrainedConfig):
    """Stages `stem`, `stage1` … `stage4` have strides 2, 4, 8, 16, 32 and 32, 24, 40, 112, 320 channels.

    `pixels`, of stride 2 with 3 channels, are the pixels themselves, averaged in each cell; `colors`, of stride 8 with
    12 channels, hold in each cell four averages over cells of stride 4."""

    model_type = "efficientnet_lite"
    _out_features: list | None = None
    _out_indices: list | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # older checkpoints have neither pixels nor colors
        self.stage_names = kwargs.pop("stage_names", list(STAGE_NAMES))
        self.hidden_sizes = kwargs.pop("hidden_sizes", list(HIDDEN_SIZES))
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None),
            out_indices=kwargs.pop("out_indices", None),
        )
        super().__post_init__(**kwargs)


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "SAME" padding before and after a side, which is asymmetric for stride 2."""
    outputs = -(-side // stride)  # rounded up
    padding = max((outputs - 1) * stride + kernel - side, 0)
    before = padding // 2
    return before, padding - before


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        top, bottom = same_padding(height, self.kernel_size[0], self.stride[0])
        left, right = same_padding(width, self.kernel_size[1], self.stride[1])
        return super().forward(nn.functional.pad(x, [left, right, top, bottom]))


def batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class EfficientNetLiteBlock(nn.Module):
    # attribute names are those of the published weights
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        expansion: int,
    ) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.expand = expansion != 1
        self.skip = stride == 1 and in_channels == out_channels
        if self.expand:
            self._expand_conv = nn.Conv2d(in_channels, middle, 1, bias=False)
            self._bn0 = batch_norm(middle)
        self._depthwise_conv = SameConv2d(
            middle, middle, kernel, stride, groups=middle, bias=False
        )
        self._bn1 = batch_norm(middle)
        self._project_conv = nn.Conv2d(middle, out_channels, 1, bias=False)
        self._bn2 = batch_norm(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = x
        if self.expand:
            hidden = nn.functional.relu6(self._bn0(self._expand_conv(hidden)))
        hidden = nn.functional.relu6(self._bn1(self._depthwise_conv(hidden)))
        hidden = self._bn2(self._project_conv(hidden))
        return x + hidden if self.skip else hidden


class EfficientNetLiteBackbone(BackboneMixin, PreTrainedModel):
    config: EfficientNetLiteConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    has_attentions = False
    _supports_sdpa = True
    _no_split_modules = ["EfficientNetLiteBlock"]

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self._conv_stem = SameConv2d(3, STEM_CHANNELS, 3, 2, bias=False)
        self._bn0 = batch_norm(STEM_CHANNELS)
        self.num_features = [STEM_CHANNELS, *config.hidden_sizes]
        self.taps: dict[
            int, str
        ] = {}  # index of a stage's last block -> name of the stage
        self._blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for repeats, kernel, stride, expansion, out_channels, stage in BLOCKS:
            for repeat in range(repeats):
                block_stride = stride if repeat == 0 else 1
                block = EfficientNetLiteBlock(
                    channels, out_channels, kernel, block_stride, expansion
                )
                self._blocks.append(block)
                channels = out_channels
            if stage is not None:
                self.taps[len(self._blocks) - 1] = stage
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def forward(
        self,
        pixel_values: torch.FloatTensor,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> BackboneOutput:
        """
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch, 3, height, width)`)
        Returns:
            `BackboneOutput` with the feature maps of `config.out_features`, each of shape
            `(batch, channels, height / stride, width / stride)`.
        """
        x = pixel_values.to(
            memory_format=torch.channels_last
        )  # faster than contiguous on a CPU
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        maps = {"stem": x}
        maps["pixels"] = nn.functional.avg_pool2d(pixel_values, 2, ceil_mode=True)
        coarser = nn.functional.avg_pool2d(pixel_values, 4, ceil_mode=True)
        maps["colors"] = four_in_a_cell(coarser)
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.taps:
                maps[self.taps[index]] = x
        return BackboneOutput(
            feature_maps=tuple(maps[name] for name in self.out_features)
        )


def four_in_a_cell(pixels: torch.Tensor) -> torch.Tensor:
    """pixels (`torch.Tensor` of shape `(batch, 3, height, width)`) -> `(batch, 12, height / 2, width / 2)`."""
    height, width = pixels.shape[-2:]
    even = nn.functional.pad(pixels, [0, width % 2, 0, height % 2], "replicate")
    return nn.functional.pixel_unshuffle(even, 2)


AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig, exist_ok=True)
AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
# Mask2Former warns of any other backbone at every load
if EfficientNetLiteConfig.model_type not in Mask2FormerConfig.backbones_supported:
    Mask2FormerConfig.backbones_supported.append(EfficientNetLiteConfig.model_type)
