"""Other people's spiking networks: what crosses the border between their libraries and this one."""
