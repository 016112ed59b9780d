"""`python -m rmploss` is `rmploss`, for torchrun."""

from rmploss.cli import command

command()
