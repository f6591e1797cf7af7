"""Small models from scratch: a vision tower around a CPU backbone, a Llama, a tokenizer for the words at hand."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Mask2FormerConfig,
    Mask2FormerModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ..models.modeling_efficientnet_lite import (
    EfficientNetLiteBackbone,
    EfficientNetLiteConfig,
)
from ..offline import efficientnet_lite0_state_dict

STRIDES = {"pixels": 2, "colors": 8}


def train_tokenizer(
    texts: Iterable[str], vocab_size: int = 1024, model_max_length: int = 512
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be written, and the words of `texts` are short."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )


def small_vision_tower(
    backbone: str | None = None,
    hidden_dim: int = 192,
    decoder_layers: int = 6,
    queries: int = 1,
    finest: str | None = None,
) -> Mask2FormerModel:
    """A `Mask2FormerModel` around EfficientNet-Lite0, whose decoder works on strides 8, 16 and 32.

    Args:
        backbone (`str`, *optional*): folder of an [`EfficientNetLiteBackbone`]; ImageNet weights without it.
        hidden_dim (`int`): width of the tower.
        decoder_layers (`int`): masked decoder layers (transformers builds one fewer than its config says).
        queries (`int`): object queries, which the perception prior reads.
        finest (`str`, *optional*): stage of the backbone that is one more map, "pixels" or "colors".
    """
    stages, strides = ["stage2", "stage3", "stage4"], [8, 16, 32]
    if finest is not None:
        stages, strides = [finest, *stages], [STRIDES[finest], *strides]
    encoder = EfficientNetLiteBackbone(EfficientNetLiteConfig(out_features=stages))
    if backbone is None:
        weights = efficientnet_lite0_state_dict()
    else:
        weights = EfficientNetLiteBackbone.from_pretrained(backbone).state_dict()
    encoder.load_state_dict(weights)
    config = Mask2FormerConfig(
        backbone_config=encoder.config,
        feature_strides=strides,
        common_stride=8,
        feature_size=hidden_dim,
        mask_feature_size=hidden_dim,
        hidden_dim=hidden_dim,
        encoder_layers=0,
        decoder_layers=decoder_layers + 1,
        dim_feedforward=512,
        num_attention_heads=6,
        num_queries=queries,
    )
    config._attn_implementation = "eager"
    model = Mask2FormerModel(config)
    model.pixel_level_module.encoder.load_state_dict(encoder.state_dict())
    return model


def small_language_model(
    tokenizer: PreTrainedTokenizerBase, layers: int = 5, hidden_size: int = 256
) -> LlamaForCausalLM:
    """A Llama from scratch for a tokenizer.

    Its word embeddings have unit variance and its layers keep the scale of their inputs: at the usual 0.02 for both,
    learning to read words, image and point takes longer.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=704,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=hidden_size**-0.5,
    )
    model = LlamaForCausalLM(config)
    nn.init.normal_(model.get_input_embeddings().weight)
    return model
