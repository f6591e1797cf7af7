"""EfficientNet-Lite0 as a transformers backbone (Tan & Le, arXiv 1905.11946; the Lite variants drop squeeze-and-excite and use ReLU6)."""

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
    """Stages `stem`, `stage1` … `stage4` have strides 2, 4, 8, 16, 32 and 32, 24, 40, 112, 320 channels."""

    model_type = "efficientnet_lite"
    _out_features: list | None = None
    _out_indices: list | None = None

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem", "stage1", "stage2", "stage3", "stage4"]
        self.hidden_sizes = [24, 40, 112, 320]
        self.set_output_features_output_indices(
            out_features=kwargs.pop("out_features", None),
            out_indices=kwargs.pop("out_indices", None),
        )
        super().__post_init__(**kwargs)


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding, which is asymmetric for stride 2."""

    def forward(self, x):
        kernel, stride = self.kernel_size[0], self.stride[0]
        height, width = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]
        )
        return super().forward(
            nn.functional.pad(
                x, [width // 2, width - width // 2, height // 2, height - height // 2]
            )
        )


def batch_norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class EfficientNetLiteBlock(nn.Module):
    # attribute names are those of the published weights
    def __init__(self, in_channels, out_channels, kernel, stride, expansion):
        super().__init__()
        middle = in_channels * expansion
        self.expand, self.skip = expansion != 1, stride == 1 and in_channels == out_channels
        if self.expand:
            self._expand_conv, self._bn0 = (
                nn.Conv2d(in_channels, middle, 1, bias=False),
                batch_norm(middle),
            )
        self._depthwise_conv = SameConv2d(middle, middle, kernel, stride, groups=middle, bias=False)
        self._bn1 = batch_norm(middle)
        self._project_conv, self._bn2 = (
            nn.Conv2d(middle, out_channels, 1, bias=False),
            batch_norm(out_channels),
        )

    def forward(self, x):
        h = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expand else x
        h = nn.functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.skip else h


class EfficientNetLiteBackbone(BackboneMixin, PreTrainedModel):
    config: EfficientNetLiteConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    has_attentions = False
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self._conv_stem, self._bn0 = SameConv2d(3, 32, 3, 2, bias=False), batch_norm(32)
        self.num_features = [32, 24, 40, 112, 320]
        self.taps, blocks, channels = {}, [], 32
        for repeats, kernel, stride, expansion, out_channels, stage in BLOCKS:
            for i in range(repeats):
                blocks.append(
                    EfficientNetLiteBlock(
                        channels, out_channels, kernel, stride if i == 0 else 1, expansion
                    )
                )
                channels = out_channels
            if stage is not None:
                self.taps[len(blocks) - 1] = stage
        self._blocks = nn.ModuleList(blocks)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def forward(self, pixel_values, output_hidden_states=None, return_dict=None, **kwargs):
        """pixel_values (`torch.Tensor` of shape `(batch, 3, height, width)`) -> feature maps of `config.out_features`."""
        x = pixel_values.to(memory_format=torch.channels_last)  # faster than contiguous on a CPU
        x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
        maps = {"stem": x}
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in self.taps:
                maps[self.taps[i]] = x
        return BackboneOutput(feature_maps=tuple(maps[name] for name in self.out_features))


AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig, exist_ok=True)
AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
if (
    EfficientNetLiteConfig.model_type not in Mask2FormerConfig.backbones_supported
):  # it warns of any other at every load
    Mask2FormerConfig.backbones_supported.append(EfficientNetLiteConfig.model_type)
