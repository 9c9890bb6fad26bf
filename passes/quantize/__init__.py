"""Lower precision: post-training quantization, casts, and the choice between them."""
