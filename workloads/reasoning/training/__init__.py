"""Training of small policies with resets and by consensus: a verifiable arithmetic task, the losses, and the loops that train."""
