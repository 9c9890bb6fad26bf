"""Architectures of `transformers`, built small from their configs.

Each entry: config class, model class, config arguments, kind of input, and the group kinds that a person would expect,
written down before anything ran (channels and blocks for CNNs; heads, ffn, hidden and blocks for transformers).
"""

from dataclasses import dataclass, field
from typing import Any

CNN = frozenset({"channels", "blocks"})
TRANSFORMER = frozenset({"heads", "ffn", "hidden", "blocks"})
HYBRID = frozenset({"channels", "heads", "ffn", "blocks"})
# The hidden axis of a bare encoder is its output: nothing may be removed from it.
ENCODER = frozenset({"heads", "ffn", "blocks"})


@dataclass(frozen=True)
class Entry:
    """One architecture; ``name`` is its row in the table."""

    name: str
    config: str
    model: str
    inputs: str
    expected: frozenset[str]
    arguments: dict[str, Any] = field(default_factory=dict)


_VIT = dict(
    image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48
)
_TEXT = dict(
    vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=64,
)  # fmt: skip
_DECODER = dict(_TEXT, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
_SWIN = dict(image_size=32, patch_size=2, embed_dim=16, depths=[2, 2], num_heads=[2, 4], window_size=4)

VISION = (
    Entry("resnet", "ResNetConfig", "ResNetForImageClassification", "image", CNN,
          dict(embedding_size=16, hidden_sizes=[16, 24, 32], depths=[2, 2, 1], layer_type="basic")),
    Entry("resnet_bottleneck", "ResNetConfig", "ResNetForImageClassification", "image", CNN,
          dict(embedding_size=16, hidden_sizes=[32, 48], depths=[2, 2], layer_type="bottleneck")),
    Entry("regnet", "RegNetConfig", "RegNetForImageClassification", "image", CNN,
          dict(embedding_size=16, hidden_sizes=[16, 32], depths=[2, 2], groups_width=8)),
    Entry("bit", "BitConfig", "BitForImageClassification", "image", CNN,
          dict(embedding_size=32, hidden_sizes=[64, 128], depths=[2, 2], num_groups=8)),
    Entry("mobilenet_v1", "MobileNetV1Config", "MobileNetV1ForImageClassification", "image", frozenset({"channels"}),
          dict(image_size=32, depth_multiplier=0.25)),
    Entry("mobilenet_v2", "MobileNetV2Config", "MobileNetV2ForImageClassification", "image", CNN,
          dict(image_size=32, depth_multiplier=0.35)),
    Entry("efficientnet", "EfficientNetConfig", "EfficientNetForImageClassification", "image", CNN,
          dict(image_size=32, width_coefficient=0.25, depth_coefficient=0.5, hidden_dim=320)),
    Entry("convnext", "ConvNextConfig", "ConvNextForImageClassification", "image", CNN,
          dict(hidden_sizes=[16, 24, 32], depths=[1, 2, 1], num_stages=3)),
    Entry("convnext_v2", "ConvNextV2Config", "ConvNextV2ForImageClassification", "image", CNN,
          dict(hidden_sizes=[16, 24, 32], depths=[1, 2, 1], num_stages=3)),
    Entry("poolformer", "PoolFormerConfig", "PoolFormerForImageClassification", "image", CNN,
          dict(depths=[2, 2], hidden_sizes=[16, 32], num_encoder_blocks=2, patch_sizes=[7, 3], strides=[4, 2],
               padding=[2, 1])),
    Entry("focalnet", "FocalNetConfig", "FocalNetForImageClassification", "image", CNN,
          dict(image_size=32, patch_size=4, embed_dim=16, hidden_sizes=[16, 32], depths=[1, 2], focal_levels=[2, 2],
               focal_windows=[3, 3])),
    Entry("vit", "ViTConfig", "ViTForImageClassification", "image", TRANSFORMER, _VIT),
    Entry("deit", "DeiTConfig", "DeiTForImageClassification", "image", TRANSFORMER, _VIT),
    Entry("beit", "BeitConfig", "BeitForImageClassification", "image", TRANSFORMER,
          dict(_VIT, use_relative_position_bias=True)),
    Entry("dinov2", "Dinov2Config", "Dinov2ForImageClassification", "image", TRANSFORMER,
          dict(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2)),
    Entry("swin", "SwinConfig", "SwinForImageClassification", "image", TRANSFORMER, _SWIN),
    Entry("swin_v2", "Swinv2Config", "Swinv2ForImageClassification", "image", TRANSFORMER, _SWIN),
    Entry("pvt", "PvtConfig", "PvtForImageClassification", "image", TRANSFORMER,
          dict(image_size=32, num_encoder_blocks=2, depths=[1, 1], sequence_reduction_ratios=[2, 1],
               hidden_sizes=[16, 32], patch_sizes=[4, 2], strides=[4, 2], num_attention_heads=[2, 4], mlp_ratios=[2,
          2])),
    Entry("pvt_v2", "PvtV2Config", "PvtV2ForImageClassification", "image", TRANSFORMER,
          dict(image_size=32, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32],
               patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[2, 4], mlp_ratios=[2, 2])),
    Entry("cvt", "CvtConfig", "CvtForImageClassification", "image", HYBRID,
          dict(patch_sizes=[7, 3], patch_stride=[4, 2], patch_padding=[2, 1], embed_dim=[16, 32], num_heads=[2, 4],
               depth=[1, 2], mlp_ratio=[2.0, 2.0], attention_drop_rate=[0.0, 0.0], drop_rate=[0.0, 0.0],
               drop_path_rate=[0.0, 0.0],
               qkv_bias=[True, True], cls_token=[False, True], qkv_projection_method=["dw_bn", "dw_bn"],
               kernel_qkv=[3, 3], padding_kv=[1, 1], stride_kv=[2, 2], padding_q=[1, 1], stride_q=[1, 1])),
    Entry("levit", "LevitConfig", "LevitForImageClassification", "image64", HYBRID,
          dict(image_size=64, hidden_sizes=[16, 32, 48], num_attention_heads=[2, 4, 6], depths=[1, 1, 1],
               key_dim=[8, 8, 8], mlp_ratio=[2, 2, 2], attention_ratio=[2, 2, 2])),
    Entry("mobilevit", "MobileViTConfig", "MobileViTForImageClassification", "image64", HYBRID,
          dict(image_size=64, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
               num_attention_heads=4, patch_size=2)),
    Entry("mobilevit_v2", "MobileViTV2Config", "MobileViTV2ForImageClassification", "image64", CNN,
          dict(image_size=64, width_multiplier=0.25, base_attn_unit_dims=[32, 48, 64], n_attn_blocks=[1, 1, 1])),
    Entry("segformer", "SegformerConfig", "SegformerForImageClassification", "image", TRANSFORMER,
          dict(num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[16, 32], patch_sizes=[7, 3],
               strides=[4, 2], num_attention_heads=[2, 4], mlp_ratios=[2, 2])),
    Entry("yolos", "YolosConfig", "YolosForObjectDetection", "image", TRANSFORMER,
          dict(_VIT, image_size=[32, 32], num_detection_tokens=5, use_mid_position_embeddings=False)),
    Entry("clip_vision", "CLIPVisionConfig", "CLIPVisionModel", "image", ENCODER, _VIT),
    Entry("siglip_vision", "SiglipVisionConfig", "SiglipVisionModel", "image", ENCODER, _VIT),
)  # fmt: skip

