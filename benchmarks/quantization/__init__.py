"""What quantization costs, and what training under it wins back."""
