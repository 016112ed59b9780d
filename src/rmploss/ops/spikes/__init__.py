"""Spikes as a value: 0/1 tensors with their bits, 64 channels a word; packing and unpacking."""