TEXT = (
    Entry("bert", "BertConfig", "BertForSequenceClassification", "text", TRANSFORMER, _TEXT),
    Entry("roberta", "RobertaConfig", "RobertaForSequenceClassification", "text", TRANSFORMER,
          dict(_TEXT, pad_token_id=0)),
    Entry("distilbert", "DistilBertConfig", "DistilBertForSequenceClassification", "text", TRANSFORMER,
          dict(vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64)),
    Entry("albert", "AlbertConfig", "AlbertForSequenceClassification", "text", TRANSFORMER,
          dict(_TEXT, embedding_size=16)),
    Entry("electra", "ElectraConfig", "ElectraForSequenceClassification", "text", TRANSFORMER,
          dict(_TEXT, embedding_size=16)),
    Entry("mobilebert", "MobileBertConfig", "MobileBertForSequenceClassification", "text", TRANSFORMER,
          dict(_TEXT, embedding_size=16, intra_bottleneck_size=16, num_feedforward_networks=2)),
    Entry("squeezebert", "SqueezeBertConfig", "SqueezeBertForSequenceClassification", "text", TRANSFORMER,
          dict(_TEXT, embedding_size=32, q_groups=2, k_groups=2, v_groups=2, intermediate_groups=2, output_groups=2)),
    Entry("deberta", "DebertaConfig", "DebertaForSequenceClassification", "text", TRANSFORMER,
          dict(_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"])),
    Entry("deberta_v2", "DebertaV2Config", "DebertaV2ForSequenceClassification", "text", TRANSFORMER,
          dict(_TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=16, share_att_key=True)),
    Entry("mpnet", "MPNetConfig", "MPNetForSequenceClassification", "text", TRANSFORMER, _TEXT),
    Entry("gpt2", "GPT2Config", "GPT2LMHeadModel", "ids", TRANSFORMER,
          dict(vocab_size=99, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
    Entry("gpt_neo", "GPTNeoConfig", "GPTNeoForCausalLM", "ids", TRANSFORMER,
          dict(vocab_size=99, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=48, window_size=8,
               attention_types=[[["global", "local"], 1]], max_position_embeddings=64)),
    Entry("opt", "OPTConfig", "OPTForCausalLM", "text", TRANSFORMER,
          dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
               max_position_embeddings=64, word_embed_proj_dim=32)),
    Entry("bloom", "BloomConfig", "BloomForCausalLM", "text", TRANSFORMER,
          dict(vocab_size=99, hidden_size=32, n_layer=2, n_head=4)),
    Entry("falcon", "FalconConfig", "FalconForCausalLM", "text", frozenset({"ffn", "hidden", "blocks", "heads"}),
          dict(vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, multi_query=True,
               max_position_embeddings=64)),
    Entry("llama", "LlamaConfig", "LlamaForCausalLM", "text", TRANSFORMER, _DECODER),
    Entry("mistral", "MistralConfig", "MistralForCausalLM", "text", TRANSFORMER, dict(_DECODER, sliding_window=16)),
    Entry("qwen2", "Qwen2Config", "Qwen2ForCausalLM", "text", TRANSFORMER, _DECODER),
    Entry("qwen3", "Qwen3Config", "Qwen3ForCausalLM", "text", TRANSFORMER, dict(_DECODER, head_dim=8)),
    Entry("gemma", "GemmaConfig", "GemmaForCausalLM", "text", TRANSFORMER, dict(_DECODER, head_dim=8)),
    Entry("phi", "PhiConfig", "PhiForCausalLM", "text", TRANSFORMER, dict(_DECODER, num_key_value_heads=4)),
    Entry("t5_encoder", "T5Config", "T5EncoderModel", "text", ENCODER,
          dict(vocab_size=99, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)),
    Entry("bart_encoder", "BartConfig", "BartEncoder", "text", ENCODER,
          dict(vocab_size=99, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48,
               decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=48, max_position_embeddings=64)),
)  # fmt: skip

_AUDIO = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(16, 16),
    conv_stride=(5, 2), conv_kernel=(10, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4, apply_spec_augment=False,
)  # fmt: skip

AUDIO = (
    Entry("wav2vec2", "Wav2Vec2Config", "Wav2Vec2Model", "waveform", HYBRID, _AUDIO),
    Entry("hubert", "HubertConfig", "HubertModel", "waveform", HYBRID, _AUDIO),
    Entry("whisper_encoder", "WhisperConfig", "WhisperEncoder", "mel", ENCODER,
          dict(num_mel_bins=16, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48,
               decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=48, max_source_positions=32)),
    Entry("ast", "ASTConfig", "ASTForAudioClassification", "spectrogram", TRANSFORMER,
          dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, patch_size=8,
               frequency_stride=8, time_stride=8, max_length=32, num_mel_bins=16)),
)  # fmt: skip

ENTRIES = VISION + TEXT + AUDIO
