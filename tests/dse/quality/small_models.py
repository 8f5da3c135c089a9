"""Small models of every type that pruning knows, with random weights, and inputs for them."""

import torch
import transformers

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}


def bert(cls=transformers.BertModel, **more):
    config = transformers.BertConfig(**SIZES, vocab_size=60, max_position_embeddings=40, hidden_dropout_prob=0.0, **more)
    return _made(cls, config)


def roberta():
    config = transformers.RobertaConfig(**SIZES, vocab_size=60, max_position_embeddings=42, hidden_dropout_prob=0.0, num_labels=3)
    return _made(transformers.RobertaForSequenceClassification, config)


def llama(tied=False):
    config = transformers.LlamaConfig(**SIZES, vocab_size=60, num_key_value_heads=2, head_dim=8, max_position_embeddings=40,
                                      tie_word_embeddings=tied)  # fmt: skip
    return _made(transformers.LlamaForCausalLM, config)


def qwen3():
    config = transformers.Qwen3Config(**SIZES, vocab_size=60, num_key_value_heads=2, head_dim=16, max_position_embeddings=40)
    return _made(transformers.Qwen3ForCausalLM, config)


def qwen2():
    config = transformers.Qwen2Config(**SIZES, vocab_size=60, num_key_value_heads=2, max_position_embeddings=40)
    return _made(transformers.Qwen2ForCausalLM, config)


def vit():
    config = transformers.ViTConfig(**SIZES, image_size=16, patch_size=4, num_channels=1, num_labels=5, hidden_dropout_prob=0.0)
    return _made(transformers.ViTForImageClassification, config)


ALL = {"bert": bert, "roberta": roberta, "llama": llama, "qwen2": qwen2, "qwen3": qwen3, "vit": vit}


def _made(cls, config):
    torch.manual_seed(1)
    model = cls(config).eval()
    with torch.no_grad():  # norms and biases are 1 and 0 at the start, which would hide a mistake
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value += 0.3 * torch.randn_like(value)
            elif "embed" not in name:
                value *= 4.0
    return model


def batches(model, count=4, size=4, length=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        if model.main_input_name == "pixel_values":
            side = model.config.image_size
            made.append({"pixel_values": torch.rand(size, model.config.num_channels, side, side, generator=generator)})
            continue
        ids = torch.randint(3, model.config.vocab_size, (size, length), generator=generator)
        mask = torch.ones_like(ids)
        mask[0, length - 3 :] = 0
        made.append({"input_ids": ids, "attention_mask": mask})
    return made


def output(model, batch):
    with torch.no_grad():
        found = model(**batch)
    rows = found[0]
    return rows[batch["attention_mask"].bool()] if "attention_mask" in batch and rows.ndim == 3 else rows
